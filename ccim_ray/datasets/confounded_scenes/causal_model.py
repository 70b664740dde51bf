"""The structural causal model of the embedded world: who feels what, where, and what the picture shows.

A scene Z is the confounder: it is seen in the picture and, in the biased environment, it shifts which emotion
the subject has. Environments differ in P(emotion | scene) alone and share the marginals of both:

* "id": ``(1 - rho) pi + rho B[z]``, the scene's own preference B mixed with pi = sum_z P(z) B[z];
* "do": ``pi``, what intervening on the scene leaves;
* "anti": each scene's favourites made rare, brought back to the marginals P(z) and pi by Sinkhorn scaling.

Shapes: N pictures, Z scenes, E emotions, D = 18 expression dimensions, A = 3 other people, O = objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.confounded_scenes.emotions import (
    CATEGORIES,
    EXPRESSION_SPREAD,
    FAVOURITE_AMONG_FOUR,
    LINKED_OBJECTS,
    NEUTRAL_EXPRESSION,
    SCENE_MOODS,
    affects,
    expression_prototypes,
)
from ccim_ray.datasets.confounded_scenes.objects import OBJECT_NAMES
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings

Environment = Literal["id", "do", "anti"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

SPLIT_ENVIRONMENTS: dict[str, Environment] = {
    "train": "id",
    "val": "id",
    "test_id": "id",
    "test_do": "do",
    "test_anti": "anti",
}
"""Environment that each split is drawn from; the order also numbers the splits' random streams."""

GROUPWALK_SCENES: tuple[str, ...] = (
    *("park", "playground", "street", "harbour"),
    *("market", "construction_site", "train_platform", "hospital_room"),
)
"""The eight settings of the four-category world: each category is the favourite of two."""

STRUCTURE_SEED = 7
"""Seed of the tables; they are the same for every WorldSettings.seed."""
ZIPF_EXPONENT = 0.5
"""Scenes differ in frequency: P(z) falls as rank to this power."""
FAVOURITE_SHARE = 0.8
"""Share of a scene's preference B[z] that its favourite emotion takes."""
SEEN_FROM_BEHIND_RATE = 0.08
"""Share of subjects whose face is hidden."""
SHARED_EMOTION_RATE = 0.5
"""gamma: probability that another person shares the subject's emotion (legitimate context)."""
LINKED_OBJECT_RATE = 0.2
"""delta: probability that an object belongs to the emotion rather than to the scene (legitimate context)."""
MEAN_OTHERS = 0.9
"""Mean of the Poisson number of other people, before the cut at MAX_OTHERS."""
MEAN_OBJECTS = 1.3
"""Mean of the Poisson number of objects, before the cut at MAX_OBJECTS."""
MAX_OTHERS = 3
"""Most other people in a picture."""
MAX_OBJECTS = 3
"""Most objects in a picture."""
CLEAR_INTENSITY = (0.65, 1.05)
"""Range of the uniform intensity of an expression that shows the subject's emotion."""
AMBIGUOUS_INTENSITY = (0.0, 0.35)
"""Range of the uniform intensity of an expression that does not."""
OTHERS_INTENSITY = (0.4, 0.9)
"""Range of the uniform intensity of other people's expressions."""
OTHERS_SPREAD = 0.8
"""Personal variation of other people's expressions as a share of the subject's."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that one picture shows; replace ``scene`` for the same people in another place.

    Attributes:
        scene: index into ``scenes.SCENE_NAMES``.
        style: 8 numbers in [0, 1]: light, hue, horizon, density and the like.
        scene_seed, person_seed: seeds of what else varies in the background and in the people.
        expression: expression and posture of the subject, (18,), see ``emotions.EXPRESSION_DIMENSIONS``.
        seen_from_behind: whether the subject's face is hidden.
        other_expressions: the same vector of each other person, (A, 18).
        objects: indices into ``objects.OBJECT_NAMES``.
    """

    scene: int
    style: tuple[float, ...]
    scene_seed: int
    person_seed: int
    expression: Floats
    seen_from_behind: bool
    other_expressions: Floats
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """All latent variables of N pictures of one split, one row a picture.

    Attributes:
        scene_names: names of the model's scenes; ``scene_N`` indexes them.
        scene_N, emotion_N: the confounder and the subject's true emotion.
        targets_NE: labels as annotated; one category a row in a single-label world. They follow the true
            emotion except where an annotator of a biased split went by the scene.
        ambiguous_N: whether expression and posture fail to settle the emotion.
        apparent_N: the emotion that the expression is a weak or strong form of.
        expression_ND, seen_from_behind_N: the subject's cue and whether its face part is hidden.
        other_count_N, other_emotion_NA, other_expression_NAD: other people; only the first count are shown.
        object_count_N, object_NA: objects; only the first count are shown.
        style_NS, scene_seed_N, person_seed_N: what varies without any bearing on the emotion.
    """

    scene_names: tuple[str, ...]
    scene_N: Integers
    emotion_N: Integers
    targets_NE: Booleans
    ambiguous_N: Booleans
    apparent_N: Integers
    expression_ND: Floats
    seen_from_behind_N: Booleans
    other_count_N: Integers
    other_emotion_NA: Integers
    other_expression_NAD: Floats
    object_count_N: Integers
    object_NA: Integers
    style_NS: Floats
    scene_seed_N: Integers
    person_seed_N: Integers

    def __len__(self) -> int:
        return len(self.scene_N)

    def scene_name(self, row: int) -> str:
        """Name of the scene of picture ``row``."""
        return self.scene_names[int(self.scene_N[row])]

    def rows(self, start: int, stop: int) -> Latents:
        """The pictures from ``start`` to ``stop`` (exclusive)."""
        arrays = {name: getattr(self, name) for name in self.__slots__ if name != "scene_names"}
        return replace(self, **{name: array[start:stop] for name, array in arrays.items()})

    def scenario(self, row: int) -> Scenario:
        """What picture ``row`` shows."""
        return Scenario(
            scene=SCENE_NAMES.index(self.scene_name(row)),
            style=tuple(self.style_NS[row].tolist()),
            scene_seed=int(self.scene_seed_N[row]),
            person_seed=int(self.person_seed_N[row]),
            expression=self.expression_ND[row],
            seen_from_behind=bool(self.seen_from_behind_N[row]),
            other_expressions=self.other_expression_NAD[row, : self.other_count_N[row]],
            objects=tuple(self.object_NA[row, : self.object_count_N[row]].tolist()),
        )


class CausalModel:
    """Tables of the causal model, and draws from it.

    Attributes:
        categories, scene_names: the E emotions and the Z scenes.
        prototypes_ED: expression of each emotion at full intensity.
        scene_prior_Z: P(z).
        preference_ZE: B, each scene's own preference.
        marginal_E: pi, P(emotion), the same in every environment and for every bias.
        emotion_given_scene: P(emotion | scene), (Z, E), by environment.
        confusion_EE: P(apparent emotion | emotion) of an ambiguous expression.
        cooccurrence_EE: P(category k is annotated | emotion e); the identity in a single-label world.
        object_given_scene_ZO, object_given_emotion_EO: the two sources of an object.
    """

    def __init__(self, settings: WorldSettings) -> None:
        generator = np.random.default_rng(STRUCTURE_SEED)
        self.settings = settings
        self.categories = CATEGORIES[settings.like]
        self.scene_names: tuple[str, ...] = GROUPWALK_SCENES if settings.like == "groupwalk" else SCENE_NAMES
        self.prototypes_ED = expression_prototypes(self.categories)
        frequency_Z = np.arange(1.0, len(self.scene_names) + 1) ** -ZIPF_EXPONENT
        self.scene_prior_Z: Floats = generator.permutation(frequency_Z / frequency_Z.sum())
        self.preference_ZE = _preferences(settings, self.scene_names, self.categories, generator)
        self.marginal_E: Floats = self.scene_prior_Z @ self.preference_ZE
        self.emotion_given_scene: dict[Environment, Floats] = {
            "id": (1 - settings.bias) * self.marginal_E + settings.bias * self.preference_ZE,
            "do": np.tile(self.marginal_E, (len(self.scene_names), 1)),
            "anti": _against_preference(self.scene_prior_Z, self.preference_ZE, self.marginal_E, settings.bias),
        }
        self.confusion_EE = _confusion(self.categories)
        self.object_given_scene_ZO: Floats = generator.dirichlet(
            np.full(len(OBJECT_NAMES), 0.35), len(self.scene_names)
        )
        self.object_given_emotion_EO = _linked_objects(self.categories)
        self.cooccurrence_EE = (
            _cooccurrence(self.categories, generator) if settings.like == "emotic" else np.eye(len(self.categories))
        )

    def draw(self, split: str, count: int, scene_N: Integers | None = None) -> Latents:
        """Latents of ``count`` pictures of ``split``; the same for the same settings, split and count.

        With ``scene_N`` the scenes are those, and every exogenous draw is the one that it is without: an
        intervention on the scene (Pearl's abduction, action, prediction).
        """
        generator = np.random.default_rng([self.settings.seed, list(SPLIT_ENVIRONMENTS).index(split)])
        environment = SPLIT_ENVIRONMENTS[split]
        natural_N = generator.choice(len(self.scene_names), count, p=self.scene_prior_Z)
        scene_N = natural_N if scene_N is None else scene_N
        emotion_N = _categorical(self.emotion_given_scene[environment][scene_N], generator)
        ambiguous_N = generator.random(count) < self.settings.ambiguity
        apparent_N = np.where(ambiguous_N, _categorical(self.confusion_EE[emotion_N], generator), emotion_N)
        intensity_N = np.where(
            ambiguous_N,
            generator.uniform(*AMBIGUOUS_INTENSITY, count),
            generator.uniform(*CLEAR_INTENSITY, count),
        )
        expression_ND = self._expressions(apparent_N, intensity_N, 1.0, generator)
        seen_from_behind_N = generator.random(count) < SEEN_FROM_BEHIND_RATE
        other_count_N = np.minimum(generator.poisson(MEAN_OTHERS, count), MAX_OTHERS)
        shares_NA = generator.random((count, MAX_OTHERS)) < SHARED_EMOTION_RATE
        stranger_NA = generator.choice(len(self.categories), (count, MAX_OTHERS), p=self.marginal_E)
        other_emotion_NA = np.where(shares_NA, emotion_N[:, None], stranger_NA)
        other_expression_NAD = self._expressions(
            other_emotion_NA,
            generator.uniform(*OTHERS_INTENSITY, (count, MAX_OTHERS)),
            OTHERS_SPREAD,
            generator,
        )
        return Latents(
            scene_names=self.scene_names,
            scene_N=scene_N,
            emotion_N=emotion_N,
            targets_NE=self._annotate(scene_N, emotion_N, ambiguous_N, environment, generator),
            ambiguous_N=ambiguous_N,
            apparent_N=apparent_N,
            expression_ND=expression_ND,
            seen_from_behind_N=seen_from_behind_N,
            other_count_N=other_count_N,
            other_emotion_NA=other_emotion_NA,
            other_expression_NAD=other_expression_NAD,
            object_count_N=np.minimum(generator.poisson(MEAN_OBJECTS, count), MAX_OBJECTS),
            object_NA=self._objects(scene_N, emotion_N, generator),
            style_NS=generator.random((count, 8)),
            scene_seed_N=generator.integers(0, 2**31, count),
            person_seed_N=generator.integers(0, 2**31, count),
        )

    def counterfactuals(self, count: int, size: int) -> Latents:
        """The first ``count`` of the ``size`` subjects of test_do, each in another scene, drawn from P(z) without its
        own.

        There the emotion has no cause in the scene, so the subject, its labels, the other people, the light and the
        objects that belong to the emotion stay; the background and the objects that belong to the scene change.
        """
        generator = np.random.default_rng([self.settings.seed, len(SPLIT_ENVIRONMENTS)])
        natural_N = self.draw("test_do", size).scene_N
        other_NZ = np.tile(self.scene_prior_Z, (size, 1))
        other_NZ[np.arange(size), natural_N] = 0
        return self.draw("test_do", size, _categorical(other_NZ, generator)).rows(0, count)

    def _expressions(
        self, emotion: Integers, intensity: Floats, spread: float, generator: np.random.Generator
    ) -> Floats:
        neutral_D = np.array(NEUTRAL_EXPRESSION)
        noise = generator.standard_normal((*emotion.shape, len(neutral_D))) * np.array(EXPRESSION_SPREAD)
        towards = self.prototypes_ED[emotion] - neutral_D
        expression: Floats = neutral_D + intensity[..., None] * towards + spread * noise
        return expression

    def _objects(self, scene_N: Integers, emotion_N: Integers, generator: np.random.Generator) -> Integers:
        columns = []
        for _ in range(MAX_OBJECTS):
            linked_N = generator.random(len(scene_N)) < LINKED_OBJECT_RATE
            of_emotion_N = _categorical(self.object_given_emotion_EO[emotion_N], generator)
            of_scene_N = _categorical(self.object_given_scene_ZO[scene_N], generator)
            columns.append(np.where(linked_N, of_emotion_N, of_scene_N))
        return np.stack(columns, axis=1)

    def _annotate(
        self,
        scene_N: Integers,
        emotion_N: Integers,
        ambiguous_N: Booleans,
        environment: Environment,
        generator: np.random.Generator,
    ) -> Booleans:
        guess_N = _categorical(self.preference_ZE[scene_N], generator)
        misled_N = ambiguous_N & (generator.random(len(scene_N)) < self.settings.annotator_bias)
        seen_N = np.where(misled_N & (environment == "id"), guess_N, emotion_N)
        probability_NE = self.cooccurrence_EE[seen_N]
        targets_NE: Booleans = generator.random(probability_NE.shape) < probability_NE
        return targets_NE


def _categorical(probability_NK: Floats, generator: np.random.Generator) -> Integers:
    """One index a row, drawn with the row's probabilities."""
    cumulative_NK = probability_NK.cumsum(axis=1)
    threshold_N = generator.random(len(probability_NK)) * cumulative_NK[:, -1]
    index_N: Integers = (cumulative_NK > threshold_N[:, None]).argmax(axis=1)
    return index_N


def _preferences(
    settings: WorldSettings,
    scene_names: tuple[str, ...],
    categories: tuple[str, ...],
    generator: np.random.Generator,
) -> Floats:
    """B, (Z, E): by closeness of affect among 26 categories, else one favourite and a random rest."""
    preference_ZE = np.zeros((len(scene_names), len(categories)))
    affect_E2 = affects(categories)[:, :2]
    for z, name in enumerate(scene_names):
        favourite, valence, arousal = SCENE_MOODS[name]
        if settings.like == "emotic":
            distance_E = ((affect_E2 - (valence, arousal)) ** 2).sum(axis=1)
            weight_E = np.exp(-6 * distance_E) * generator.gamma(2.0, 0.5, len(categories))
            kept = np.argsort(-weight_E)[:6]
            preference_ZE[z, kept] = weight_E[kept]
        else:
            best = categories.index(favourite if favourite in categories else FAVOURITE_AMONG_FOUR[favourite])
            rest = np.arange(len(categories)) != best
            preference_ZE[z, best] = FAVOURITE_SHARE
            preference_ZE[z, rest] = (1 - FAVOURITE_SHARE) * generator.dirichlet(np.full(rest.sum(), 0.4))
    normalised_ZE: Floats = preference_ZE / preference_ZE.sum(axis=1, keepdims=True)
    return normalised_ZE


def _against_preference(scene_prior_Z: Floats, preference_ZE: Floats, marginal_E: Floats, bias: float) -> Floats:
    """P(emotion | scene) that avoids each scene's favourites and keeps both marginals (Sinkhorn), (Z, E)."""
    avoided_ZE = marginal_E * np.exp(-4 * preference_ZE / preference_ZE.max(axis=1, keepdims=True))
    avoided_ZE /= avoided_ZE.sum(axis=1, keepdims=True)
    joint_ZE = scene_prior_Z[:, None] * ((1 - bias) * marginal_E + bias * avoided_ZE)
    for _ in range(500):
        joint_ZE *= marginal_E / joint_ZE.sum(axis=0)
        joint_ZE *= (scene_prior_Z / joint_ZE.sum(axis=1))[:, None]
    conditional_ZE: Floats = joint_ZE / scene_prior_Z[:, None]
    return conditional_ZE


def _confusion(categories: tuple[str, ...]) -> Floats:
    """What an ambiguous expression resembles, (E, E); where there is a Neutral it draws the others to it."""
    size = len(categories)
    confusion_EE = np.full((size, size), 0.55 / (size - 1))
    np.fill_diagonal(confusion_EE, 0.45)
    if "Neutral" in categories:
        neutral = categories.index("Neutral")
        confusion_EE[:, neutral] += 0.3
        confusion_EE[neutral] = 0.1
        confusion_EE[neutral, neutral] = 1.0
    normalised_EE: Floats = confusion_EE / confusion_EE.sum(axis=1, keepdims=True)
    return normalised_EE


def _linked_objects(categories: tuple[str, ...]) -> Floats:
    """P(object | emotion) of the objects that an emotion brings along, (E, O)."""
    linked_EO = np.zeros((len(categories), len(OBJECT_NAMES)))
    for e, category in enumerate(categories):
        names = LINKED_OBJECTS.get(category, (OBJECT_NAMES[e % len(OBJECT_NAMES)],))
        linked_EO[e, [OBJECT_NAMES.index(name) for name in names]] = 1 / len(names)
    return linked_EO


def _cooccurrence(categories: tuple[str, ...], generator: np.random.Generator) -> Floats:
    """P(category k is annotated | emotion e), (E, E): close affects go together, some hold almost always."""
    affect_E3 = affects(categories)
    distance_EE = ((affect_E3[:, None] - affect_E3[None]) ** 2).sum(axis=2)
    everyday_E = generator.beta(1.0, 5.0, len(categories))
    for name, share in (("Engagement", 0.8), ("Anticipation", 0.7), ("Confidence", 0.6)):
        everyday_E[categories.index(name)] = share
    cooccurrence_EE: Floats = np.clip(0.75 * np.exp(-4 * distance_EE) + 0.35 * everyday_E, 0, 0.95)
    np.fill_diagonal(cooccurrence_EE, 1.0)
    return cooccurrence_EE
