"""How far a dataset's emotions depend on the scene: Fig. 2 of the CCIM paper, with a null to read it against.

The paper counts, for an emotion, how often each scene is among its positives (images with the emotion) and its
negatives (images without), and takes each scene's normalised conditional entropy. A scene of entropy 0 has only
positives or only negatives. Its formula is not printed; what it leaves open is an option here.

A rare scene has entropy 0 by chance: one that is seen once always has. So every number comes with what it is when
the scenes are dealt out to the images at random, which leaves the number of images of each scene and emotion as it
is and takes away every tie between the two.

Shape suffixes: S persons, I images, Z scenes, R samples of the negatives, Q scenes in a chart,
P permutations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ccim_ray.errors import RequestError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

Weighting = Literal["balanced", "raw"]
Ranking = Literal["union", "positives", "all"]
Negatives = Literal["sampled", "all"]
Unit = Literal["image", "person"]

NULL_INTERVAL = (0.025, 0.975)
LEAST_PERMUTATIONS = 40
"""Fewer have no value beyond these quantiles."""

_STREAM = {"samples": 0, "null": 1}


@dataclass(frozen=True, kw_only=True)
class BiasOptions:
    """Every choice that the paper's text leaves open.

    Attributes:
        weighting: "balanced": a scene's shares of the positives and of the negatives are compared, so that it does
            not matter that an emotion is rare; "raw": its counts are.
        ranking: whose most frequent scenes are measured: of the "positives", of "all" images, or of the "union" of
            the positives with the negatives that are used. The last two differ where negatives are sampled.
        negatives: "sampled": as many as there are positives, drawn ``samples`` times without replacement; "all".
        samples: draws of the negatives; where "all" are used there is one.
        scenes: how many scenes are measured at most; of equally frequent ones the first by number.
        unit: what is counted. An "image" is positive where any of its persons has the emotion.
        min_counts: a scene takes part from this many positives and negatives on; one result for each.
        permutations: of the null.
        seed: of samples and permutations.

    Raises RequestError for a number that is too small.
    """

    weighting: Weighting = "balanced"
    ranking: Ranking = "union"
    negatives: Negatives = "sampled"
    samples: int = 5
    scenes: int = 200
    unit: Unit = "image"
    min_counts: tuple[int, ...] = (1, 5)
    permutations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--top-scenes", self.scenes, 1),
            ("--samples", self.samples, 1),
            ("--min-count", min(self.min_counts), 1),
            ("--permutations", self.permutations, LEAST_PERMUTATIONS),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise RequestError(f"{flag} {value}: give {least} or more")


@dataclass(frozen=True)
class Estimate:
    """A statistic, as measured and as it would be if scenes and emotion were independent.

    Attributes:
        value: mean over the samples of the negatives; None where no scene takes part.
        sd: standard deviation over these samples (ddof=1); None for a single one.
        null_mean, null_low, null_high: mean and 95 % interval over the permutations.
    """

    value: float | None
    sd: float | None
    null_mean: float | None
    null_low: float | None
    null_high: float | None

    @property
    def excess(self) -> float | None:
        """What is left of the value without what chance alone brings."""
        return None if self.value is None or self.null_mean is None else self.value - self.null_mean


@dataclass(frozen=True)
class SceneStatistics:
    """The entropies H of the scenes with at least ``min_count`` positives and negatives.

    Attributes:
        scenes: how many these are, a mean over the samples of the negatives.
        zero_fraction: share of them with H = 0, the paper's number.
        mean_entropy: mean of H over them.
        weighted_entropy: mean of H weighted by how frequent each scene is, see ``scene_weights``.
    """

    min_count: int
    scenes: float
    zero_fraction: Estimate
    mean_entropy: Estimate
    weighted_entropy: Estimate


@dataclass(frozen=True)
class EntropyProfile:
    """The bars of Fig. 2: scenes that are measured in the first sample, by ascending entropy.

    Attributes:
        scene_Q: numbers of the scenes.
        positives_Q, negatives_Q: their counts.
        entropy_Q: their H.
        null_mean_Q, null_low_Q, null_high_Q: the bar of the same rank under the null, where the number of scenes
            differs by the same quantile: mean and 95 % interval.
    """

    scene_Q: Counts
    positives_Q: Counts
    negatives_Q: Counts
    entropy_Q: Floats
    null_mean_Q: Floats
    null_low_Q: Floats
    null_high_Q: Floats


@dataclass(frozen=True)
class EmotionBias:
    """What the scene tells about one emotion.

    Attributes:
        positives, negatives: units with and without the emotion.
        negatives_used: how many of these a sample has.
        information: share of the emotion's entropy that the scene removes, see ``scene_information``; over all
            scenes, not only those that are measured one by one.
        by_min_count: one for each of the options' min_counts.
        profile: of the first min_count.
    """

    positives: int
    negatives: int
    negatives_used: int
    information: Estimate
    by_min_count: tuple[SceneStatistics, ...]
    profile: EntropyProfile


def conditional_entropy(positives_Z: Counts, negatives_Z: Counts, weighting: Weighting) -> Floats:
    """H of each scene in bits, in [0, 1]; NaN where a scene has no count. Works along the last axis.

    ``H = -q log2 q - (1 - q) log2 (1 - q)`` with q the scene's share of positives: ``(n+/N+) / (n+/N+ + n-/N-)``
    balanced, ``n+ / (n+ + n-)`` raw. N+ and N- are the sums over all scenes, so all have to be given. H is 0 where,
    and only where, n+ or n- is 0. Two outcomes: division by log2 2, the normalisation, changes nothing.

    Raises ValueError where a set is empty.
    """
    positive_Z, negative_Z = _shares(positives_Z, negatives_Z, weighting)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_both_Z = positive_Z + negative_Z
        terms_2Z = np.stack([positive_Z, negative_Z]) / of_both_Z
        bits_2Z = np.where(terms_2Z == 0, 0, -terms_2Z * np.log2(terms_2Z))
    entropy_Z: Floats = np.minimum(bits_2Z.sum(0), 1.0)  # rounding could leave a little more
    return entropy_Z


def scene_weights(positives_Z: Counts, negatives_Z: Counts, weighting: Weighting) -> Floats:
    """How frequent each scene is: half its shares of positives and negatives balanced, its share of all raw.

    Sums to 1 along the last axis. Raises ValueError where a set is empty.
    """
    positive_Z, negative_Z = _shares(positives_Z, negatives_Z, weighting)
    of_both_Z = positive_Z + negative_Z
    weight_Z: Floats = of_both_Z / of_both_Z.sum(-1, keepdims=True)
    return weight_Z


def scene_information(positives_Z: Counts, negatives_Z: Counts, weighting: Weighting) -> Floats:
    """Mutual information of scene and emotion as a share of the emotion's entropy, in [0, 1].

    ``I / H(Y) = 1 - sum_z w_z H_z / H(Y)`` with the weights of ``scene_weights``. Balanced, both outcomes are equally
    likely, H(Y) is 1, and this is the Jensen-Shannon divergence of the scenes of positives and negatives in bits.
    Works along the last axis. Raises ValueError where a set is empty.
    """
    weight_Z = scene_weights(positives_Z, negatives_Z, weighting)
    entropy_Z = conditional_entropy(positives_Z, negatives_Z, weighting)
    left = np.where(weight_Z > 0, weight_Z * entropy_Z, 0).sum(-1)
    before: Floats | float = 1.0
    if weighting == "raw":
        of_positives, of_negatives = (np.asarray(counts_Z).sum(-1) for counts_Z in (positives_Z, negatives_Z))
        before = conditional_entropy(of_positives[..., None], of_negatives[..., None], "raw")[..., 0]
    information: Floats = np.clip(1 - left / before, 0, 1)
    return information


def measure(scene_S: Counts, holds_S: Booleans, image_S: Counts, options: BiasOptions, stream: int = 0) -> EmotionBias:
    """Measure one emotion.

    Args:
        scene_S: number of the scene of each person's image, from 0.
        holds_S: whether the person has the emotion.
        image_S: number of the person's image; persons of one image share its scene.
        stream: tells the random numbers of this emotion from those of others, such as its column.

    Raises:
        ValueError: no unit has the emotion, or all have it.
    """
    images = _images(scene_S, holds_S, image_S, options.unit)
    counts = _count(images, options, np.random.default_rng([options.seed, _STREAM["samples"], stream]))
    measured = _statistics(counts, options)
    null = _permutation_null(images, options, np.random.default_rng([options.seed, _STREAM["null"], stream]))
    estimates = {name: _estimate(values_R, null.statistics[name]) for name, values_R in measured.items()}
    positives, units = int(images.positives_I.sum()), int(images.size_I.sum())
    return EmotionBias(
        positives=positives,
        negatives=units - positives,
        negatives_used=int(counts.negatives_RZ[0].sum()),
        information=estimates["information"],
        by_min_count=tuple(
            SceneStatistics(
                least,
                float(measured[f"scenes/{least}"].mean()),
                *(estimates[f"{name}/{least}"] for name in ("zero_fraction", "mean_entropy", "weighted_entropy")),
            )
            for least in options.min_counts
        ),
        profile=_profile(counts, options, null.entropies),
    )


def mean_excess_information(found: Iterable[EmotionBias]) -> float:
    """One number for a dataset's bias: ``information`` less its null's mean, averaged over emotions.

    0 in expectation where scenes tell nothing, however small the dataset.
    """
    return float(np.mean([bias.information.excess for bias in found]))


@dataclass(frozen=True)
class _Images:
    """Of each image the number of its scene, the units that have the emotion, and all its units."""

    scene_I: Counts
    positives_I: Counts
    size_I: Counts


@dataclass(frozen=True)
class _SceneCounts:
    """Of each scene the positives and the sampled negatives, for every sample, and all units."""

    positives_RZ: Counts
    negatives_RZ: Counts
    all_Z: Counts


@dataclass(frozen=True)
class _Null:
    """Of each permutation the statistics, by name, and the entropies of the first sample, ascending."""

    statistics: dict[str, Floats]
    entropies: tuple[Floats, ...]


def _shares(positives_Z: Counts, negatives_Z: Counts, weighting: Weighting) -> tuple[Floats, Floats]:
    positives_Z, negatives_Z = np.asarray(positives_Z), np.asarray(negatives_Z)
    of_positives, of_negatives = positives_Z.sum(-1, keepdims=True), negatives_Z.sum(-1, keepdims=True)
    if not (of_positives.all() and of_negatives.all()):
        raise ValueError("an emotion is measured between positives and negatives: one of the sets is empty")
    if weighting == "balanced":
        return positives_Z / of_positives, negatives_Z / of_negatives
    return positives_Z.astype(np.float64), negatives_Z.astype(np.float64)


def _images(scene_S: Counts, holds_S: Booleans, image_S: Counts, unit: Unit) -> _Images:
    _, first_I, image_of_S = np.unique(image_S, return_index=True, return_inverse=True)
    positives_I = np.bincount(image_of_S, holds_S).astype(np.int64)
    size_I = np.bincount(image_of_S)
    if unit == "image":
        positives_I, size_I = np.minimum(positives_I, 1), np.ones_like(size_I)
    return _Images(scene_S[first_I], positives_I, size_I)


def _count(images: _Images, options: BiasOptions, generator: np.random.Generator) -> _SceneCounts:
    positives_Z, all_Z = (
        np.bincount(images.scene_I, units_I).astype(np.int64) for units_I in (images.positives_I, images.size_I)
    )
    negatives_Z = all_Z - positives_Z
    wanted = int(positives_Z.sum())
    if options.negatives == "all" or negatives_Z.sum() <= wanted:
        return _SceneCounts(positives_Z[None], negatives_Z[None], all_Z)
    # These are the counts of a sample without replacement: nothing else about the sampled units matters.
    negatives_RZ = generator.multivariate_hypergeometric(negatives_Z, wanted, options.samples)
    return _SceneCounts(np.broadcast_to(positives_Z, negatives_RZ.shape), negatives_RZ, all_Z)


def _chosen(counts: _SceneCounts, options: BiasOptions) -> Booleans:
    """The most frequent scenes of each sample (R, Z), of those that are there."""
    used_RZ = counts.positives_RZ + counts.negatives_RZ
    rank_by = {"positives": counts.positives_RZ, "all": counts.all_Z, "union": used_RZ}[options.ranking]
    rank_by_RZ = np.broadcast_to(rank_by, used_RZ.shape)
    first_RQ = np.argsort(-rank_by_RZ, axis=1, kind="stable")[:, : options.scenes]
    chosen_RZ = np.zeros(used_RZ.shape, bool)
    np.put_along_axis(chosen_RZ, first_RQ, True, axis=1)
    return chosen_RZ & (rank_by_RZ > 0) & (used_RZ > 0)


def _statistics(counts: _SceneCounts, options: BiasOptions) -> dict[str, Floats]:
    """By name the value of each sample, NaN where no scene takes part; scenes/M and the like for min count M."""
    pair = counts.positives_RZ, counts.negatives_RZ
    entropy_RZ = conditional_entropy(*pair, options.weighting)
    weight_RZ = scene_weights(*pair, options.weighting)
    chosen_RZ = _chosen(counts, options)
    found = {"information": scene_information(*pair, options.weighting)}
    for least in options.min_counts:
        part_RZ = chosen_RZ & (counts.positives_RZ + counts.negatives_RZ >= least)
        found[f"scenes/{least}"] = part_RZ.sum(1).astype(np.float64)
        found[f"zero_fraction/{least}"] = _mean_over(entropy_RZ == 0, part_RZ)
        found[f"mean_entropy/{least}"] = _mean_over(entropy_RZ, part_RZ)
        found[f"weighted_entropy/{least}"] = _mean_over(entropy_RZ, part_RZ * weight_RZ)
    return found


def _mean_over(values_RZ: Floats | Booleans, weight_RZ: Floats | Booleans) -> Floats:
    """Weighted mean along the last axis; a value of weight 0 may be NaN."""
    total_R = weight_RZ.sum(1)
    sum_R = np.where(weight_RZ > 0, values_RZ * weight_RZ, 0).sum(1)
    mean_R: Floats = np.divide(sum_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)
    return mean_R


def _permutation_null(images: _Images, options: BiasOptions, generator: np.random.Generator) -> _Null:
    """Measure with the scenes permuted over the images, so that persons of one image stay together.

    Every permutation is measured as the data are, with samples of its own. It takes images for exchangeable. Frames
    of one video are not: they share scene and emotion, and for them this null is too narrow.
    """
    runs, entropies = [], []
    for _ in range(options.permutations):
        counts = _count(replace(images, scene_I=generator.permutation(images.scene_I)), options, generator)
        runs.append({name: float(values_R.mean()) for name, values_R in _statistics(counts, options).items()})
        entropies.append(_first_sample(counts, options)[3])
    return _Null({name: np.array([run[name] for run in runs]) for name in runs[0]}, tuple(entropies))


def _first_sample(counts: _SceneCounts, options: BiasOptions) -> tuple[Counts, Counts, Counts, Floats]:
    """Scenes of the first sample by ascending entropy: number, positives, negatives, entropy."""
    positives_Z, negatives_Z = counts.positives_RZ[0], counts.negatives_RZ[0]
    part_Z = _chosen(counts, options)[0] & (positives_Z + negatives_Z >= options.min_counts[0])
    scene_Q = np.flatnonzero(part_Z)
    entropy_Q = conditional_entropy(positives_Z, negatives_Z, options.weighting)[scene_Q]
    order_Q = np.argsort(entropy_Q, kind="stable")
    scene_Q = scene_Q[order_Q]
    return scene_Q, positives_Z[scene_Q], negatives_Z[scene_Q], entropy_Q[order_Q]


def _profile(counts: _SceneCounts, options: BiasOptions, null_entropies: tuple[Floats, ...]) -> EntropyProfile:
    scene_Q, positives_Q, negatives_Q, entropy_Q = _first_sample(counts, options)
    share_Q = (np.arange(len(scene_Q)) + 0.5) / max(1, len(scene_Q))
    drawn = [entropies[(share_Q * len(entropies)).astype(np.int64)] for entropies in null_entropies if len(entropies)]
    null_PQ = np.stack(drawn) if drawn else np.full((1, len(scene_Q)), np.nan)
    low_Q, high_Q = np.quantile(null_PQ, NULL_INTERVAL, axis=0)
    return EntropyProfile(scene_Q, positives_Q, negatives_Q, entropy_Q, null_PQ.mean(0), low_Q, high_Q)


def _estimate(values_R: Floats, null_P: Floats) -> Estimate:
    """A sample or permutation in which no scene takes part says nothing, and is left out."""
    values_R, null_P = values_R[np.isfinite(values_R)], null_P[np.isfinite(null_P)]
    low, high = np.quantile(null_P, NULL_INTERVAL).tolist() if len(null_P) else (None, None)
    return Estimate(
        value=float(values_R.mean()) if len(values_R) else None,
        sd=float(values_R.std(ddof=1)) if len(values_R) > 1 else None,
        null_mean=float(null_P.mean()) if len(null_P) else None,
        null_low=low,
        null_high=high,
    )
