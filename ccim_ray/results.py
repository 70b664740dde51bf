"""From the trials on disk to the rows of a results table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccim_ray.datasets.confounded_scenes.world import load_truth
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.subject import agents_of
from ccim_ray.metrics import chance, evaluate, evaluate_agents
from ccim_ray.plan import PlannedTrial
from ccim_ray.reports.tables import ResultRow, build_rows, constant_row
from ccim_ray.storage import read_json, write_json
from ccim_ray.trial_folder import read_result

ORACLES = {"Bayes oracle P(Y|X)": "oracle_observational", "Bayes oracle P(Y|do(X))": "oracle_do"}
"""Setting -> its column of the embedded world's truth."""


@dataclass(frozen=True)
class LedgerEntry:
    """A setting that belongs to a sweep: its place on the figure's axis, and its trials' folders by seed."""

    setting: str
    axis: int | None
    folders: dict[int, Path]


def update_ledger(
    path: Path, trials: Sequence[PlannedTrial], axis: Mapping[str, int], trials_folder: Path
) -> list[LedgerEntry]:
    """Add trials to the sweep's ledger; returns all that were ever asked for, so that tables hold them all.

    Settings come in the order of the axis, those without a place on it first.
    """
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    for planned in trials:
        entry = known.setdefault(
            planned.setting, {"axis": axis.get(planned.setting), "place": len(known), "signatures": {}}
        )
        entry["signatures"][str(planned.seed)] = planned.trial.signature
    write_json(path, known)
    entries = [
        LedgerEntry(
            setting,
            entry["axis"],
            {int(seed): trials_folder / signature for seed, signature in sorted(entry["signatures"].items())},
        )
        for setting, entry in sorted(known.items(), key=lambda item: item[1]["place"])
    ]
    return sorted(entries, key=lambda entry: -1 if entry.axis is None else entry.axis)


def collect(entries: Sequence[LedgerEntry]) -> dict[str, dict[int, dict[str, float]]]:
    """Metrics of the trials that are done, by setting and seed; a setting without any is there, and empty."""
    results: dict[str, dict[int, dict[str, float]]] = {}
    for entry in entries:
        ended = {seed: read_result(folder) for seed, folder in entry.folders.items()}
        results[entry.setting] = {
            seed: result.metrics for seed, result in ended.items() if result and result.status == "done"
        }
    return results


def reported_metrics(dataset: Dataset) -> tuple[str, ...]:
    """The paper's metric, then for several labels 11-point mAP, and where people are followed the mAP of agents."""
    if not dataset.multi_label:
        return (dataset.metric,)
    return (dataset.metric, "mAP_11_point", *(("mAP_agent",) if agents_of(dataset.subjects) is not None else ()))


def notes_of(dataset: Dataset) -> tuple[str, ...]:
    """What has to stand wherever these results stand; mostly nothing."""
    return (f"{dataset.name}: {dataset.note}",) if dataset.note else ()


def reference_rows(dataset: Dataset, baseline: str) -> list[ResultRow]:
    """Constants that no training changes: chance, and on the embedded world the Bayes oracles.

    The oracles know the causal model and see face, posture, other people and objects without error:
    P(Y|X) also knows how emotions and scenes go together in biased data, P(Y|do(X)) is without that knowledge.
    """
    rows = []
    agents_S = agents_of(dataset.subjects)
    for split in dataset.test_splits:
        of_split = np.array([subject.split == split for subject in dataset.subjects])
        targets_SK = dataset.targets[of_split]
        agents = None if agents_S is None else agents_S[of_split]
        found = {"chance": chance(targets_SK, dataset.categories, dataset.multi_label, agents)}
        ids = [subject.subject_id for subject, here in zip(dataset.subjects, of_split, strict=True) if here]
        for setting, column in ORACLES.items() if dataset.name == "confounded_scenes" else ():
            scores_SK = _truth_column(dataset.root, column, ids)
            found[setting] = evaluate(scores_SK, targets_SK, dataset.categories, dataset.multi_label)
            if agents is not None:
                found[setting] |= evaluate_agents(scores_SK, targets_SK, agents, dataset.categories)
        rows += [
            constant_row(dataset.name, baseline, setting, f"{split}/{metric}", values[metric])
            for setting, values in found.items()
            for metric in reported_metrics(dataset)
        ]
    return rows


def measured_rows(
    dataset: Dataset,
    baseline: str,
    results: Mapping[str, Mapping[int, Mapping[str, float]]],
    reference: str,
    published: Mapping[tuple[str, str], float],
) -> list[ResultRow]:
    """Rows of every setting on every test split, those of the paper's metric first."""
    metrics = [f"{split}/{metric}" for metric in reported_metrics(dataset) for split in dataset.test_splits]
    return build_rows(dataset.name, baseline, results, metrics, reference, published)


def _truth_column(root: Path, column: str, subject_ids: Sequence[str]) -> np.ndarray:
    table = load_truth(root)
    row_of = {subject_id: row for row, subject_id in enumerate(table["subject_id"].to_pylist())}
    values = np.array(table[column].to_pylist())
    return np.asarray(values[[row_of[subject_id] for subject_id in subject_ids]], np.float64)
