"""Build confounder dictionaries: prototypes Z and prior P(z) for one or several sizes."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ccim_ray.command_line import Integers, TrainingFlags, parse, run, some


@dataclass(frozen=True, kw_only=True)
class Flags(TrainingFlags):
    sizes: Integers = None
    """Dictionary sizes N to build."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.sweeping import prepare_only
    from search_spaces.dict_size import dict_size_space

    space = dict_size_space(some("--sizes", flags.sizes, flags.chosen_preset().sizes))
    return prepare_only(flags, space, sys.argv, dictionaries=True)


if __name__ == "__main__":
    run(main)
