"""How far do a dataset's emotions depend on the scene? Fig. 2 of the paper, beside what chance alone gives.

Command:   python jobs/measure_context_bias.py
Hardware:  two CPU cores, no GPU
Minutes:   one and a half, nearly all to render and to start Ray
Expected:  H = 0 for 7.8 % of the scenes for Anger, where chance gives 0.6 to 2.8 %. Beyond chance, the scene tells
           28.5 % of an emotion's entropy.
"""

from __future__ import annotations

from ccim_ray.command_line import parse, run
from ccim_ray.measuring import BiasFlags, measure_bias


def main() -> int:
    return measure_bias(parse(BiasFlags, (__doc__ or "").partition("\n")[0]))


if __name__ == "__main__":
    run(main)
