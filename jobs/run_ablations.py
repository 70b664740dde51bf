"""Which part of CCIM does the work? Table 4 of the paper, and the controls that it does not have."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from ccim_ray.command_line import parse, run
from ccim_ray.training_flags import BaselinesFlags


@dataclass(frozen=True, kw_only=True)
class Flags(BaselinesFlags):
    baselines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ("emot_net", "emoticon")
    """The models to take CCIM apart in; the paper does it in these two."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.ablations import ablations_space

    return sweep(flags, ablations_space(flags.experiments()[0].backbone), sys.argv)


if __name__ == "__main__":
    run(main)
