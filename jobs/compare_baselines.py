"""Does CCIM help each of the four baselines? Tables 1 to 3 of the paper, per category too, with the control."""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run
from ccim_ray.training_flags import BaselinesFlags


def main() -> int:
    flags = parse(BaselinesFlags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.baselines import baselines_space

    return sweep(flags, baselines_space(), sys.argv)


if __name__ == "__main__":
    run(main)
