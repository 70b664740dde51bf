"""How does the size N of the confounder dictionary change the result? Fig. 6 of the paper."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ccim_ray.command_line import Integers, TrainingFlags, parse, run, some


@dataclass(frozen=True, kw_only=True)
class Flags(TrainingFlags):
    sizes: Integers = None
    """Dictionary sizes N to try, beside the model without CCIM."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.dict_size import dict_size_space

    return sweep(flags, dict_size_space(some("--sizes", flags.sizes, flags.chosen_preset().sizes)), sys.argv)


if __name__ == "__main__":
    run(main)
