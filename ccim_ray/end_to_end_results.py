"""Trials end to end of the settings that a preview trains as heads, wherever in the storage they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccim_ray.baselines.registry import inputs_of
from ccim_ray.data_source import DataSource
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.plan import weight_digests
from ccim_ray.reports.tables import Results
from ccim_ray.storage import read_json
from ccim_ray.trial_folder import read_result

_OF_THE_MODEL = (
    "dataset",
    "world",
    "subject_limit",
    "baseline",
    "baseline_options",
    "deconfounder",
    "ccim",
    "dictionary",
    "backbone",
    "masking",
)
"""What a setting is, however it is trained."""


@dataclass(frozen=True)
class EndToEnd:
    """What trials end to end that were trained alike gave: epochs, batch size and the like differ between two of these.

    Attributes:
        results: setting -> seed -> metric -> value.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    results: Results

    @property
    def title(self) -> str:
        """How they were trained, in words."""
        return f"{self.epochs} epochs, batch size {self.batch_size}, learning rate {self.learning_rate:g}"


def end_to_end_results(
    settings: Mapping[str, Experiment], trials: Path, source: DataSource, weights_dir: Path | None
) -> list[EndToEnd]:
    """Finished trials end to end of these settings on the same data, those trained alike together, most settings first.

    What cannot be compared is left out: other data, weights or code, or a trial whose weight files are gone.

    Raises RequestError where a trial's files are damaged.
    """
    setting_of = {_model_key(experiment): name for name, experiment in settings.items()}
    groups: dict[str, tuple[Experiment, dict[str, dict[int, dict[str, float]]]]] = {}
    for path in sorted(trials.glob("*/experiment.json")):
        values = read_json(path)
        result = read_result(path.parent) if values.get("trainable") == "all" else None
        if result is None or result.status != "done":
            continue
        try:
            experiment = Experiment.parse(values)
            same_data = _signature(experiment, source, weights_dir) == path.parent.name
        except RequestError:  # of another version, or started from weights that are not here any more
            continue
        setting = setting_of.get(_model_key(experiment))
        if setting is None or not same_data:
            continue
        _, results = groups.setdefault(_training_key(experiment), (experiment, {}))
        results.setdefault(setting, {})[experiment.seed] = result.metrics
    found = [EndToEnd(each.epochs, each.batch_size, each.learning_rate, results) for each, results in groups.values()]
    return sorted(found, key=lambda group: -len(group.results))


def _signature(experiment: Experiment, source: DataSource, weights_dir: Path | None) -> str:
    """Where the trial would lie, trained now on this data."""
    views = {item.view for item in inputs_of(experiment.baseline, experiment.baseline_options)}
    return experiment.signature(source.fingerprint_of(views), weight_digests(experiment, weights_dir))


def _model_key(experiment: Experiment) -> str:
    return _key({name: value for name, value in experiment.essence().items() if name in _OF_THE_MODEL})


def _training_key(experiment: Experiment) -> str:
    of_training = experiment.with_changes(seed=0).essence()
    return _key({name: value for name, value in of_training.items() if name not in _OF_THE_MODEL})


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
