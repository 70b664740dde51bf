"""How does the size N of the confounder dictionary change the result? (Fig. 6 of the paper)

Command:   python jobs/sweep_dict_size.py
Hardware:  two CPU cores, no GPU
Minutes:   two and a half
Expected:  test_do/accuracy 0.457 without CCIM; no size, nor the control W_h alone, differs from it beyond noise, where
           the Bayes oracle P(Y|do(X)) has 0.750.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccim_ray.space import Space


def dict_size_space(sizes: Sequence[int]) -> Space:
    """Vanilla; CCIM's control, which has its W_h and no intervention; CCIM with each dictionary size."""
    with_ccim = {f"CCIM N={size}": {"deconfounder": "ccim", "dictionary__size": size} for size in sizes}
    return Space(
        name="dict_size",
        question="Does the size N of the confounder dictionary matter?",
        changes={"vanilla": {"deconfounder": "none"}, "W_h alone": {"deconfounder": "projection"}, **with_ccim},
        reference="vanilla",
        axis={f"CCIM N={size}": size for size in sizes},
        axis_label="dictionary size N",
    )
