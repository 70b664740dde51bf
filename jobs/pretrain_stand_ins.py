"""Train the embedded world's own Places365 and ImageNet, and write them where the package keeps them.

Run once per change of how the world is drawn; about six minutes on one core.

    python jobs/pretrain_stand_ins.py
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from ccim_ray.errors import RequestError
from ccim_ray.perception.stand_ins import RECIPES, draw_pictures, pretrain, save_stand_in
from ccim_ray.perception.weight_files import STAND_INS


@dataclass(frozen=True)
class Arguments:
    """Train the stand-ins scenes, objects and bodies on unconfounded pictures of the embedded world."""

    out: Path = STAND_INS
    """Folder for the three .safetensors files."""
    pictures: int = 10_000
    """Pictures of each kind; an eighth is held out."""
    seed: int = 365_000_001
    """Seed of pictures and training; far from the seeds that worlds are made with."""


def main(arguments: Arguments) -> None:
    pictures = draw_pictures(arguments.pictures, arguments.seed)
    print(f"{arguments.pictures} pictures of each kind are drawn")
    for name, recipe in RECIPES.items():
        stand_in = pretrain(name, pictures, arguments.seed, recipe)
        path = arguments.out / f"{name}.safetensors"
        save_stand_in(stand_in, path)
        score = "R^2" if name == "bodies" else "accuracy"
        print(f"{path}: held-out {score} {stand_in.held_out_score:.3f} after {recipe.epochs} epochs")


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments))
    except RequestError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
