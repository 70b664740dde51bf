"""What a sweep's runs in MLflow say of the sweep, so that a report can be made from MLflow alone.

The parent run holds the question, the setting that deltas are taken from, every trial that was ever asked for, and
the constants of its data; a trial's run holds what the paper printed for its experiment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccim_ray.experiment import Experiment
    from ccim_ray.reports.tables import ResultRow
    from ccim_ray.results import LedgerEntry
    from ccim_ray.space import Space

CHARACTERS_PER_TAG = 4000
"""Longer values go into several tags: MLflow takes 8000 characters, and some databases fewer."""

PUBLISHED = "ccim.published"


@dataclass(frozen=True, slots=True)
class AskedSetting:
    """A baseline's setting that the sweep was asked for: its place on the figure's axis, and its seeds."""

    baseline: str
    label: str
    setting: str
    axis: int | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SweepDescription:
    """What the tags of a parent run say; empty where an older version logged it.

    ``constants`` are by setting and metric.
    """

    question: str
    reference: str
    axis_label: str
    asked: tuple[AskedSetting, ...]
    constants: dict[str, dict[str, float]]


def description_tags(space: Space, entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """Tags that say what was asked."""
    from ccim_ray.baselines.registry import baseline_label

    asked = [
        [entry.baseline, baseline_label(entry.baseline), entry.setting, entry.axis, sorted(entry.folders)]
        for entry in entries
    ]
    tags = {"ccim.question": space.question, "ccim.reference": space.reference, "ccim.axis_label": space.axis_label}
    return {name: value for name, value in tags.items() if value} | _json_tags("ccim.asked", asked)


def constant_tags(constants: Iterable[ResultRow]) -> dict[str, str]:
    """Tags with what no training changes, such as chance."""
    values: dict[str, dict[str, float]] = {}
    for row in constants:
        if row.mean is not None:
            values.setdefault(row.setting, {})[row.metric] = row.mean
    return _json_tags("ccim.constants", values)


def published_tag(experiment: Experiment) -> dict[str, str]:
    """The paper's numbers for this experiment, as fractions; no tag where it has none."""
    from ccim_ray.reports.published import published_of

    scores = published_of(experiment)
    return {PUBLISHED: json.dumps(scores)} if scores else {}


def mean_metrics(rows: Sequence[ResultRow]) -> dict[str, float]:
    """``mean/<metric>/<setting>``: the mean over seeds, so that MLflow's charts show settings, not single trials."""
    several = len({row.baseline for row in rows if row.baseline}) > 1
    return {
        f"mean/{row.metric}/{f'{row.baseline} ' if several and row.baseline else ''}{row.setting}": row.mean
        for row in rows
        if row.mean is not None
    }


def read_description(tags: Mapping[str, str]) -> SweepDescription:
    """The description in the tags of a parent run. Raises ValueError where they are not what was logged."""
    try:
        asked = tuple(
            AskedSetting(str(baseline), str(label), str(setting), axis, tuple(map(int, seeds)))
            for baseline, label, setting, axis, seeds in _read_json(tags, "ccim.asked", [])
        )
        constants = {
            str(setting): {str(metric): float(value) for metric, value in values.items()}
            for setting, values in _read_json(tags, "ccim.constants", {}).items()
        }
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a tag does not have the form in which it is logged: {error}") from error
    question, reference, axis_label = (tags.get(f"ccim.{name}", "") for name in ("question", "reference", "axis_label"))
    return SweepDescription(question, reference, axis_label, asked, constants)


def read_published(tags: Mapping[str, str]) -> dict[str, float]:
    """The paper's numbers in the tags of a trial, as ``published_of``. Raises ValueError where they are none."""
    try:
        return {str(name): float(value) for name, value in json.loads(tags.get(PUBLISHED, "{}")).items()}
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the tag {PUBLISHED} does not have the form in which it is logged: {error}") from error


def _json_tags(name: str, value: Any) -> dict[str, str]:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    starts = range(0, len(text), CHARACTERS_PER_TAG)
    return {f"{name}.{part}": text[start : start + CHARACTERS_PER_TAG] for part, start in enumerate(starts)}


def _read_json(tags: Mapping[str, str], name: str, otherwise: Any) -> Any:
    """A longer value leaves no part of an earlier one behind it, for both lists only grow."""
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
    parts = {int(match[1]): value for key, value in tags.items() if (match := pattern.fullmatch(key))}
    return json.loads("".join(parts[place] for place in sorted(parts))) if parts else otherwise
