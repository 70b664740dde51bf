"""Is my download right? Counts per split and category, every defect, copies across splits; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ccim_ray.command_line import CommonFlags, parse, run


@dataclass(frozen=True, kw_only=True)
class Flags(CommonFlags):
    group_disjoint_split: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write a split in which no picture has a near duplicate in another split, for --split-file of other jobs;
    caer_s and emotic only."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.dataset_check import check

    return check(flags, flags.group_disjoint_split)


if __name__ == "__main__":
    run(main)
