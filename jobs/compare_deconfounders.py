"""Does anything take the context's confounding out? A baseline alone, with CCIM, and with what else is known."""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run
from ccim_ray.training_flags import DeconfoundersFlags


def main() -> int:
    flags = parse(DeconfoundersFlags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.deconfounders import deconfounders_space

    return sweep(flags, deconfounders_space(), sys.argv)


if __name__ == "__main__":
    run(main)
