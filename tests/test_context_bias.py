"""The measurement of context bias: the formula, what its options change, and what its null and its trend must do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from ccim_ray.context_bias import (
    BiasOptions,
    conditional_entropy,
    mean_excess_information,
    measure,
    scene_information,
    scene_weights,
)
from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.errors import RequestError

QUICK = BiasOptions(permutations=60)
ALL = replace(QUICK, negatives="all")
COUNTS = arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 5000))


@st.composite
def two_sets(draw):
    """Counts of the same scenes among positives and negatives, neither set empty."""
    positives = draw(COUNTS)
    negatives = draw(arrays(np.int64, len(positives), elements=st.integers(0, 5000)))
    positives[draw(st.integers(0, len(positives) - 1))] += 1
    negatives[draw(st.integers(0, len(positives) - 1))] += 1
    return positives, negatives


def images(counts):
    """One image for each count: ``counts`` holds for each scene (positives, negatives)."""
    scene = np.concatenate([[z] * (plus + minus) for z, (plus, minus) in enumerate(counts)]).astype(int)
    holds = np.concatenate([[True] * plus + [False] * minus for plus, minus in counts]).astype(bool)
    return scene, holds, np.arange(len(scene))


def independent(seed, share=0.1, size=1500):
    generator = np.random.default_rng([seed, 5])
    frequency = 1 / np.arange(1, 61)
    scene = generator.choice(60, size, p=frequency / frequency.sum())
    return scene, generator.random(size) < share, np.arange(size)


@given(two_sets(), st.sampled_from(["balanced", "raw"]))
def test_entropy_is_scipys(sets, weighting):
    positives, negatives = sets
    found = conditional_entropy(positives, negatives, weighting)
    scale = (positives.sum(), negatives.sum()) if weighting == "balanced" else (1, 1)
    for h, plus, minus in zip(found, positives / scale[0], negatives / scale[1], strict=True):
        if plus + minus == 0:
            assert np.isnan(h)
        else:
            assert h == pytest.approx(entropy([plus, minus], base=2), abs=1e-12)


@given(two_sets(), st.sampled_from(["balanced", "raw"]))
def test_entropy_is_normalised_and_zero_only_where_a_set_lacks_the_scene(sets, weighting):
    positives, negatives = sets
    seen = positives + negatives > 0
    found = conditional_entropy(positives, negatives, weighting)[seen]
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found == 0, (positives[seen] == 0) | (negatives[seen] == 0))
    swapped = conditional_entropy(negatives, positives, weighting)[seen]
    np.testing.assert_array_equal(found, swapped)


@given(two_sets(), st.integers(2, 50))
def test_balanced_entropy_does_not_see_how_rare_the_emotion_is(sets, times):
    positives, negatives = sets
    balanced = conditional_entropy(positives, negatives, "balanced")
    np.testing.assert_allclose(conditional_entropy(positives, times * negatives, "balanced"), balanced, atol=1e-12)


@given(two_sets())
def test_information_is_the_jensen_shannon_divergence_and_the_mutual_information(sets):
    positives, negatives = sets
    divergence = jensenshannon(positives, negatives, base=2) ** 2
    assert scene_information(positives, negatives, "balanced") == pytest.approx(divergence, abs=1e-9)
    joint = np.stack([positives, negatives]) / (positives.sum() + negatives.sum())
    of_emotion = entropy(joint.sum(1), base=2)
    mutual = of_emotion + entropy(joint.sum(0), base=2) - entropy(joint.ravel(), base=2)
    assert scene_information(positives, negatives, "raw") == pytest.approx(mutual / of_emotion, abs=1e-7)
    for weighting in ("balanced", "raw"):
        assert scene_weights(positives, negatives, weighting).sum() == pytest.approx(1)


def test_an_empty_set_is_an_error():
    for holds in (False, True):
        with pytest.raises(ValueError, match="empty"):
            measure(np.array([0, 1]), np.array([holds, holds]), np.arange(2), QUICK)


def test_a_small_dataset_by_hand():
    # Shares of positives 4/8, 4/8, 0, 0, of negatives 0, 2/8, 5/8, 1/8.
    found = measure(*images([(4, 0), (4, 2), (0, 5), (0, 1)]), ALL)
    (any_count, five) = found.by_min_count
    h = entropy([2 / 3, 1 / 3], base=2)
    assert (found.positives, found.negatives, found.negatives_used) == (8, 8, 8)
    assert (any_count.min_count, any_count.scenes, any_count.zero_fraction.value) == (1, 4, 0.75)
    assert any_count.mean_entropy.value == pytest.approx(h / 4)
    assert any_count.weighted_entropy.value == pytest.approx(h * 3 / 8)
    assert found.information.value == pytest.approx(1 - h * 3 / 8)
    assert (five.min_count, five.scenes, five.zero_fraction.value) == (5, 2, 0.5)
    assert five.mean_entropy.value == pytest.approx(h / 2)
    assert any_count.zero_fraction.sd is None  # all negatives: there is one sample
    assert found.profile.scene_Q.tolist() == [0, 2, 3, 1]
    assert found.profile.entropy_Q.tolist() == pytest.approx([0, 0, 0, h])


def test_the_ranking_decides_which_scenes_are_measured():
    data = images([(50, 0), (40, 40), (1, 900), (0, 300)])
    chosen = {
        ranking: sorted(measure(*data, replace(ALL, ranking=ranking, scenes=2)).profile.scene_Q.tolist())
        for ranking in ("positives", "all", "union")
    }
    assert chosen == {"positives": [0, 1], "all": [2, 3], "union": [2, 3]}
    sampled = measure(*data, replace(QUICK, ranking="union", scenes=1)).profile
    assert sampled.negatives_Q.sum() < 91  # of the sample, not of all
    many = measure(*data, replace(ALL, ranking="positives", scenes=10)).profile
    assert 3 not in many.scene_Q  # it has no positive


def test_union_ranks_by_the_negatives_that_are_used():
    data = images([(90, 10), (8, 800), (2, 700)])  # a sample of 100 has about 53 of scene 1
    top = {
        ranking: measure(*data, replace(QUICK, ranking=ranking, scenes=1)).profile.scene_Q.tolist()
        for ranking in ("union", "all")
    }
    assert top == {"union": [0], "all": [1]}


def test_sampled_negatives_are_as_many_as_the_positives_and_differ():
    data = images([(20, 100), (10, 300), (0, 20), (2, 2)])
    sampled, every = measure(*data, QUICK), measure(*data, ALL)
    assert (sampled.negatives_used, every.negatives_used) == (32, 422)
    assert sampled.by_min_count[0].mean_entropy.sd > 0
    assert measure(*data, replace(QUICK, samples=1)).by_min_count[0].mean_entropy.sd is None
    few = measure(*images([(20, 3), (10, 3)]), QUICK)
    assert few.negatives_used == 6


def test_weighting_matters_where_the_sets_differ_in_size():
    data = images([(20, 100), (10, 300), (5, 20)])
    balanced, raw = (measure(*data, replace(ALL, weighting=weighting)) for weighting in ("balanced", "raw"))
    assert balanced.by_min_count[0].zero_fraction == raw.by_min_count[0].zero_fraction
    assert balanced.by_min_count[0].mean_entropy.value > raw.by_min_count[0].mean_entropy.value + 0.1


def test_an_image_is_positive_where_one_of_its_persons_is():
    scene = np.array([0, 0, 0, 1, 1, 1])
    holds = np.array([True, True, False, False, False, True])
    image = np.array([7, 7, 3, 5, 5, 9])
    as_images, as_persons = (measure(scene, holds, image, replace(ALL, unit=unit)) for unit in ("image", "person"))
    assert (as_images.positives, as_images.negatives) == (2, 2)
    assert (as_persons.positives, as_persons.negatives) == (3, 3)
    assert sorted(as_persons.profile.negatives_Q.tolist()) == [1, 2]


def test_the_same_seed_repeats_and_another_does_not():
    data = independent(3)
    first, again, other, stream = (
        measure(*data, options, stream)
        for options, stream in ((QUICK, 0), (QUICK, 0), (replace(QUICK, seed=1), 0), (QUICK, 1))
    )
    assert first.by_min_count == again.by_min_count
    assert first.by_min_count != other.by_min_count
    assert first.by_min_count != stream.by_min_count


@pytest.mark.parametrize(
    "options",
    [BiasOptions(permutations=100), BiasOptions(permutations=100, negatives="all", weighting="raw", ranking="all")],
    ids=["default", "raw, all"],
)
def test_where_scenes_tell_nothing_the_measurement_is_within_its_null(options):
    inside = {"zero_fraction": 0, "mean_entropy": 0, "information": 0}
    excess = []
    for seed in range(40):
        found = measure(*independent(seed), replace(options, seed=seed))
        excess.append(found.information.excess)
        for name in inside:
            estimate = getattr(found if name == "information" else found.by_min_count[0], name)
            inside[name] += estimate.null_low <= estimate.value <= estimate.null_high
    assert min(inside.values()) >= 33, inside  # 38 expected; 32 or fewer in one of 200 runs
    assert abs(np.mean(excess)) < 0.01


def test_persons_of_one_image_do_not_narrow_the_null():
    """Every image counted ten times over: no more is known, and no bias is found in what is independent."""
    inside = 0
    for seed in range(30):
        scene, holds, image = (np.repeat(column, 10) for column in independent(seed, share=0.3, size=300))
        found = measure(scene, holds, image, replace(QUICK, unit="person", negatives="all", seed=seed)).information
        inside += found.null_low <= found.value <= found.null_high
    assert inside >= 25


def test_rare_scenes_have_entropy_zero_by_chance():
    scene, holds, image = independent(0, share=0.01)
    zero = measure(scene, holds, image, QUICK).by_min_count[0].zero_fraction
    assert zero.value > 0.4
    assert zero.null_low <= zero.value <= zero.null_high


def test_no_scene_of_the_count_is_told_as_nothing():
    found = measure(*images([(1, 1), (1, 1)]), ALL)
    assert found.by_min_count[1].scenes == 0
    assert found.by_min_count[1].zero_fraction.value is None
    assert found.by_min_count[1].zero_fraction.excess is None
    assert len(measure(*images([(1, 1), (1, 1)]), replace(ALL, min_counts=(5,))).profile.scene_Q) == 0


@pytest.mark.parametrize("like", ["caer_s", "emotic", "groupwalk"])
def test_measured_bias_rises_with_the_known_bias(like):
    information, entropies = [], []
    for bias in (0.0, 0.4, 0.8, 1.0):
        latents = CausalModel(WorldSettings(like=like, bias=bias)).draw("train", 4000)
        columns = range(min(7, latents.targets_NE.shape[1]))
        found = [
            measure(latents.scene_N, latents.targets_NE[:, k], np.arange(4000), replace(QUICK, permutations=40), k)
            for k in columns
        ]
        information.append(mean_excess_information(found))
        entropies.append(np.mean([one.by_min_count[0].mean_entropy.excess for one in found]))
    assert abs(information[0]) < 0.01
    assert all(np.diff(information) > 0.02), information
    assert all(np.diff(entropies) < -0.02), entropies


@pytest.mark.parametrize(
    ("flag", "change"),
    [
        ("--top-scenes 0", {"scenes": 0}),
        ("--samples 0", {"samples": 0}),
        ("--min-count 0", {"min_counts": (0, 5)}),
        ("--permutations 39", {"permutations": 39}),
        ("--seed -1", {"seed": -1}),
    ],
)
def test_numbers_that_are_too_small_are_refused(flag, change):
    with pytest.raises(RequestError, match=flag):
        BiasOptions(**change)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 80), st.sampled_from(["union", "positives", "all"]))
def test_no_more_scenes_than_asked_for_and_all_that_there_are(seed, top, ranking):
    scene, holds, image = independent(seed, size=200)
    holds[0], holds[1] = True, False
    found = measure(scene, holds, image, BiasOptions(permutations=40, scenes=top, ranking=ranking, negatives="all"))
    there = len(np.unique(scene[holds] if ranking == "positives" else scene))
    assert found.by_min_count[0].scenes == min(top, there) == len(found.profile.scene_Q)
