"""Which of about 100 heads is worth training end to end? All are trained on features extracted once, in minutes."""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run, some
from ccim_ray.training_flags import PreviewFlags


def main() -> int:
    flags = parse(PreviewFlags, __doc__ or "")
    from ccim_ray.sweeping import sweep
    from search_spaces.heads import heads_space

    return sweep(flags, heads_space(some("--sizes", flags.sizes, flags.chosen_preset().sizes)), sys.argv)


if __name__ == "__main__":
    run(main)
