"""Which of about 100 heads is worth training end to end? Sizes N, attentions, lambda and P(z), with every seed.

Command:   python jobs/preview_heads.py
Hardware:  two CPU cores, no GPU
Minutes:   five, with much other work on the same two cores

Settings: the model without CCIM, CCIM's control, which has its W_h and no intervention, and CCIM with every size of
the dictionary, dot-product and additive attention or no lambda, each with and without P(z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ccim_ray.space import Space

_LAMBDAS: dict[str, dict[str, Any]] = {
    "dot product": {"ccim__attention": "dot_product", "ccim__use_lambda": True},
    "additive": {"ccim__attention": "additive", "ccim__use_lambda": True},
    "w/o lambda": {"ccim__use_lambda": False},
}

_PRIORS: dict[str, dict[str, Any]] = {"": {"ccim__use_prior": True}, " w/o P(z)": {"ccim__use_prior": False}}


def heads_space(sizes: Sequence[int]) -> Space:
    """The baseline, CCIM's control, and every combination of size, attention and prior."""
    with_ccim = {
        f"N={size} {attention}{prior}": {
            "deconfounder": "ccim",
            "dictionary__size": size,
            **_LAMBDAS[attention],
            **_PRIORS[prior],
        }
        for size in sizes
        for attention in _LAMBDAS
        for prior in _PRIORS
    }
    return Space(
        name="heads",
        question="Which head is worth training end to end?",
        changes={"vanilla": {"deconfounder": "none"}, "W_h alone": {"deconfounder": "projection"}, **with_ccim},
        reference="vanilla",
        axis={},
        axis_label="",
        preview=True,
    )
