"""What a person looks like: a look that carries no emotion, and an expression that does."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.confounded_scenes.canvas import Color, jitter
from ccim_ray.datasets.confounded_scenes.objects import VIVID_COLORS

SKIN_COLORS: tuple[Color, ...] = (
    (255, 219, 190),
    (241, 194, 155),
    (224, 172, 125),
    (198, 134, 86),
    (141, 85, 50),
    (96, 58, 36),
)
HAIR_COLORS: tuple[Color, ...] = (
    (35, 25, 20),
    (80, 50, 30),
    (150, 95, 45),
    (225, 190, 110),
    (190, 190, 190),
    (140, 50, 30),
)
TROUSER_COLORS: tuple[Color, ...] = (
    (45, 50, 75),
    (70, 65, 60),
    (30, 30, 35),
    (110, 95, 75),
    (90, 110, 140),
)


class Look(NamedTuple):
    """What makes a person recognisable and carries no emotion."""

    skin: Color
    hair: Color
    top: Color
    trousers: Color
    long_hair: bool
    """Long hair and a dress."""
    side: int
    """1 as the expression says, -1 mirrored."""
    build: float


def random_look(rng: random.Random) -> Look:
    """Draw a look."""
    skin = SKIN_COLORS[int(rng.random() * len(SKIN_COLORS))]
    hair = HAIR_COLORS[int(rng.random() * len(HAIR_COLORS))]
    top = jitter(VIVID_COLORS[int(rng.random() * len(VIVID_COLORS))], rng, 25)
    trousers = jitter(TROUSER_COLORS[int(rng.random() * len(TROUSER_COLORS))], rng, 15)
    long_hair = rng.random() < 0.5
    side = 1 if rng.random() < 0.5 else -1
    return Look(skin, hair, top, trousers, long_hair, side, rng.uniform(0.9, 1.15))


class Expression(NamedTuple):
    """The 18 numbers of an expression, in the order of ``emotions.EXPRESSION_DIMENSIONS``."""

    brow_angle: float
    brow_height: float
    eye_opening: float
    mouth_curve: float
    mouth_opening: float
    mouth_width: float
    nose_wrinkle: float
    tears: float
    blush: float
    shrug: float
    lean: float
    crouch: float
    head_drop: float
    stance: float
    left_upper_arm: float
    left_forearm: float
    right_upper_arm: float
    right_forearm: float


# Beyond these limits shapes would cross or turn inside out; +-9 stands for no limit that matters.
LOWEST = Expression(-2, -2, 0.02, -1.3, 0, -1.5, -9, -9, -9, -1, -1.2, 0, -0.5, 0, -9, -9, -9, -9)
HIGHEST = Expression(2, 2, 1.7, 1.3, 1.2, 1.5, 9, 1.5, 1, 1.2, 1.2, 1, 1.2, 1.2, 9, 9, 9, 9)


def readable_expression(expression_D: npt.NDArray[np.float64], side: int) -> Expression:
    """The expression (18,) within the limits that can be drawn, mirrored where the side is -1."""
    pose = Expression(
        *(min(max(value, low), high) for value, low, high in zip(expression_D.tolist(), LOWEST, HIGHEST, strict=True))
    )
    if side > 0:
        return pose
    return pose._replace(
        lean=-pose.lean,
        left_upper_arm=pose.right_upper_arm,
        left_forearm=pose.right_forearm,
        right_upper_arm=pose.left_upper_arm,
        right_forearm=pose.left_forearm,
    )
