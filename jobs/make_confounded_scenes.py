"""Write the embedded world in a dataset's own on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccim_ray.command_line import WorldFlags, parse, run


@dataclass(frozen=True, kw_only=True)
class Flags(WorldFlags):
    out: Path
    """Folder to write: pictures, annotations, splits, and the truth that no real dataset knows."""
    images: int = 1000
    """Pictures over all splits."""
    seed: int = 0
    """Seed of the world: the same flags give the same bytes."""
    defects: float = 0.0
    """Share of the pictures, 0 to 0.2, that get each kind of defect known from real downloads, to test what reads
    the files; planted_defects.json in --out lists them."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.pipeline.worlds import make_world

    return make_world(flags.world_settings(flags.images, flags.seed), flags.out, flags.defects)


if __name__ == "__main__":
    run(main)
