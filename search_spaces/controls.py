"""What stands beside CCIM to see whether it is the intervention that works. The paper has only two of these.

    W_h alone      CCIM's layers that read h, without g at all: equal capacity but for W_g and the attention.
    w/o lambda     is also the control "g held constant": E_z[g(z)] = sum_i P(z_i) z_i for every sample (Table 4).
    renormalised   lambda P divided by its sum; as printed, Eq. 5 gives about 1/N of a prototype.
    shuffled P(z)  the prior's values dealt to other prototypes.
    uniform P(z)   1/N: the other reading of "w/o P(z)", which drops the factor.
    random Z       normal like the features, dimension by dimension, with a uniform prior (Table 4).

Random Z and the shuffled prior are one draw, the same for every seed of training.
"""

from __future__ import annotations

from typing import Any

from ccim_ray.paper import ABLATIONS

MATCHED: dict[str, dict[str, Any]] = {"W_h alone": {"deconfounder": "projection"}}
"""CCIM's capacity without its intervention."""

OF_TABLE_4: dict[str, dict[str, Any]] = {
    "w/o lambda": ABLATIONS["without_lambda"],
    "random Z": ABLATIONS["random_dictionary"],
}
"""Rows of Table 4 that are controls too: changes of CCIM."""

BEYOND_THE_PAPER: dict[str, dict[str, Any]] = {
    "renormalised": {"ccim__context_weights": "renormalised"},
    "shuffled P(z)": {"dictionary__prior": "shuffled"},
    "uniform P(z)": {"dictionary__prior": "uniform"},
}
"""Changes of CCIM that the paper does not try."""


def of_ccim(changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """These changes as settings of their own, with CCIM."""
    return {name: {"deconfounder": "ccim", **change} for name, change in changes.items()}
