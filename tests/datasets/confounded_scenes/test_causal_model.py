"""The causal model: what environments share, what they change, and what a draw holds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from ccim_ray.datasets.confounded_scenes.causal_model import SPLIT_ENVIRONMENTS, CausalModel
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES, FACE_DIMENSIONS, SCENE_MOODS
from ccim_ray.datasets.confounded_scenes.objects import OBJECT_NAMES
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings

LIKES = ("caer_s", "emotic", "groupwalk")
shares = st.floats(0, 1, allow_nan=False)
worlds = st.builds(
    WorldSettings,
    like=st.sampled_from(LIKES),
    bias=shares,
    ambiguity=shares,
    annotator_bias=shares,
    seed=st.integers(0, 2**40),
)


def favourites(model):
    return np.arange(len(model.scene_names)), model.preference_ZE.argmax(axis=1)


@given(worlds)
@hypothesis_settings(max_examples=30, deadline=None)
def test_every_environment_keeps_both_marginals_at_every_bias(world):
    model = CausalModel(world)
    np.testing.assert_allclose(model.scene_prior_Z.sum(), 1)
    for table_ZE in model.emotion_given_scene.values():
        assert (table_ZE >= 0).all()
        np.testing.assert_allclose(table_ZE.sum(axis=1), 1, atol=1e-10)
        np.testing.assert_allclose(model.scene_prior_Z @ table_ZE, model.marginal_E, atol=1e-10)


@pytest.mark.parametrize("like", LIKES)
def test_every_category_occurs(like):
    assert CausalModel(WorldSettings(like=like)).marginal_E.min() > 0.005


@pytest.mark.parametrize("like", LIKES)
def test_do_does_not_depend_on_the_scene_and_no_bias_leaves_one_environment(like):
    model = CausalModel(WorldSettings(like=like, bias=0.9))
    assert (model.emotion_given_scene["do"] == model.marginal_E).all()
    unbiased = CausalModel(WorldSettings(like=like, bias=0)).emotion_given_scene
    np.testing.assert_allclose(unbiased["id"], unbiased["do"], atol=1e-12)
    np.testing.assert_allclose(unbiased["anti"], unbiased["do"], atol=1e-12)


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("bias", [0.1, 0.5, 0.8, 1.0])
def test_the_biased_environment_raises_each_favourite_and_anti_lowers_it(like, bias):
    model = CausalModel(WorldSettings(like=like, bias=bias))
    tables = {name: table[favourites(model)] for name, table in model.emotion_given_scene.items()}
    assert (tables["id"] > tables["do"]).all()
    assert (tables["anti"] < tables["do"]).all()


def test_full_bias_is_the_scene_preference_and_favourites_are_those_of_the_table():
    model = CausalModel(WorldSettings(bias=1.0))
    np.testing.assert_allclose(model.emotion_given_scene["id"], model.preference_ZE)
    for name, best in zip(model.scene_names, model.preference_ZE.argmax(axis=1), strict=True):
        assert model.categories[best] == SCENE_MOODS[name].favourite


def test_each_of_four_categories_is_the_favourite_of_two_settings():
    model = CausalModel(WorldSettings(like="groupwalk"))
    assert np.bincount(model.preference_ZE.argmax(axis=1)).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("split", SPLIT_ENVIRONMENTS)
def test_a_draw_has_the_marginals_and_only_biased_splits_tie_emotion_to_scene(split):
    model = CausalModel(WorldSettings(bias=0.8, seed=3))
    latents = model.draw(split, 20_000)
    emotions = np.bincount(latents.emotion_N, minlength=7)
    scenes = np.bincount(latents.scene_N, minlength=36)
    assert chisquare(emotions, 20_000 * model.marginal_E).pvalue > 1e-3
    assert chisquare(scenes, 20_000 * model.scene_prior_Z).pvalue > 1e-3
    table = np.zeros((36, 7))
    np.add.at(table, (latents.scene_N, latents.emotion_N), 1)
    independent = chi2_contingency(table).pvalue > 1e-3
    assert independent == (split == "test_do")


@pytest.mark.parametrize(
    ("split", "environment"),
    [("train", "id"), ("val", "id"), ("test_id", "id"), ("test_do", "do"), ("test_anti", "anti")],
)
def test_a_draw_follows_the_table_of_its_environment(split, environment):
    model = CausalModel(WorldSettings(like="groupwalk", bias=0.6))
    latents = model.draw(split, 40_000)
    table_ZE = model.emotion_given_scene[environment]
    for z in range(8):
        counts = np.bincount(latents.emotion_N[latents.scene_N == z], minlength=4)
        assert chisquare(counts, counts.sum() * table_ZE[z]).pvalue > 1e-4


def test_annotators_go_by_the_scene_only_where_the_split_is_biased_and_the_subject_ambiguous():
    model = CausalModel(WorldSettings(annotator_bias=1.0, bias=0.2, ambiguity=0.4))
    for split, environment in SPLIT_ENVIRONMENTS.items():
        latents = model.draw(split, 8_000)
        label_N = latents.targets_NE.argmax(axis=1)
        assert (latents.targets_NE.sum(axis=1) == 1).all()
        wrong_N = label_N != latents.emotion_N
        assert not wrong_N[~latents.ambiguous_N].any()
        assert latents.ambiguous_N.mean() == pytest.approx(0.4, abs=0.02)
        if environment == "id":
            liked_N = model.preference_ZE[latents.scene_N, label_N][latents.ambiguous_N]
            expected = (model.scene_prior_Z[:, None] * model.preference_ZE**2).sum()
            assert liked_N.mean() == pytest.approx(expected, abs=0.02)
        else:
            assert not wrong_N.any()


def test_many_labels_follow_the_cooccurrence_of_the_true_category():
    model = CausalModel(WorldSettings(like="emotic"))
    latents = model.draw("train", 60_000)
    assert latents.targets_NE[np.arange(60_000), latents.emotion_N].all()
    assert 2 < latents.targets_NE.sum(axis=1).mean() < 8
    for e in range(26):
        rows = latents.targets_NE[latents.emotion_N == e]
        np.testing.assert_allclose(rows.mean(axis=0), model.cooccurrence_EE[e], atol=2.5 / len(rows) ** 0.5)


def test_a_clear_expression_is_nearest_to_its_category_and_an_ambiguous_one_is_weak():
    model = CausalModel(WorldSettings())
    latents = model.draw("train", 4_000)
    clear = ~latents.ambiguous_N
    assert (latents.apparent_N[clear] == latents.emotion_N[clear]).all()
    assert (latents.apparent_N != latents.emotion_N)[latents.ambiguous_N].mean() > 0.3
    happy, neutral = (model.prototypes_ED[CATEGORIES["caer_s"].index(name)] for name in ("Happy", "Neutral"))
    smile = (happy - neutral)[:FACE_DIMENSIONS]

    def shown(rows):
        towards = latents.expression_ND[rows, :FACE_DIMENSIONS].mean(axis=0) - neutral[:FACE_DIMENSIONS]
        return float(towards @ smile / (smile @ smile))

    looks_happy = latents.apparent_N == CATEGORIES["caer_s"].index("Happy")
    assert shown(looks_happy & clear) == pytest.approx(0.85, abs=0.05)
    assert shown(looks_happy & ~clear) == pytest.approx(0.175, abs=0.05)


def test_a_draw_depends_on_the_seed_and_the_split_and_the_tables_on_neither():
    first, again = (CausalModel(WorldSettings(seed=5)) for _ in range(2))
    other = CausalModel(WorldSettings(seed=6))
    np.testing.assert_array_equal(first.object_given_scene_ZO, other.object_given_scene_ZO)
    for field in dataclasses.fields(first.draw("val", 50)):
        np.testing.assert_array_equal(
            getattr(first.draw("val", 50), field.name), getattr(again.draw("val", 50), field.name)
        )
    drawn = first.draw("val", 50).expression_ND
    assert not np.array_equal(drawn, first.draw("test_id", 50).expression_ND)
    assert not np.array_equal(drawn, other.draw("val", 50).expression_ND)


@given(worlds, st.sampled_from(list(SPLIT_ENVIRONMENTS)), st.integers(1, 60))
@hypothesis_settings(max_examples=40, deadline=None)
def test_every_row_is_a_scenario_that_can_be_drawn(world, split, count):
    latents = CausalModel(world).draw(split, count)
    assert len(latents) == count
    assert latents.targets_NE.any(axis=1).all()
    for row in range(count):
        scenario = latents.scenario(row)
        assert SCENE_NAMES[scenario.scene] == latents.scene_name(row)
        assert len(scenario.style) == 8
        assert all(0 <= number <= 1 for number in scenario.style)
        assert scenario.expression.shape == (18,)
        assert scenario.other_expressions.shape == (latents.other_count_N[row], 18)
        assert len(scenario.objects) == latents.object_count_N[row] <= 3
        assert all(0 <= index < len(OBJECT_NAMES) for index in scenario.objects)


def test_rows_are_a_part_of_the_draw():
    latents = CausalModel(WorldSettings()).draw("train", 30)
    part = latents.rows(10, 14)
    assert len(part) == 4
    np.testing.assert_array_equal(part.scenario(2).expression, latents.scenario(12).expression)
    assert part.scene_name(3) == latents.scene_name(13)
