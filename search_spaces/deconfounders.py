"""Does anything take the context's confounding out of a baseline, where CCIM does not?

Command:   python jobs/compare_deconfounders.py
Hardware:  two CPU cores, no GPU
"""

from __future__ import annotations

from ccim_ray.deconfounders.registry import CARDS
from ccim_ray.space import Space


def deconfounders_space() -> Space:
    """The baseline as it is, CCIM's control, and every deconfounder of ours, over one dictionary."""
    return Space(
        name="deconfounders",
        question="Does anything take the context's confounding out of the baseline?",
        changes={card.title: {"deconfounder": card.name} for card in CARDS.values()},
        reference=CARDS["none"].title,
        axis={},
        axis_label="",
        per_category=True,
    )
