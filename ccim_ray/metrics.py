"""What a trial is scored by: the paper's metrics (section 4.1) and the rows that keep them honest.

Scores may be logits or probabilities: every metric here depends on their order within a category (average
precision) or within a subject (accuracy, recall) alone. Values are shares in [0, 1], not percent.

Shape suffixes: S subjects, A agents (each seen in several frames, a subject each), K categories, P subjects seen in
two scenes each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

SCENE_SWAP_METRICS = ("flip_rate", "scene_tv")
"""How far answers follow the scene alone, of subjects who are seen in two scenes."""

SECONDARY_METRICS = ("mAP_11_point", "mAP_agent", "worst_group", *SCENE_SWAP_METRICS)
"""What is told beside mAP or accuracy, where it can be: the other definition of AP, AP over agents, the context group
that fares worst, and what another scene changes."""

LOWER_IS_BETTER = SCENE_SWAP_METRICS
"""Metrics whose best value is the lowest: a model that looks at the subject alone has 0."""

MIN_GROUP_SUBJECTS = 20
"""Subjects that a context group needs to count as the worst: fewer say more of chance than of the context."""

CHANCE_RANKS = 1_000_000
"""Ranks drawn, in 200 to 20,000 random orders, for the chance of 11-point AP: its error stays near 0.001."""


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


def evaluate_agents(
    probabilities_SK: Array, targets_SK: Array, agents_S: npt.NDArray[np.str_], categories: Sequence[str]
) -> dict[str, float]:
    """Average precision over agents, as EmotiCon scores people who are followed through a video.

    An agent's score is the mean of its frames' probabilities; its labels are those that any of its frames has.

    Args:
        probabilities_SK: in [0, 1]; the mean of logits would be another score.
        targets_SK: 0 or 1.
        agents_S: agent of each row.
        categories: K names.

    Returns:
        "mAP_agent" and "AP_agent/<category>", without the categories that no agent has.

    Raises ValueError as ``evaluate`` does, and for values that are no probabilities.
    """
    _check(probabilities_SK, targets_SK, categories, multi_label=True)
    _check_probabilities(probabilities_SK)
    scores_AK, targets_AK = _over_agents(probabilities_SK, agents_S), _agent_targets(targets_SK, agents_S)
    precisions = {k: average_precision(scores_AK[:, k], targets_AK[:, k]) for k in _defined(targets_AK)}
    return {
        "mAP_agent": float(np.mean(list(precisions.values()))),
        **{f"AP_agent/{categories[k]}": value for k, value in precisions.items()},
    }


def chance(
    targets_SK: Array, categories: Sequence[str], multi_label: bool, agents_S: npt.NDArray[np.str_] | None = None
) -> dict[str, float]:
    """What a model that has not looked at the picture gets on these subjects.

    Multi-label: "AP/<category>" is the category's prevalence, which is the average precision of random scores
    in the limit of many subjects, and "mAP" their mean over categories that have a positive. "mAP_11_point" is
    simulated: its mean over random orders, drawn with seed 0. Agents are few, so "AP_agent/<category>" is the exact
    expectation over random orders, and "mAP_agent" the mean. Single-label: "accuracy" is the share of the most
    frequent category and "accuracy_uniform" is 1/K.
    """
    _check(targets_SK, targets_SK, categories, multi_label)
    prevalence_K = targets_SK.mean(0, dtype=np.float64)
    if not multi_label:
        return {"accuracy": float(prevalence_K.max()), "accuracy_uniform": 1 / len(categories)}
    defined = _defined(targets_SK)
    eleven_point = [_chance_of_eleven_points(len(targets_SK), int(targets_SK[:, k].sum())) for k in defined]
    found = {
        "mAP": float(prevalence_K[defined].mean()),
        "mAP_11_point": float(np.mean(eleven_point)),
        **{f"AP/{categories[k]}": float(prevalence_K[k]) for k in defined},
    }
    if agents_S is not None:
        targets_AK = _agent_targets(targets_SK, agents_S)
        of_agents = {k: _expected_average_precision(len(targets_AK), int(targets_AK[:, k].sum())) for k in defined}
        found["mAP_agent"] = float(np.mean(list(of_agents.values())))
        found |= {f"AP_agent/{categories[k]}": value for k, value in of_agents.items()}
    return found


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


def evaluate_groups(
    scores_SK: Array,
    targets_SK: Array,
    groups_S: Sequence[Hashable],
    categories: Sequence[str],
    multi_label: bool,
) -> dict[str, float]:
    """mAP or accuracy of the worst group with MIN_GROUP_SUBJECTS or more, as "worst_group"; empty where none has."""
    found = worst_group(by_group(scores_SK, targets_SK, groups_S, categories, multi_label), MIN_GROUP_SUBJECTS)
    return {"worst_group": found[1].value} if found else {}


def evaluate_scene_swap(probabilities_PK: Array, swapped_PK: Array, multi_label: bool) -> dict[str, float]:
    """What another scene changes in the answers about the same subjects, who are counterfactuals of each other.

    Args:
        probabilities_PK: in [0, 1], of the subjects in their own scenes; rows of a single-label model add to 1.
        swapped_PK: of the same subjects in other scenes.
        multi_label: whether a subject may have several categories.

    Returns:
        "flip_rate", the share of subjects whose most probable category changes, and "scene_tv", the mean total
        variation distance of the two answers: half the sum over categories of |p - p'|; for several labels, where each
        category is a distribution of its own, the mean over categories. Both are 0 for a model that does not see the
        scene, and lower is better. Empty where there is no subject.

    Raises ValueError where arrays do not fit together or hold values that are no probabilities.
    """
    if probabilities_PK.ndim != 2 or probabilities_PK.shape != swapped_PK.shape:
        raise ValueError(f"answers must be (P, K) alike, found {probabilities_PK.shape}, {swapped_PK.shape}")
    if len(probabilities_PK) == 0:
        return {}
    for answers_PK in (probabilities_PK, swapped_PK):
        _check_probabilities(answers_PK)
        if not multi_label and not np.allclose(answers_PK.sum(1), 1, atol=1e-4):
            raise ValueError("the probabilities of a subject with one category do not add to 1")
    distance_PK = np.abs(np.asarray(probabilities_PK, np.float64) - swapped_PK)
    distance_P = distance_PK.mean(1) if multi_label else distance_PK.sum(1) / 2
    flipped_P = probabilities_PK.argmax(1) != swapped_PK.argmax(1)
    return {"flip_rate": float(flipped_P.mean()), "scene_tv": float(distance_P.mean())}


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


def _expected_average_precision(subjects: int, positives: int) -> float:
    """Mean of the average precision over all orders of so many subjects; above the prevalence where they are few.

    A positive at rank r has, of the r - 1 subjects before it, the share (P - 1) / (S - 1) of positives.
    """
    share = (positives - 1) / (subjects - 1) if subjects > 1 else 0.0
    ranks_S = np.arange(1, subjects + 1)
    return float(np.mean((1 + (ranks_S - 1) * share) / ranks_S))


@lru_cache(maxsize=1024)
def _chance_of_eleven_points(subjects: int, positives: int) -> float:
    """Mean of the 11-point average precision over random orders, whose number CHANCE_RANKS sets."""
    generator = np.random.default_rng(0)
    hits_P = np.arange(1, positives + 1)
    # Of the hits from which a tenth of recall is reached, the first: ceil(tenths * P / 10), and at least one.
    first_of_recall = np.maximum(1, -(-np.arange(11) * positives // 10)) - 1
    values = []
    for _ in range(min(20_000, max(200, CHANCE_RANKS // subjects))):
        ranks_P = np.sort(generator.permutation(subjects)[:positives]) + 1
        best_P = np.maximum.accumulate((hits_P / ranks_P)[::-1])[::-1]
        values.append(best_P[first_of_recall].mean())
    return float(np.mean(values))


def _over_agents(values_SK: Array, agents_S: npt.NDArray[np.str_]) -> Array:
    """Means (A, K) over the rows of each agent."""
    _, agent_S, frames_A = np.unique(agents_S, return_inverse=True, return_counts=True)
    sums_AK = np.zeros((len(frames_A), values_SK.shape[1]))
    np.add.at(sums_AK, agent_S, values_SK)
    return np.asarray(sums_AK / frames_A[:, None])


def _agent_targets(targets_SK: Array, agents_S: npt.NDArray[np.str_]) -> Array:
    """Labels (A, K) that any frame of an agent has."""
    return np.asarray(_over_agents(targets_SK, agents_S) > 0, np.float32)


def _accuracy(scores_SK: Array, targets_SK: Array) -> float:
    return float(np.mean(scores_SK.argmax(1) == targets_SK.argmax(1)))


def _recall_per_category(scores_SK: Array, targets_SK: Array) -> dict[int, float]:
    target_S, num_categories = targets_SK.argmax(1), targets_SK.shape[1]
    subjects_K = np.bincount(target_S, minlength=num_categories)
    hits_K = np.bincount(target_S[scores_SK.argmax(1) == target_S], minlength=num_categories)
    return {k: float(hits_K[k] / subjects_K[k]) for k in _defined(targets_SK)}


def _defined(targets_SK: Array) -> list[int]:
    """Columns of the categories that have a positive."""
    return [int(k) for k in np.flatnonzero(targets_SK.any(0))]


def _check_probabilities(values: Array) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # which NaN is not either
        raise ValueError(f"values from {low:.3g} to {high:.3g} are no probabilities; apply the sigmoid to logits")


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
