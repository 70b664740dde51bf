"""Train one baseline, with or without CCIM: one trial for every seed."""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run
from ccim_ray.training_flags import CcimFlags


def main() -> int:
    flags = parse(CcimFlags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.single import single_space

    return sweep(flags, single_space(flags.experiment()), sys.argv)


if __name__ == "__main__":
    run(main)
