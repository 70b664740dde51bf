"""Does CCIM help each of the four baselines? Tables 1 to 3 of the paper, per category too, with the control."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ccim_ray.command_line import parse, run
from ccim_ray.training_flags import BaselinesFlags


@dataclass(frozen=True, kw_only=True)
class Flags(BaselinesFlags):
    all_controls: bool = False
    """Train every control of CCIM beside it, five settings more; without, only that of its capacity (W_h alone)."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.baselines import baselines_space

    return sweep(flags, baselines_space(flags.all_controls), sys.argv)


if __name__ == "__main__":
    run(main)
