"""One experiment, as its flags say: EMOT-Net with CCIM unless told otherwise.

Command:   python jobs/train.py
Hardware:  two CPU cores, no GPU
Minutes:   see the README's table
Expected:  on the embedded world about what the model without CCIM (--deconfounder none) reaches.
"""

from __future__ import annotations

from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.experiment import Experiment
from ccim_ray.space import Space


def single_space(base: Experiment) -> Space:
    """The base experiment alone."""
    name = _name(base)
    like = f" ({base.world.like})" if base.world else ""
    return Space(
        name="train",
        question=f"How does {base.baseline} do on {base.dataset}{like}: {name}, trainable {base.trainable}?",
        changes={name: {}},
        reference=name,
        axis={},
        axis_label="",
        compares_models=True,
    )


def _name(base: Experiment) -> str:
    card = deconfounder_card(base.deconfounder)
    name = f"{card.title} N={base.dictionary.size}" if card.uses_dictionary else card.title
    if base.deconfounder != "ccim":
        return name
    if base.ccim.attention != "dot_product" and base.ccim.use_lambda:
        name += f" {base.ccim.attention}"
    if not base.ccim.use_lambda:
        name += " w/o lambda"
    return name if base.ccim.use_prior else f"{name} w/o P(z)"
