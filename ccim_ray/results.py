"""From the trials on disk to the rows of a results table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccim_ray.datasets.confounded_scenes.world import load_truth
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.metrics import chance, evaluate
from ccim_ray.plan import PlannedTrial
from ccim_ray.reports.tables import ResultRow, build_rows, constant_row
from ccim_ray.storage import read_json, write_json
from ccim_ray.trial_folder import read_result


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


def reference_rows(dataset: Dataset, baseline: str) -> list[ResultRow]:
    """Constants that no training changes: chance, and on the embedded world the Bayes oracles.

    The oracles know the causal model and see face, posture, other people and objects without error:
    P(Y|X) also knows how emotions and scenes go together in biased data, P(Y|do(X)) is without that knowledge.
    """
    rows = []
    for split in dataset.test_splits:
        of_split = np.array([subject.split == split for subject in dataset.subjects])
        targets_SK = dataset.targets[of_split]
        by_chance = chance(targets_SK, dataset.categories, dataset.multi_label)[dataset.metric]
        rows.append(constant_row(dataset.name, baseline, "chance", f"{split}/{dataset.metric}", by_chance))
        if dataset.name != "confounded_scenes":
            continue
        ids = [subject.subject_id for subject, here in zip(dataset.subjects, of_split, strict=True) if here]
        for setting, column in (
            ("Bayes oracle P(Y|X)", "oracle_observational"),
            ("Bayes oracle P(Y|do(X))", "oracle_do"),
        ):
            scores_SK = _truth_column(dataset.root, column, ids)
            value = evaluate(scores_SK, targets_SK, dataset.categories, dataset.multi_label)[dataset.metric]
            rows.append(constant_row(dataset.name, baseline, setting, f"{split}/{dataset.metric}", value))
    return rows


def measured_rows(
    dataset: Dataset,
    baseline: str,
    results: Mapping[str, Mapping[int, Mapping[str, float]]],
    reference: str,
    published: Mapping[tuple[str, str], float],
) -> list[ResultRow]:
    """Rows of every setting on every test split."""
    metrics = [f"{split}/{dataset.metric}" for split in dataset.test_splits]
    return build_rows(dataset.name, baseline, results, metrics, reference, published)


def _truth_column(root: Path, column: str, subject_ids: Sequence[str]) -> np.ndarray:
    table = load_truth(root)
    row_of = {subject_id: row for row, subject_id in enumerate(table["subject_id"].to_pylist())}
    values = np.array(table[column].to_pylist())
    return np.asarray(values[[row_of[subject_id] for subject_id in subject_ids]], np.float64)
