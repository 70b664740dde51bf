"""From the trials on disk to the rows of a results table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ccim_ray.baselines.registry import baseline_card, baseline_label
from ccim_ray.datasets.confounded_scenes.counterfactuals import load_counterfactuals
from ccim_ray.datasets.confounded_scenes.world import load_truth
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.subject import agents_of, scenes_of
from ccim_ray.errors import RequestError
from ccim_ray.metrics import SCENE_SWAP_METRICS, chance, evaluate, evaluate_agents, evaluate_groups, evaluate_scene_swap
from ccim_ray.plan import PlannedTrial
from ccim_ray.reports.leave_one_out import Gain, leave_one_out
from ccim_ray.reports.tables import ResultRow, Results, build_rows, constant_row, with_corrected_p
from ccim_ray.storage import only_process, read_json, write_json
from ccim_ray.trial_folder import read_result

SIGNATURE = re.compile(r"[\w-]{1,255}")
"""Of a trial: 16 hexadecimal digits, and in no case a path to somewhere else."""

ORACLES = {"Bayes oracle P(Y|X)": "oracle_observational", "Bayes oracle P(Y|do(X))": "oracle_do"}
"""Setting -> its column of the embedded world's truth."""


@dataclass(frozen=True)
class LedgerEntry:
    """A baseline's setting in a sweep: its place on the figure's axis, and its trials' folders by seed."""

    baseline: str
    setting: str
    axis: int | None
    folders: dict[int, Path]


def update_ledger(
    path: Path, trials: Sequence[PlannedTrial], axis: Mapping[str, int], folder_of: Callable[[str], Path]
) -> list[LedgerEntry]:
    """Add trials to the sweep's ledger; returns all that were ever asked for, so that tables hold them all.

    Settings come in the order of the axis, those without a place on it first.
    """
    with only_process(path.with_name(".ledger.lock")):  # another run may extend the same sweep
        known = _read_ledger(path) if path.exists() else {}
        for planned in trials:
            new = {"baseline": planned.baseline, "setting": planned.setting, "place": len(known), "signatures": {}}
            of_setting = new | {"axis": axis.get(planned.setting)}
            entry = known.setdefault(f"{planned.baseline}: {planned.setting}", of_setting)
            entry["signatures"][str(planned.seed)] = planned.trial.signature
        write_json(path, known)
    entries = [
        LedgerEntry(
            entry["baseline"],
            entry["setting"],
            entry["axis"],
            {int(seed): folder_of(signature) for seed, signature in sorted(entry["signatures"].items())},
        )
        for entry in sorted(known.values(), key=lambda entry: entry["place"])
    ]
    return sorted(entries, key=lambda entry: -1 if entry.axis is None else entry.axis)


def _read_ledger(path: Path) -> dict[str, Any]:
    known = read_json(path)
    try:
        for entry in known.values():
            kinds = {"baseline": str, "setting": str, "place": int, "axis": int | None, "signatures": dict}
            wrong = [name for name, kind in kinds.items() if not isinstance(entry[name], kind)]
            if wrong:
                raise TypeError(f"{wrong[0]} is {entry[wrong[0]]!r}")
            for seed, signature in entry["signatures"].items():
                number = int(seed)
                if not SIGNATURE.fullmatch(signature):
                    raise ValueError(f"seed {number} has the signature {signature!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} is no ledger of a sweep ({error!r}); delete it and run again") from error
    return dict(known)


def collect(entries: Sequence[LedgerEntry]) -> dict[str, dict[str, dict[int, dict[str, float]]]]:
    """Metrics of the trials that are done, by baseline, setting and seed; a setting without any is there, and empty."""
    results: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for entry in entries:
        ended = {seed: read_result(folder) for seed, folder in entry.folders.items()}
        results.setdefault(entry.baseline, {})[entry.setting] = {
            seed: result.metrics for seed, result in ended.items() if result and result.status == "done"
        }
    return results


def reported_metrics(dataset: Dataset) -> tuple[str, ...]:
    """The paper's metric, then for several labels 11-point mAP, where people are followed the mAP of agents, where
    scenes are known the metric in the worst of them, and where subjects are seen in two scenes what that changes."""
    of_labels = ("mAP_11_point",) if dataset.multi_label else ()
    of_agents = ("mAP_agent",) if dataset.multi_label and agents_of(dataset.subjects) is not None else ()
    of_scenes = ("worst_group",) if scenes_of(dataset.subjects) is not None else ()
    swapped = any(subject.counterfactual_of is not None for subject in dataset.subjects)
    return (dataset.metric, *of_labels, *of_agents, *of_scenes, *(SCENE_SWAP_METRICS if swapped else ()))


def notes_of(dataset: Dataset, baselines: Iterable[str]) -> tuple[str, ...]:
    """What has to stand wherever these results stand; mostly nothing."""
    cards = [baseline_card(name) for name in baselines]
    of_dataset = (f"{dataset.name}: {dataset.note}",) if dataset.note else ()
    return (*of_dataset, *(f"{card.name} is approximate: {card.approximate}" for card in cards if card.approximate))


def reference_rows(dataset: Dataset, baseline: str) -> list[ResultRow]:
    """Constants that no training changes: chance, and on the embedded world the Bayes oracles.

    The oracles know the causal model and see face, posture, other people and objects without error:
    P(Y|X) also knows how emotions and scenes go together in biased data, P(Y|do(X)) is without that knowledge.
    ``baseline`` names the one that the table is about, and is empty where there are several.
    """
    rows = []
    label = baseline_label(baseline) if baseline else ""
    agents_S, scenes_S = agents_of(dataset.subjects), scenes_of(dataset.subjects)
    for split in dataset.test_splits:
        of_split = np.array([subject.split == split for subject in dataset.subjects])
        targets_SK = dataset.targets[of_split]
        agents = None if agents_S is None else agents_S[of_split]
        found = {"chance": chance(targets_SK, dataset.categories, dataset.multi_label, agents)}
        ids = [subject.subject_id for subject, here in zip(dataset.subjects, of_split, strict=True) if here]
        for setting, column in ORACLES.items() if dataset.name == "confounded_scenes" else ():
            scores_SK = _column_of(load_truth(dataset.root), column, ids)
            found[setting] = evaluate(scores_SK, targets_SK, dataset.categories, dataset.multi_label)
            if agents is not None:
                found[setting] |= evaluate_agents(scores_SK, targets_SK, agents, dataset.categories)
            if scenes_S is not None:
                scenes = scenes_S[of_split].tolist()
                found[setting] |= evaluate_groups(
                    scores_SK, targets_SK, scenes, dataset.categories, dataset.multi_label
                )
            found[setting] |= _scene_swap_of_oracle(dataset, column, dict(zip(ids, scores_SK, strict=True)))
        rows += [
            constant_row(dataset.name, label, setting, f"{split}/{metric}", values[metric])
            for setting, values in found.items()
            for metric in reported_metrics(dataset)
            if metric in values
        ]
    return rows


def measured_rows(
    dataset: Dataset,
    results: Mapping[str, Results],
    reference: str,
    published: Mapping[str, Mapping[tuple[str, str], float]],
    metrics: Sequence[str] | None = None,
) -> list[ResultRow]:
    """Rows of every baseline's settings on every test split, those of the paper's metric first.

    Args:
        results: by baseline, setting, seed and metric.
        reference: the setting that deltas are taken from, within each baseline.
        published: by baseline, the paper's value for (setting, metric).
        metrics: without their split; None takes those that are reported.
    """
    found = {
        name for settings in results.values() for seeds in settings.values() for seed in seeds.values() for name in seed
    }
    named = [f"{split}/{name}" for name in metrics or reported_metrics(dataset) for split in dataset.test_splits]
    # No context group may be large enough to have a worst one, and not every split is seen in two scenes.
    optional = ("worst_group", *SCENE_SWAP_METRICS)
    named = [name for name in named if name.rpartition("/")[2] not in optional or name in found]
    of_label = {baseline_label(baseline): of_baseline for baseline, of_baseline in results.items()}
    published_of_label = {baseline_label(baseline): scores for baseline, scores in published.items()}
    return rows_of_baselines(dataset.name, of_label, named, reference, published_of_label)


def rows_of_baselines(
    dataset: str,
    results: Mapping[str, Results],
    metrics: Sequence[str],
    reference: str,
    published: Mapping[str, Mapping[tuple[str, str], float]],
) -> list[ResultRow]:
    """Rows of every baseline's settings, p corrected over all of them.

    Args:
        results, published: as in ``measured_rows``, by the label that the rows show.
        metrics: with their split.
    """
    rows = [
        row
        for label, of_baseline in results.items()
        for row in build_rows(dataset, label, of_baseline, metrics, reference, published.get(label, {}))
    ]
    return with_corrected_p(rows)


def category_rows(
    dataset: Dataset,
    results: Mapping[str, Results],
    reference: str,
    published: Mapping[str, Mapping[tuple[str, str], float]],
) -> list[ResultRow]:
    """Rows as ``measured_rows``, of every category: its average precision, or its recall where there is one label."""
    kind = "AP" if dataset.multi_label else "recall"
    names = [f"{kind}/{category}" for category in dataset.categories]
    return measured_rows(dataset, results, reference, published, names)


def gains_without_one(
    dataset: Dataset,
    results: Mapping[str, Results],
    reference: str,
    published: Mapping[str, Mapping[tuple[str, str], float]],
) -> list[Gain]:
    """Every setting's gain in mAP without each single category; nothing where subjects have one label."""
    if not dataset.multi_label:
        return []
    return [
        gain
        for baseline, of_baseline in results.items()
        for split in dataset.test_splits
        for gain in leave_one_out(
            dataset.name,
            baseline_label(baseline),
            of_baseline,
            split,
            dataset.categories,
            reference,
            published.get(baseline, {}),
        )
    ]


def _scene_swap_of_oracle(dataset: Dataset, column: str, factual: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What another scene changes in an oracle's answers about these subjects; empty where none is seen in two."""
    own = {s.subject_id: s.counterfactual_of for s in dataset.subjects if s.counterfactual_of in factual}
    if not own:
        return {}
    swapped_PK = _column_of(load_counterfactuals(dataset.root), column, list(own))
    factual_PK = np.stack([factual[subject_id] for subject_id in own.values() if subject_id is not None])
    return evaluate_scene_swap(factual_PK, swapped_PK, dataset.multi_label)


def _column_of(table: pa.Table, column: str, subject_ids: Sequence[str]) -> np.ndarray:
    row_of = {subject_id: row for row, subject_id in enumerate(table["subject_id"].to_pylist())}
    values = np.array(table[column].to_pylist())
    return np.asarray(values[[row_of[subject_id] for subject_id in subject_ids]], np.float64)
