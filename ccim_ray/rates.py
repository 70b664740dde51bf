"""Measured speeds of the stages, kept beside the results they came from, for ``--plan``."""

from __future__ import annotations

import math
from pathlib import Path

from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.storage import read_json, write_json

REFERENCE_MACHINE = "two CPU cores, no GPU"
REFERENCE_RATES: dict[str, float] = {
    "start_up": 1 / 15,
    "render": 390,
    "extract/thin_resnet/features": 1400,
    "cluster": 250,
    "train/emot_net/head": 33_000,
    "train/gcn_cnn/head": 1_100,
    "train/caer_net/head": 3_700,
    "train/emoticon/head": 6_500,
}
"""Units a second on the reference machine, where this storage has measured nothing itself: starts; pictures; views of
subjects; prototypes; subjects times epochs, over all trials at a time. Of `make sweep`; of GCN-CNN, CAER-Net and
EmotiCon in preset quick of `jobs/compare_baselines.py` with a test suite beside it, so rather too slow."""


def rate_of_training(experiment: Experiment) -> str:
    """Name of the speed at which trials like this one train, all at a time, in subjects times epochs a second."""
    return f"train/{experiment.baseline}/{experiment.trainable}"


def rate_of_step(experiment: Experiment, device: str) -> str:
    """Name of the speed of one process that trains such a trial on such a device, in subjects times epochs a second."""
    return f"step/{experiment.baseline}/{experiment.trainable}/{device}"


class Rates:
    """Units a second of each stage: what this storage measured last, else the reference machine's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own: dict[str, dict[str, float]] = {}
        try:
            for name, own in read_json(path).items() if path.exists() else ():
                units, seconds = float(own["units"]), float(own["seconds"])
                if not (0 < units < math.inf and 0 < seconds < math.inf):
                    raise ValueError(f"{name}: {units} in {seconds} s")
                self._own[name] = {"units": units, "seconds": seconds}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"{path} does not hold measured speeds ({error!r}); delete it and run again") from error

    def seconds(self, name: str, units: float) -> float | None:
        """Time that ``units`` should take; None where nobody has measured it."""
        own = self._own.get(name)
        rate = own["units"] / own["seconds"] if own else REFERENCE_RATES.get(name)
        return units / rate if rate else None

    def is_own(self, name: str) -> bool:
        """Whether the speed was measured on this storage's machines."""
        return name in self._own

    def record(self, name: str, units: float, seconds: float) -> None:
        """Keep a measured speed, unless a larger run was measured: in small ones, start-up hides it."""
        if seconds > 0 and units > self._own.get(name, {}).get("units", 0):
            self._own[name] = {"units": units, "seconds": seconds}
            write_json(self._path, self._own)
