"""A question put as data: settings of one experiment, and the one they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ccim_ray.experiment import Experiment
from ccim_ray.reports.published import published_of


@dataclass(frozen=True)
class Space:
    """What a sweep varies.

    Attributes:
        name: names the MLflow experiment ``<dataset>/<name>``.
        question: in one line, as shown in tables.
        changes: for each setting, what it changes of the base experiment (nested keys with two underscores).
        reference: the setting that deltas are taken from.
        axis: the number that each setting stands for on the figure's axis; settings without one are lines.
        axis_label: what the axis shows.
        per_category: whether the report holds every category's own metric too.
        compares_models: whether ``--plan`` shows how large each model is, which takes the seconds to build it.
        preview: whether it screens many heads: they are trained as one grid, MLflow gets their numbers but no models,
            and only the best are printed, with how well they rank what training end to end gives.
    """

    name: str
    question: str
    changes: Mapping[str, Mapping[str, Any]]
    reference: str
    axis: Mapping[str, int]
    axis_label: str
    per_category: bool = False
    compares_models: bool = False
    preview: bool = False

    def settings(self, base: Experiment) -> dict[str, Experiment]:
        """The experiment of every setting. Raises RequestError where a change is not valid."""
        return {name: base.with_changes(**change) for name, change in self.changes.items()}

    def published(self, base: Experiment, metric: str) -> dict[tuple[str, str], float]:
        """The paper's numbers for (setting, metric of the test split); settings that it does not have are left out."""
        return {
            (name, f"test/{key or metric}"): score
            for name, experiment in self.settings(base).items()
            for key, score in published_of(experiment).items()
        }
