"""How well scene and emotion can be read from features: Fig. 7 of the paper in numbers.

The paper looks at a projection to the plane, which shows what one wants to see. Here everything is computed in the
space of the features. Shape suffixes: S subjects, K classes or categories, D feature, J neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccim_ray.statistics import summarise

Array = npt.NDArray[np.floating]

FOLDS = 5
NEIGHBOURS = 10
PERMUTATIONS = 200
PERPLEXITY = 30.0


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """What a linear classifier reads from features that it was not fitted on.

    Attributes:
        value: accuracy, or with several labels the mean average precision over categories; mean over the folds.
        sd: standard deviation over the folds, ddof=1.
        chance: without features: the share of the most frequent class, or the mean prevalence of the categories.
        classes: classes that have FOLDS subjects or more; subjects of the others are left out.
        subjects: that were probed.
    """

    value: float
    sd: float
    chance: float
    classes: int
    subjects: int


@dataclass(frozen=True, slots=True)
class Purity:
    """Likeness in label of a subject and those nearest to it.

    Attributes:
        value: mean over subjects and their neighbours of labels in common among labels of either (Jaccard); of one
            label each, the share of neighbours that have the same.
        ci_low, ci_high: 95 % t interval of the mean over subjects.
        chance, chance_low, chance_high: mean and 95 % interval where labels are dealt to the subjects at random.
    """

    value: float
    ci_low: float
    ci_high: float
    chance: float
    chance_low: float
    chance_high: float


def linear_probe(
    features_SD: Array, targets_SK: Array, groups_S: npt.NDArray[np.str_], multi_label: bool, seed: int = 0
) -> ProbeScore | None:
    """Logistic regression on standardised features, cross-validated in FOLDS parts (scikit-learn, C = 1).

    Args:
        targets_SK: 0 or 1; exactly one 1 a row where not ``multi_label``.
        groups_S: subjects of one group, such as a video, stay in one part: they would tell on each other.
        seed: of the parts.

    Returns None where there is nothing to learn: fewer than two classes of FOLDS subjects, or with several labels no
    category that FOLDS subjects have and FOLDS have not, or fewer than FOLDS groups.
    """
    if multi_label:
        enough_K = (targets_SK.sum(0) >= FOLDS) & ((1 - targets_SK).sum(0) >= FOLDS)
        kept_S = np.ones(len(targets_SK), bool)
    else:
        enough_K = targets_SK.sum(0) >= FOLDS
        kept_S = targets_SK[:, enough_K].sum(1) > 0
    classes = int(enough_K.sum())
    groups_S = groups_S[kept_S]
    if classes < (1 if multi_label else 2) or len(np.unique(groups_S)) < FOLDS:
        return None
    features_SD, targets_SK = features_SD[kept_S], targets_SK[kept_S][:, enough_K]
    scores = [
        _average_precision(features_SD, targets_SK, train, test)
        if multi_label
        else _accuracy(features_SD, targets_SK.argmax(1), train, test)
        for train, test in _folds(targets_SK, groups_S, multi_label, seed)
    ]
    measured = [score for score in scores if score is not None]
    if not measured:
        return None
    summary = summarise(measured)
    share_K = targets_SK.mean(0, dtype=np.float64)
    chance = float(share_K.mean() if multi_label else share_K.max())
    return ProbeScore(summary.mean, summary.sd or 0.0, chance, classes, len(targets_SK))


def neighbour_purity(
    features_SD: Array, targets_SK: Array, groups_S: npt.NDArray[np.str_], neighbours: int = NEIGHBOURS, seed: int = 0
) -> Purity:
    """Likeness of each subject to its nearest, by Euclidean distance, that are not of its own group.

    Args:
        targets_SK: 0 or 1, a 1 at least in each row.
        groups_S: such as images or videos, whose subjects are alike in everything.
        seed: of the permutations.

    Raises ValueError where there are fewer than two groups.
    """
    nearest_SJ = _nearest(features_SD, groups_S, neighbours)
    targets_SK = targets_SK.astype(np.float32)
    labels_S = targets_SK.sum(1)

    def likeness_of(order_S: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        own_SK, count_S = targets_SK[order_S], labels_S[order_S]
        common_SJ = np.stack([(own_SK * own_SK[of_rank]).sum(1) for of_rank in nearest_SJ.T], axis=1)
        likeness_SJ = common_SJ / (count_S[:, None] + count_S[nearest_SJ] - common_SJ)
        return np.asarray(likeness_SJ.mean(1), np.float64)

    found = summarise(likeness_of(np.arange(len(targets_SK))))
    generator = np.random.default_rng(seed)
    dealt = [likeness_of(generator.permutation(len(targets_SK))).mean() for _ in range(PERMUTATIONS)]
    low, high = np.quantile(dealt, (0.025, 0.975))
    return Purity(
        value=found.mean,
        ci_low=found.mean if found.ci_low is None else found.ci_low,
        ci_high=found.mean if found.ci_high is None else found.ci_high,
        chance=float(np.mean(dealt)),
        chance_low=float(low),
        chance_high=float(high),
    )


def plane_map(features_SD: Array, seed: int = 0) -> npt.NDArray[np.float32]:
    """t-SNE of the features to the plane (S, 2), by scikit-learn: to be looked at, not measured.

    Raises ValueError where there are fewer than four subjects.
    """
    from sklearn.manifold import TSNE

    if len(features_SD) < 4:
        raise ValueError(f"{len(features_SD)} subjects are too few for a map")
    perplexity = min(PERPLEXITY, (len(features_SD) - 1) / 3)
    # Features that are equal up to rounding leave the start from principal components without a scale.
    start = "pca" if np.ptp(features_SD, axis=0).max() > 1e-6 else "random"
    map_S2 = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(features_SD.astype(np.float32))
    return np.asarray(map_S2, np.float32)


def _folds(
    targets_SK: Array, groups_S: npt.NDArray[np.str_], multi_label: bool, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    empty_S1 = np.zeros((len(targets_SK), 1))
    if multi_label:
        return list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(empty_S1, groups=groups_S))
    class_S = targets_SK.argmax(1)
    if len(np.unique(groups_S)) == len(groups_S):
        return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(empty_S1, class_S))
    return list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(empty_S1, class_S, groups_S))


def _accuracy(
    features_SD: Array, class_S: npt.NDArray[np.int64], train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> float | None:
    """None where the part holds no subject, or the others a single class."""
    if len(test) == 0 or len(np.unique(class_S[train])) < 2:
        return None
    return float(_classifier().fit(features_SD[train], class_S[train]).score(features_SD[test], class_S[test]))


def _average_precision(
    features_SD: Array, targets_SK: Array, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> float | None:
    """Mean over categories with both kinds of subjects in both parts; None where no category has them."""
    from sklearn.metrics import average_precision_score

    found = []
    for target_S in targets_SK.T:
        if all(0 < target_S[part].sum() < len(part) for part in (train, test)):
            probe = _classifier().fit(features_SD[train], target_S[train])
            found.append(average_precision_score(target_S[test], probe.decision_function(features_SD[test])))
    return float(np.mean(found)) if found else None


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def _nearest(features_SD: Array, groups_S: npt.NDArray[np.str_], neighbours: int) -> npt.NDArray[np.int64]:
    """Rows (S, J) of the nearest subjects of other groups."""
    _, group_S, size_G = np.unique(groups_S, return_inverse=True, return_counts=True)
    if len(size_G) < 2:
        raise ValueError("subjects of one group only: nobody has a neighbour of another")
    neighbours = min(neighbours, len(groups_S) - int(size_G.max()))
    centred_SD = features_SD.astype(np.float64) - features_SD.mean(0, dtype=np.float64)
    squared_S = np.square(centred_SD).sum(1)
    distance_SS = squared_S[:, None] + squared_S[None] - 2 * (centred_SD @ centred_SD.T)
    distance_SS[group_S[:, None] == group_S[None]] = np.inf
    return np.asarray(np.argpartition(distance_SS, neighbours - 1, axis=1)[:, :neighbours], np.int64)
