"""Train the embedded world's own Places365 and ImageNet, and write them where the package keeps them.

Run once per change of how the world is drawn; about six minutes on one core.

    python jobs/pretrain_stand_ins.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ccim_ray.command_line import parse, run
from ccim_ray.perception.weight_files import STAND_INS


@dataclass(frozen=True, kw_only=True)
class Flags:
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: that of the package)")] = STAND_INS
    """Folder for the three .safetensors files: scenes, objects and bodies."""
    pictures: int = 10_000
    """Pictures of each kind; an eighth is held out."""
    seed: int = 365_000_001
    """Seed of pictures and training; far from the seeds that worlds are made with."""


def main() -> int:
    flags = parse(Flags, "Train the small networks that stand in for Places365 and ImageNet on the embedded world.")
    from ccim_ray.perception.stand_ins import RECIPES, draw_pictures, pretrain, save_stand_in

    pictures = draw_pictures(flags.pictures, flags.seed)
    print(f"{flags.pictures} pictures of each kind are drawn")
    for name, recipe in RECIPES.items():
        stand_in = pretrain(name, pictures, flags.seed, recipe)
        path = flags.out / f"{name}.safetensors"
        save_stand_in(stand_in, path)
        score = "R^2" if name == "bodies" else "accuracy"
        print(f"{path}: held-out {score} {stand_in.held_out_score:.3f} after {recipe.epochs} epochs")
    return 0


if __name__ == "__main__":
    run(main)
