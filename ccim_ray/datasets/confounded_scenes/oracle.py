"""Exact answers from the causal model: what an ideal observer of a picture's cues would say.

The cues are the subject's expression (its face part only where it is seen), the other people's emotions and
the objects. The intensity of an expression is integrated out in closed form, so nothing here is sampled.

Shapes: N pictures, E emotions, D = 18 expression dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, logsumexp

from ccim_ray.datasets.confounded_scenes.causal_model import (
    AMBIGUOUS_INTENSITY,
    CLEAR_INTENSITY,
    LINKED_OBJECT_RATE,
    SHARED_EMOTION_RATE,
    CausalModel,
    Floats,
    Latents,
)
from ccim_ray.datasets.confounded_scenes.emotions import (
    EXPRESSION_SPREAD,
    FACE_DIMENSIONS,
    NEUTRAL_EXPRESSION,
)


@dataclass(frozen=True, slots=True)
class OracleProbabilities:
    """Probability that each category is annotated, float64 (N, E); rows of a single-label world add to 1.

    Attributes:
        observational_NE: P(Y | X) of the biased environment, the best that likelihood training can reach.
        do_NE: P(Y | do(X)), the same cues with the scene's pull on the emotion removed.
        subject_NE: as ``do_NE`` from the subject's expression alone.
    """

    observational_NE: Floats
    do_NE: Floats
    subject_NE: Floats


def oracle_probabilities(model: CausalModel, latents: Latents) -> OracleProbabilities:
    """Posteriors of the pictures' labels under the causal model.

    In a multi-label world P(category k | x) = sum_e P(e | x) P(k annotated | e). The observational answer is
    about the labels as annotated, so it includes the annotators' reliance on the scene.
    """
    clear_NE, ambiguous_NE = _expression_log_likelihoods(model, latents)
    subject_NE = np.logaddexp(clear_NE, ambiguous_NE)
    context_NE = _context_log_likelihood(model, latents)
    with np.errstate(divide="ignore"):
        log_marginal_E = np.log(model.marginal_E)
        log_biased_NE = np.log(model.emotion_given_scene["id"][latents.scene_N])
    return OracleProbabilities(
        observational_NE=_as_annotated(
            model, latents, clear_NE + context_NE + log_biased_NE, ambiguous_NE + context_NE + log_biased_NE
        ),
        do_NE=_normalise(subject_NE + context_NE + log_marginal_E) @ model.cooccurrence_EE,
        subject_NE=_normalise(subject_NE + log_marginal_E) @ model.cooccurrence_EE,
    )


def _as_annotated(model: CausalModel, latents: Latents, clear_NE: Floats, ambiguous_NE: Floats) -> Floats:
    """Posterior of the annotated categories from joint log densities of the cues with (emotion, clarity)."""
    emotions = clear_NE.shape[1]
    joint = _normalise(np.concatenate([clear_NE, ambiguous_NE], axis=1))
    clear, ambiguous = joint[:, :emotions], joint[:, emotions:]
    misled = model.settings.annotator_bias * ambiguous.sum(axis=1, keepdims=True)
    faithful = clear + (1 - model.settings.annotator_bias) * ambiguous
    annotated_NE: Floats = faithful + misled * model.preference_ZE[latents.scene_N]
    return annotated_NE @ model.cooccurrence_EE


def _expression_log_likelihoods(model: CausalModel, latents: Latents) -> tuple[Floats, Floats]:
    """log p(expression, clear | emotion) and log p(expression, ambiguous | emotion), (N, E) each.

    Terms that do not depend on the emotion or on the clarity are left out.
    """
    visible_ND = np.ones(latents.expression_ND.shape)
    visible_ND[latents.seen_from_behind_N, :FACE_DIMENSIONS] = 0
    spread_D, neutral_D = np.array(EXPRESSION_SPREAD), np.array(NEUTRAL_EXPRESSION)
    observed_ND = (latents.expression_ND - neutral_D) / spread_D * visible_ND
    towards_ED = (model.prototypes_ED - neutral_D) / spread_D
    with np.errstate(divide="ignore"):
        log_clear, log_ambiguous = np.log([1 - model.settings.ambiguity, model.settings.ambiguity])
        log_confusion_EE = np.log(model.confusion_EE)
    clear_NE = _log_line_likelihood(observed_ND, visible_ND, towards_ED, CLEAR_INTENSITY)
    apparent_NE = _log_line_likelihood(observed_ND, visible_ND, towards_ED, AMBIGUOUS_INTENSITY)
    ambiguous_NE = logsumexp(apparent_NE[:, None, :] + log_confusion_EE[None], axis=2)
    return clear_NE + log_clear, ambiguous_NE + log_ambiguous


def _log_line_likelihood(
    observed_ND: Floats, visible_ND: Floats, towards_ED: Floats, intensity: tuple[float, float]
) -> Floats:
    """log mean over t in ``intensity`` of exp(-|observed - t towards|^2 / 2) over what is visible, (N, E).

    Completing the square in t leaves a difference of two normal distribution functions.
    """
    low, high = intensity
    length2_NE = visible_ND @ (towards_ED**2).T
    dot_NE = observed_ND @ towards_ED.T
    still_NE = np.broadcast_to(-0.5 * (observed_ND**2).sum(axis=1, keepdims=True), dot_NE.shape)
    moves_NE = length2_NE > 0  # Neutral, and what differs from it only in a hidden face, has one point
    length_NE = np.sqrt(np.where(moves_NE, length2_NE, 1.0))
    centre_NE = dot_NE / length_NE
    from_NE, to_NE = length_NE * low - centre_NE, length_NE * high - centre_NE
    line_NE = (
        still_NE
        + 0.5 * centre_NE**2
        + 0.5 * np.log(2 * np.pi)
        - np.log(length_NE * (high - low))
        + _log_normal_interval(from_NE, to_NE)
    )
    return np.where(moves_NE, line_NE, still_NE)


def _log_normal_interval(low: Floats, high: Floats) -> Floats:
    """log(Phi(high) - Phi(low)) for low < high, without cancellation in either tail."""
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    log_high = log_ndtr(high)
    interval: Floats = log_high + np.log1p(-np.exp(log_ndtr(low) - log_high))
    return interval


def _context_log_likelihood(model: CausalModel, latents: Latents) -> Floats:
    """log P(others' emotions, objects | emotion, scene), (N, E)."""
    emotions = len(model.categories)
    total_NE = np.zeros((len(latents), emotions))
    same_EE = SHARED_EMOTION_RATE * np.eye(emotions) + (1 - SHARED_EMOTION_RATE) * model.marginal_E[:, None]
    for slot in range(latents.other_emotion_NA.shape[1]):
        shown_N = slot < latents.other_count_N
        probability_NE = same_EE[latents.other_emotion_NA[:, slot]]
        total_NE += np.where(shown_N[:, None], np.log(probability_NE), 0)
    for slot in range(latents.object_NA.shape[1]):
        shown_N, object_N = slot < latents.object_count_N, latents.object_NA[:, slot]
        of_scene_N = model.object_given_scene_ZO[latents.scene_N, object_N]
        probability_NE = (
            LINKED_OBJECT_RATE * model.object_given_emotion_EO[:, object_N].T
            + (1 - LINKED_OBJECT_RATE) * of_scene_N[:, None]
        )
        total_NE += np.where(shown_N[:, None], np.log(probability_NE), 0)
    return total_NE


def _normalise(log_NK: Floats) -> Floats:
    posterior: Floats = np.exp(log_NK - logsumexp(log_NK, axis=1, keepdims=True))
    return posterior
