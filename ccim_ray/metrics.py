"""What a trial is scored by: the paper's metrics (section 4.1) and the rows that keep them honest.

Scores may be logits or probabilities: every metric here depends on their order within a category (average
precision) or within a subject (accuracy, recall) alone. Values are shares in [0, 1], not percent.

Shape suffixes: S subjects, K categories.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class GroupMetric:
    """The metric within one group, and how many subjects the group has."""

    value: float
    subjects: int


def evaluate(scores_SK: Array, targets_SK: Array, categories: Sequence[str], multi_label: bool) -> dict[str, float]:
    """The metrics of one split.

    Args:
        scores_SK: logits or probabilities, finite.
        targets_SK: 0 or 1; exactly one 1 a row where ``multi_label`` is False.
        categories: K names.
        multi_label: whether the metric is mAP or accuracy.

    Returns:
        multi-label: "mAP", "mAP_11_point" and "AP/<category>"; single-label: "accuracy" and
        "recall/<category>". A category without a positive has no AP and no recall: its key is left out, and
        the means are over the others.

    Raises ValueError where arrays do not fit together, scores are not finite, or no subject has a category.
    """
    _check(scores_SK, targets_SK, categories, multi_label)
    if not multi_label:
        recalls = _recall_per_category(scores_SK, targets_SK)
        named = {f"recall/{categories[k]}": value for k, value in recalls.items()}
        return {"accuracy": _accuracy(scores_SK, targets_SK), **named}
    defined = _defined(targets_SK)
    precisions = [average_precision(scores_SK[:, k], targets_SK[:, k]) for k in defined]
    eleven_point = [eleven_point_average_precision(scores_SK[:, k], targets_SK[:, k]) for k in defined]
    return {
        "mAP": float(np.mean(precisions)),
        "mAP_11_point": float(np.mean(eleven_point)),
        **{f"AP/{categories[k]}": value for k, value in zip(defined, precisions, strict=True)},
    }


def chance(targets_SK: Array, categories: Sequence[str], multi_label: bool) -> dict[str, float]:
    """What a model that has not looked at the picture gets on these subjects.

    Multi-label: "AP/<category>" is the category's prevalence, which is the average precision of random scores
    in the limit of many subjects, and "mAP" their mean over categories that have a positive. Single-label:
    "accuracy" is the share of the most frequent category and "accuracy_uniform" is 1/K.
    """
    _check(targets_SK, targets_SK, categories, multi_label)
    prevalence_K = targets_SK.mean(0, dtype=np.float64)
    if not multi_label:
        return {"accuracy": float(prevalence_K.max()), "accuracy_uniform": 1 / len(categories)}
    defined = _defined(targets_SK)
    return {
        "mAP": float(prevalence_K[defined].mean()),
        **{f"AP/{categories[k]}": float(prevalence_K[k]) for k in defined},
    }


def by_group(
    scores_SK: Array,
    targets_SK: Array,
    groups_S: Sequence[Hashable],
    categories: Sequence[str],
    multi_label: bool,
) -> dict[Hashable, GroupMetric]:
    """mAP or accuracy within each group of subjects, such as a scene, or a (scene, category) pair.

    Subjects whose group is None belong to none. A group without any positive has no mAP and is left out. The
    mAP of a group moves with its prevalences, so compare it across models, not across groups.
    """
    _check(scores_SK, targets_SK, categories, multi_label)
    if len(groups_S) != len(scores_SK):
        raise ValueError(f"{len(groups_S)} groups for {len(scores_SK)} subjects")
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups_S):
        if group is not None:
            members.setdefault(group, []).append(row)
    found: dict[Hashable, GroupMetric] = {}
    for group, rows in members.items():
        scores, targets = scores_SK[rows], targets_SK[rows]
        if not multi_label:
            found[group] = GroupMetric(_accuracy(scores, targets), len(rows))
        elif defined := _defined(targets):
            precisions = [average_precision(scores[:, k], targets[:, k]) for k in defined]
            found[group] = GroupMetric(float(np.mean(precisions)), len(rows))
    return found


def worst_group(groups: Mapping[Hashable, GroupMetric], min_subjects: int) -> tuple[Hashable, GroupMetric] | None:
    """The group with the lowest value among those of at least ``min_subjects``; None where there is none."""
    large = [(group, metric) for group, metric in groups.items() if metric.subjects >= min_subjects]
    return min(large, key=lambda item: item[1].value, default=None)


def average_precision(scores_S: Array, targets_S: Array) -> float:
    """scikit-learn's average precision, sum of precision x recall step over thresholds; needs a positive."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(targets_S, scores_S))


def eleven_point_average_precision(scores_S: Array, targets_S: Array) -> float:
    """Mean over recalls 0, 0.1, ... 1 of the best precision at that recall or more; needs a positive.

    The definition of EMOTIC's first evaluation code, and of PASCAL VOC 2007; here subjects with equal scores
    count together, as in average_precision.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(targets_S, scores_S)
    positives = int(targets_S.sum())
    # Whole numbers: 3 of 10 positives reach recall 0.3, which floating point denies.
    hits = np.rint(recall * positives).astype(np.int64)
    # The last point, precision 1 at recall 0, is scikit-learn's convention for plots and no threshold's.
    precision, hits = precision[:-1], hits[:-1]
    return float(np.mean([precision[10 * hits >= tenths * positives].max() for tenths in range(11)]))


def _accuracy(scores_SK: Array, targets_SK: Array) -> float:
    return float(np.mean(scores_SK.argmax(1) == targets_SK.argmax(1)))


def _recall_per_category(scores_SK: Array, targets_SK: Array) -> dict[int, float]:
    from sklearn.metrics import recall_score

    present = _defined(targets_SK)
    recalls = recall_score(targets_SK.argmax(1), scores_SK.argmax(1), labels=present, average=None)
    return {k: float(value) for k, value in zip(present, recalls, strict=True)}


def _defined(targets_SK: Array) -> list[int]:
    """Columns of the categories that have a positive."""
    return [int(k) for k in np.flatnonzero(targets_SK.any(0))]


def _check(scores_SK: Array, targets_SK: Array, categories: Sequence[str], multi_label: bool) -> None:
    if scores_SK.ndim != 2 or scores_SK.shape != targets_SK.shape:
        raise ValueError(f"scores and targets must be (S, K) alike, found {scores_SK.shape}, {targets_SK.shape}")
    if targets_SK.shape[1] != len(categories):
        raise ValueError(f"targets have {targets_SK.shape[1]} columns for {len(categories)} categories")
    bad = int(np.count_nonzero(~np.isfinite(scores_SK)))
    if bad:
        raise ValueError(f"{bad} of {scores_SK.size} scores are NaN or infinite; the training has diverged")
    if not np.isin(targets_SK, (0, 1)).all():
        raise ValueError("targets must be 0 or 1")
    if not targets_SK.any():
        raise ValueError(f"none of {len(targets_SK)} subjects has a category, so there is nothing to measure")
    if not multi_label and (targets_SK.sum(1) != 1).any():
        several = int(np.count_nonzero(targets_SK.sum(1) != 1))
        raise ValueError(f"{several} of {len(targets_SK)} subjects do not have exactly one category")
