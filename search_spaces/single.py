"""One experiment, as its flags say: EMOT-Net with CCIM unless told otherwise.

Command:   python jobs/train.py
Hardware:  two CPU cores, no GPU
Minutes:   see the README's table
Expected:  on the embedded world about what the model without CCIM (--deconfounder none) reaches.
"""

from __future__ import annotations

from ccim_ray.experiment import Experiment
from ccim_ray.space import Space


def single_space(base: Experiment) -> Space:
    """The base experiment alone."""
    name = f"CCIM N={base.dictionary.size}" if base.deconfounder == "ccim" else "vanilla"
    return Space(
        name="train",
        question=f"How does {base.baseline} do ({name}, trainable {base.trainable})?",
        changes={name: {}},
        reference=name,
        axis={},
        axis_label="",
    )
