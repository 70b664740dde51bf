"""Which hyper-parameters do best on the validation split? Optuna proposes, ASHA stops what falls behind."""

from __future__ import annotations

import sys

from ccim_ray.command_line import parse, run
from ccim_ray.search_flags import SearchFlags


def main() -> int:
    flags = parse(SearchFlags, __doc__ or "")
    from ccim_ray.searching import search
    from search_spaces.hyperparameters import hyperparameters_space

    return search(flags, hyperparameters_space(flags.experiment(), flags.chosen_sizes(), flags.fixed()), sys.argv)


if __name__ == "__main__":
    run(main)
