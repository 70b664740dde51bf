"""How each category of emotion looks, and which emotion each scene favours.

An expression is a vector of 18 numbers: nine of the face, then nine of the body. Values are about 0..1 in the
units that the drawing uses; arm angles are radians from straight down. D = 18 dimensions, E = categories.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

EXPRESSION_DIMENSIONS: tuple[str, ...] = (
    "brow_angle",
    "brow_height",
    "eye_opening",
    "mouth_curve",
    "mouth_opening",
    "mouth_width",
    "nose_wrinkle",
    "tears",
    "blush",
    "shrug",
    "lean",
    "crouch",
    "head_drop",
    "stance",
    "left_upper_arm",
    "left_forearm",
    "right_upper_arm",
    "right_forearm",
)
"""Names of the 18 numbers, in order."""

FACE_DIMENSIONS = 9
"""The first nine dimensions are the face; they cannot be seen from behind."""

_ARMS: dict[str, tuple[float, float, float, float]] = {
    "hanging": (0.18, 0.10, 0.18, 0.10),
    "on_hips": (0.9, -0.7, 0.9, -0.7),
    "raised_fist": (0.9, -0.7, 1.5, 2.9),
    "both_fists": (0.7, 2.5, 0.7, 2.5),
    "thrown_up": (2.5, 2.8, 2.5, 2.8),
    "drooping": (0.05, 0.02, 0.05, 0.02),
    "wiping_eye": (0.06, 0.03, 0.45, 3.45),
    "guarding_face": (0.5, 3.45, 0.5, 3.45),
    "open": (1.1, 2.4, 1.1, 2.4),
    "pushing_away": (0.5, 3.6, 1.35, 1.75),
    "spread": (1.5, 1.55, 1.5, 1.55),
    "crossed": (0.45, -1.6, 0.45, -1.6),
    "hand_on_chin": (0.45, -1.6, 0.4, 3.3),
    "waving": (0.18, 0.1, 1.6, 3.0),
    "holding_head": (1.7, 3.9, 1.7, 3.9),
    "on_heart": (0.35, -2.4, 0.35, -2.4),
    "reaching": (1.2, 1.3, 1.2, 1.3),
    "on_belly": (0.5, -1.2, 0.5, -1.2),
}


class Affect(NamedTuple):
    """Valence, arousal and dominance, each in [-1, 1]."""

    valence: float
    arousal: float
    dominance: float


class _Look(NamedTuple):
    face: tuple[float, ...]
    body: tuple[float, ...]
    arms: str
    affect: Affect


# Columns of face and body follow EXPRESSION_DIMENSIONS; the arms complete the body.
_LOOKS: dict[str, _Look] = {
    "Affection": _Look(
        (-0.2, 0.2, 0.5, 0.8, 0.05, 0.2, 0, 0, 0.8), (0, 0.4, 0, 0.3, 0.2), "on_heart", Affect(0.8, 0.1, 0.2)
    ),
    "Anger": _Look(
        (1, -0.5, 0.6, -0.7, 0.45, 0.3, 0.4, 0, 0.5),
        (0.4, 0.3, 0, 0.1, 0.9),
        "raised_fist",
        Affect(-0.8, 0.8, 0.5),
    ),
    "Annoyance": _Look(
        (0.6, -0.3, 0.5, -0.4, 0.02, 0, 0.3, 0, 0.1), (0.2, 0, 0, 0, 0.4), "crossed", Affect(-0.5, 0.4, 0.2)
    ),
    "Anticipation": _Look(
        (-0.1, 0.5, 1.1, 0.4, 0.15, 0, 0, 0, 0), (0.2, 0.5, 0, -0.1, 0.5), "both_fists", Affect(0.4, 0.5, 0.2)
    ),
    "Aversion": _Look(
        (0.55, -0.2, 0.35, -0.8, 0.08, -0.1, 1, 0, 0),
        (0.2, -0.9, 0, 0, 0.2),
        "pushing_away",
        Affect(-0.7, 0.3, 0.1),
    ),
    "Confidence": _Look(
        (0.2, 0.1, 0.7, 0.4, 0, 0.2, 0, 0, 0), (-0.2, 0, 0, -0.3, 0.9), "on_hips", Affect(0.6, 0.2, 0.9)
    ),
    "Disapproval": _Look(
        (0.7, -0.1, 0.5, -0.6, 0, 0.1, 0.5, 0, 0), (0.1, -0.4, 0, 0, 0.4), "crossed", Affect(-0.5, 0.1, 0.4)
    ),
    "Disconnection": _Look(
        (0, 0, 0.4, -0.1, 0, -0.1, 0, 0, 0), (-0.2, -0.5, 0, 0.5, 0.2), "on_belly", Affect(-0.3, -0.6, -0.3)
    ),
    "Disgust": _Look(
        (0.55, -0.2, 0.35, -0.8, 0.08, -0.1, 1, 0, 0),
        (0.2, -0.9, 0, 0, 0.2),
        "pushing_away",
        Affect(-0.7, 0.3, 0.1),
    ),
    "Disquietment": _Look(
        (-0.7, 0.3, 1, -0.4, 0.1, 0, 0, 0, 0), (0.6, 0, 0.2, 0.2, 0.1), "on_belly", Affect(-0.5, 0.5, -0.5)
    ),
    "Doubt/Confusion": _Look(
        (-0.3, 0.5, 0.7, -0.2, 0.05, -0.4, 0.2, 0, 0),
        (0.7, -0.3, 0, 0, 0.3),
        "hand_on_chin",
        Affect(-0.2, 0.1, -0.4),
    ),
    "Embarrassment": _Look(
        (-0.5, 0.2, 0.4, 0.2, 0, -0.3, 0, 0, 1),
        (0.8, 0.2, 0.1, 0.7, 0),
        "guarding_face",
        Affect(-0.3, 0.3, -0.8),
    ),
    "Engagement": _Look(
        (0.1, 0.3, 0.9, 0.3, 0.2, 0.1, 0, 0, 0), (0, 0.5, 0, 0, 0.4), "reaching", Affect(0.4, 0.4, 0.4)
    ),
    "Esteem": _Look((-0.1, 0.3, 0.7, 0.6, 0.02, 0.1, 0, 0, 0.2), (0, 0.2, 0, -0.1, 0.3), "waving", Affect(0.5, 0, 0.1)),
    "Excitement": _Look(
        (-0.1, 0.8, 1.2, 1, 0.8, 0.5, 0, 0, 0.5), (0.3, 0.1, 0, -0.3, 0.9), "thrown_up", Affect(0.8, 0.9, 0.5)
    ),
    "Fatigue": _Look(
        (-0.4, -0.1, 0.2, -0.3, 0.3, 0, 0, 0, 0),
        (-0.7, 0.4, 0.3, 0.8, 0.2),
        "drooping",
        Affect(-0.3, -0.8, -0.4),
    ),
    "Fear": _Look(
        (-0.8, 0.7, 1.35, -0.6, 0.5, 0.3, 0, 0, 0),
        (0.9, -0.4, 0.6, 0, 0.1),
        "guarding_face",
        Affect(-0.8, 0.8, -0.7),
    ),
    "Happiness": _Look((0, 0.3, 0.6, 1, 0.5, 0.6, 0, 0, 0.6), (0, 0, 0, -0.2, 0.6), "spread", Affect(0.9, 0.6, 0.5)),
    "Happy": _Look((0, 0.3, 0.6, 1, 0.5, 0.6, 0, 0, 0.6), (0, 0, 0, -0.2, 0.6), "thrown_up", Affect(0.9, 0.6, 0.5)),
    "Neutral": _Look((0, 0, 0.8, 0, 0.02, 0, 0, 0, 0), (0, 0, 0, 0, 0.3), "hanging", Affect(0, -0.1, 0)),
    "Pain": _Look(
        (-0.3, -0.3, 0.15, -0.7, 0.6, 0.5, 0.8, 0.3, 0.2),
        (0.7, 0.5, 0.5, 0.3, 0.2),
        "on_belly",
        Affect(-0.8, 0.5, -0.7),
    ),
    "Peace": _Look((-0.1, 0.1, 0.1, 0.5, 0, 0, 0, 0, 0), (-0.5, 0, 0, 0, 0.3), "hanging", Affect(0.6, -0.8, 0.3)),
    "Pleasure": _Look(
        (0, 0.2, 0.35, 0.8, 0.2, 0.4, 0, 0, 0.5), (-0.2, 0.2, 0, -0.3, 0.5), "spread", Affect(0.8, 0.3, 0.4)
    ),
    "Sad": _Look(
        (-0.9, 0.1, 0.45, -0.9, 0, -0.3, 0, 0.8, 0),
        (-0.6, 0.3, 0, 1, 0.1),
        "wiping_eye",
        Affect(-0.8, -0.4, -0.5),
    ),
    "Sadness": _Look(
        (-0.9, 0.1, 0.45, -0.9, 0, -0.3, 0, 0.8, 0),
        (-0.6, 0.3, 0, 1, 0.1),
        "drooping",
        Affect(-0.8, -0.4, -0.5),
    ),
    "Sensitivity": _Look(
        (-0.6, 0.3, 0.6, -0.3, 0, -0.2, 0, 0.3, 0.5),
        (0.2, 0.2, 0, 0.5, 0.1),
        "on_heart",
        Affect(-0.3, -0.1, -0.6),
    ),
    "Suffering": _Look(
        (-0.9, -0.1, 0.3, -0.9, 0.6, 0.2, 0.4, 1, 0),
        (0.4, 0.2, 0.5, 0.8, 0.1),
        "holding_head",
        Affect(-0.9, 0.4, -0.8),
    ),
    "Surprise": _Look((-0.1, 1, 1.5, 0, 1, -0.6, 0, 0, 0), (0.3, -0.1, 0, -0.2, 0.4), "open", Affect(0.1, 0.9, -0.1)),
    "Sympathy": _Look(
        (-0.7, 0.3, 0.6, 0.1, 0, 0, 0, 0.2, 0.1),
        (-0.1, 0.5, 0, 0.3, 0.2),
        "on_heart",
        Affect(-0.1, -0.2, -0.1),
    ),
    "Yearning": _Look(
        (-0.5, 0.5, 0.9, -0.1, 0.1, 0, 0, 0, 0), (0.1, 0.6, 0, -0.2, 0.3), "reaching", Affect(-0.1, 0.1, -0.3)
    ),
}


NEUTRAL_EXPRESSION: tuple[float, ...] = (*_LOOKS["Neutral"].face, *_LOOKS["Neutral"].body, *_ARMS["hanging"])
"""The expression of somebody who feels nothing in particular, (18,)."""

EXPRESSION_SPREAD: tuple[float, ...] = (
    *(0.22, 0.2, 0.12, 0.2, 0.1, 0.15, 0.15, 0.12, 0.12),
    *(0.2, 0.15, 0.1, 0.15, 0.2),
    *(0.3, 0.35, 0.3, 0.35),
)
"""Standard deviation of the personal variation of each dimension, (18,)."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "caer_s": ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"),
    "emotic": (
        *("Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval"),
        *("Disconnection", "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem"),
        *("Excitement", "Fatigue", "Fear", "Happiness", "Pain", "Peace", "Pleasure", "Sadness"),
        *("Sensitivity", "Suffering", "Surprise", "Sympathy", "Yearning"),
    ),
    "groupwalk": ("Angry", "Happy", "Neutral", "Sad"),
}
"""Category names of each world in the canonical order of the dataset that it is like."""

_SAME_LOOK = {"Angry": "Anger"}


class SceneMood(NamedTuple):
    """The emotion of the seven that a scene favours, and its valence and arousal for the 26."""

    favourite: str
    valence: float
    arousal: float


SCENE_MOODS: dict[str, SceneMood] = {
    "park": SceneMood("Happy", 0.8, 0.2),
    "beach": SceneMood("Happy", 0.9, 0.6),
    "forest": SceneMood("Neutral", 0.5, -0.5),
    "mountain": SceneMood("Surprise", 0.5, 0.2),
    "snowfield": SceneMood("Surprise", 0.3, 0.5),
    "desert": SceneMood("Sad", -0.3, -0.5),
    "farm": SceneMood("Neutral", 0.3, -0.4),
    "harbour": SceneMood("Neutral", 0.4, -0.3),
    "street": SceneMood("Neutral", 0, 0.1),
    "night_alley": SceneMood("Fear", -0.8, 0.8),
    "market": SceneMood("Disgust", 0.1, 0.3),
    "playground": SceneMood("Happy", 0.9, 0.7),
    "stadium": SceneMood("Anger", 0.3, 0.9),
    "construction_site": SceneMood("Anger", -0.5, 0.5),
    "parking_garage": SceneMood("Fear", -0.5, 0.4),
    "cemetery": SceneMood("Sad", -0.8, -0.5),
    "train_platform": SceneMood("Sad", -0.2, 0),
    "ruins": SceneMood("Fear", -0.9, 0.8),
    "living_room": SceneMood("Neutral", 0.3, -0.2),
    "bedroom": SceneMood("Sad", -0.3, -0.7),
    "kitchen": SceneMood("Disgust", -0.4, 0.2),
    "bathroom": SceneMood("Disgust", -0.6, 0.2),
    "office": SceneMood("Anger", -0.1, -0.1),
    "classroom": SceneMood("Neutral", 0, 0),
    "library": SceneMood("Neutral", 0, -0.4),
    "hospital_room": SceneMood("Sad", -0.8, -0.3),
    "prison_cell": SceneMood("Anger", -0.8, 0.3),
    "restaurant": SceneMood("Disgust", 0.6, 0.1),
    "nightclub": SceneMood("Surprise", 0.6, 0.9),
    "party_room": SceneMood("Happy", 0.95, 0.7),
    "church": SceneMood("Sad", -0.2, -0.3),
    "gym": SceneMood("Anger", -0.3, 0.7),
    "museum": SceneMood("Surprise", 0.1, 0.6),
    "theatre": SceneMood("Surprise", 0.2, 0.9),
    "supermarket": SceneMood("Disgust", -0.1, 0.2),
    "swimming_pool": SceneMood("Happy", 0.7, 0.6),
}
"""Mood of every scene by its name."""

FAVOURITE_AMONG_FOUR: dict[str, str] = {
    "Anger": "Angry",
    "Disgust": "Angry",
    "Fear": "Sad",
    "Surprise": "Happy",
}
"""What a favourite of the seven becomes where only Angry, Happy, Neutral and Sad exist."""

LINKED_OBJECTS: dict[str, tuple[str, ...]] = {
    "Anger": ("vase",),
    "Angry": ("vase",),
    "Disgust": ("trash",),
    "Fear": ("snake",),
    "Happy": ("gift", "balloon"),
    "Neutral": ("book",),
    "Sad": ("bottle", "flower"),
    "Surprise": ("cat", "gift"),
}
"""Objects that an emotion brings along in every environment; other categories get one by their position."""


def expression_prototypes(categories: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Full-intensity expression of each category, float64 (E, 18)."""
    looks = [_look(name) for name in categories]
    return np.array([(*look.face, *look.body, *_ARMS[look.arms]) for look in looks], np.float64)


def affects(categories: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Valence, arousal and dominance of each category in [-1, 1], float64 (E, 3)."""
    return np.array([_look(name).affect for name in categories], np.float64)


def _look(category: str) -> _Look:
    return _LOOKS[_SAME_LOOK.get(category, category)]
