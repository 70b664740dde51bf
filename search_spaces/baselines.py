"""Does CCIM help each of the four baselines, beyond the layers that it brings? (Tables 1 to 3 of the paper)

Command:   python jobs/compare_baselines.py
Hardware:  two CPU cores, no GPU
"""

from __future__ import annotations

from ccim_ray.space import Space


def baselines_space() -> Space:
    """The baseline as it is; CCIM's control, which has its W_h and no intervention; and with CCIM."""
    return Space(
        name="baselines",
        question="Does CCIM help each baseline, beyond the layers that it brings?",
        changes={
            "vanilla": {"deconfounder": "none"},
            "W_h alone": {"deconfounder": "projection"},
            "CCIM": {"deconfounder": "ccim"},
        },
        reference="vanilla",
        axis={},
        axis_label="",
        per_category=True,
        compares_models=True,
    )
