"""Extract what trials read: masked context features for the dictionary, and the views of the baseline."""

from __future__ import annotations

import sys

from ccim_ray.command_line import TrainingFlags, parse, run


def main() -> int:
    flags = parse(TrainingFlags, __doc__ or "")
    from ccim_ray.sweeping import prepare_only
    from search_spaces.single import single_space

    return prepare_only(flags, single_space(flags.experiment()), sys.argv, dictionaries=False)


if __name__ == "__main__":
    run(main)
