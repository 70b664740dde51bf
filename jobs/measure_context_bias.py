"""How far do a dataset's emotions depend on the scene? Fig. 2 of the paper, beside what chance alone gives."""

from __future__ import annotations

from ccim_ray.command_line import parse, run
from ccim_ray.measuring import BiasFlags, measure_bias


def main() -> int:
    return measure_bias(parse(BiasFlags, __doc__ or ""))


if __name__ == "__main__":
    run(main)
