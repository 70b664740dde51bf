"""Does anything take the context's confounding out of a baseline, where CCIM does not?

Command:   python jobs/compare_deconfounders.py
Hardware:  two CPU cores, no GPU
Minutes:   three, with other work on the same two cores
Expected:  test_do/accuracy 0.465 for EMOT-Net as it is, 0.464 with CCIM, 0.518 by the back-door adjustment, 0.537 by
           inverse-propensity weights, 0.509 by logit adjustment, 0.504 by GroupDRO, 0.490 by CLEF; the Bayes oracle
           P(Y|do(X)) has 0.748. With three seeds few of these differences are beyond noise; with five, see
           docs/findings.md.
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
