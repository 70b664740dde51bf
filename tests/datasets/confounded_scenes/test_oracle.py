"""The oracle against brute force, against its own draws, and against the figures known for this world."""

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.stats import norm

from ccim_ray.datasets.confounded_scenes.causal_model import (
    AMBIGUOUS_INTENSITY,
    CLEAR_INTENSITY,
    LINKED_OBJECT_RATE,
    SHARED_EMOTION_RATE,
    CausalModel,
)
from ccim_ray.datasets.confounded_scenes.emotions import (
    EXPRESSION_SPREAD,
    FACE_DIMENSIONS,
    NEUTRAL_EXPRESSION,
)
from ccim_ray.datasets.confounded_scenes.oracle import oracle_probabilities
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings

FIELDS = ("observational_NE", "do_NE", "subject_NE")


def density_of_expression(model, latents, row, emotion, intensity):
    """p(visible expression | apparent emotion), the intensity integrated on a fine grid."""
    grid_T = np.linspace(*intensity, 801)
    first = FACE_DIMENSIONS if latents.seen_from_behind_N[row] else 0
    density_T = np.ones(len(grid_T))
    for dimension in range(first, 18):
        neutral = NEUTRAL_EXPRESSION[dimension]
        mean_T = neutral + grid_T * (model.prototypes_ED[emotion, dimension] - neutral)
        observed = latents.expression_ND[row, dimension]
        density_T *= norm.pdf(observed, mean_T, EXPRESSION_SPREAD[dimension])
    return simpson(density_T, x=grid_T) / (intensity[1] - intensity[0])


def joint_with_clarity(model, latents, row):
    """p(cues, clarity | emotion), (2, E): clear, then ambiguous."""
    emotions = len(model.categories)
    joint = np.zeros((2, emotions))
    for e in range(emotions):
        clear = density_of_expression(model, latents, row, e, CLEAR_INTENSITY)
        ambiguous = sum(
            model.confusion_EE[e, a] * density_of_expression(model, latents, row, a, AMBIGUOUS_INTENSITY)
            for a in range(emotions)
        )
        joint[:, e] = (
            (1 - model.settings.ambiguity) * clear,
            model.settings.ambiguity * ambiguous,
        )
    return joint


def context_likelihood(model, latents, row, emotion):
    probability = 1.0
    for other in latents.other_emotion_NA[row, : latents.other_count_N[row]]:
        probability *= SHARED_EMOTION_RATE * (other == emotion) + (1 - SHARED_EMOTION_RATE) * model.marginal_E[other]
    for thing in latents.object_NA[row, : latents.object_count_N[row]]:
        probability *= (
            LINKED_OBJECT_RATE * model.object_given_emotion_EO[emotion, thing]
            + (1 - LINKED_OBJECT_RATE) * model.object_given_scene_ZO[latents.scene_N[row], thing]
        )
    return probability


@pytest.mark.parametrize(
    "world",
    [
        WorldSettings(),
        WorldSettings(like="groupwalk", ambiguity=0.2, bias=1.0),
        WorldSettings(annotator_bias=0.7),
        WorldSettings(like="emotic", annotator_bias=0.3, ambiguity=0.9),
    ],
    ids=["caer_s", "groupwalk", "annotator_bias", "emotic"],
)
def test_the_closed_form_equals_brute_force(world):
    model = CausalModel(world)
    latents = model.draw("train", 4)
    latents.seen_from_behind_N[:2] = True
    found = oracle_probabilities(model, latents)
    eta, emotions = world.annotator_bias, len(model.categories)
    for row in range(len(latents)):
        cues = joint_with_clarity(model, latents, row)
        context_E = np.array([context_likelihood(model, latents, row, e) for e in range(emotions)])
        subject_E = cues.sum(axis=0) * model.marginal_E
        do_E = subject_E * context_E
        biased = cues * context_E * model.emotion_given_scene["id"][latents.scene_N[row]]
        biased /= biased.sum()
        annotated_E = biased[0] + (1 - eta) * biased[1]
        annotated_E += eta * biased[1].sum() * model.preference_ZE[latents.scene_N[row]]
        expected = (annotated_E, do_E / do_E.sum(), subject_E / subject_E.sum())
        for field, posterior_E in zip(FIELDS, expected, strict=True):
            np.testing.assert_allclose(
                getattr(found, field)[row], posterior_E @ model.cooccurrence_EE, rtol=1e-5, atol=1e-9
            )


def accuracy(probability_NE, latents):
    return 100 * (probability_NE.argmax(axis=1) == latents.emotion_N).mean()


@pytest.mark.parametrize(
    ("split", "expected"),
    # Standard error of the reference figures, 3,000 pictures each, is about 0.8 points.
    [
        ("test_id", (86.7, 76.1, 66.2)),
        ("test_do", (66.3, 75.6, 63.7)),
        ("test_anti", (59.1, 74.9, 64.0)),
    ],
)
def test_accuracies_of_the_default_world_are_those_known(split, expected):
    model = CausalModel(WorldSettings(bias=0.8, ambiguity=0.5))
    latents = model.draw(split, 20_000)
    found = oracle_probabilities(model, latents)
    for field, figure in zip(FIELDS, expected, strict=True):
        assert accuracy(getattr(found, field), latents) == pytest.approx(figure, abs=2.5)


@pytest.mark.parametrize("like", ["caer_s", "emotic", "groupwalk"])
def test_the_better_oracle_is_the_one_made_for_the_environment(like):
    model = CausalModel(WorldSettings(like=like))

    def log_loss(split, field):
        latents = model.draw(split, 5_000)
        probability = np.clip(getattr(oracle_probabilities(model, latents), field), 1e-12, 1 - 1e-12)
        hit = np.where(latents.targets_NE, probability, 1 - probability)
        return -np.log(hit).mean()

    assert log_loss("test_id", "observational_NE") < log_loss("test_id", "do_NE")
    assert log_loss("test_do", "do_NE") < log_loss("test_do", "observational_NE")
    assert log_loss("test_anti", "do_NE") < log_loss("test_anti", "observational_NE")
    assert log_loss("test_do", "do_NE") < log_loss("test_do", "subject_NE")


@pytest.mark.parametrize("like", ["caer_s", "emotic"])
@pytest.mark.parametrize("eta", [0.0, 0.8])
def test_probabilities_are_calibrated_to_the_labels_of_their_environment(like, eta):
    model = CausalModel(WorldSettings(like=like, annotator_bias=eta))
    for split, field in (("test_id", "observational_NE"), ("test_do", "do_NE"), ("test_do", "subject_NE")):
        latents = model.draw(split, 6_000)
        probability_NE = getattr(oracle_probabilities(model, latents), field)
        for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
            within = (probability_NE >= low) & (probability_NE < high)
            variance = (probability_NE * (1 - probability_NE))[within].sum()
            surplus = latents.targets_NE[within].sum() - probability_NE[within].sum()
            # Labels of one picture are dependent, hence the wide margin: a wrong model misses it by far.
            assert abs(surplus) < 6 * variance**0.5


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ambiguity", [0.0, 0.5, 1.0])
def test_posteriors_of_a_single_label_world_are_distributions(bias, ambiguity):
    model = CausalModel(WorldSettings(bias=bias, ambiguity=ambiguity))
    for split in ("test_id", "test_do", "test_anti"):
        found = oracle_probabilities(model, model.draw(split, 500))
        for field in FIELDS:
            probability_NE = getattr(found, field)
            assert (probability_NE >= 0).all()
            np.testing.assert_allclose(probability_NE.sum(axis=1), 1, atol=1e-9)
        if bias == 0:
            np.testing.assert_allclose(found.observational_NE, found.do_NE, atol=1e-9)
