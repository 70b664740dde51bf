"""The 16 objects that stand around in the embedded world.

Every object is drawn in its own frame: the origin is the middle of its foot, one unit is its size.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ccim_ray.datasets.confounded_scenes.canvas import Color, Frame, jitter, shade

VIVID_COLORS: tuple[Color, ...] = (
    (200, 50, 50),
    (50, 90, 180),
    (60, 150, 80),
    (240, 190, 60),
    (120, 60, 150),
    (240, 240, 240),
    (50, 55, 65),
    (230, 120, 50),
    (70, 170, 180),
    (190, 90, 130),
)
"""Colors of things and of clothes."""

INK: Color = (30, 30, 30)
WHITE: Color = (255, 255, 255)
RIBBON: Color = (255, 240, 120)


def _ball(frame: Frame, color: Color) -> None:
    frame.ellipse(0, -0.35, 0.35, 0.35, color)
    frame.ellipse(-0.1, -0.45, 0.12, 0.1, WHITE)
    frame.line(-0.35, -0.35, 0.35, -0.35, 0.06, INK)


def _balloon(frame: Frame, color: Color) -> None:
    frame.line(0, 0, 0, -1, 0.03, (90, 90, 90))
    frame.ellipse(0, -1.3, 0.32, 0.4, color)
    frame.ellipse(-0.1, -1.45, 0.07, 0.1, WHITE)


def _umbrella(frame: Frame, color: Color) -> None:
    frame.line(0, 0, 0, -0.9, 0.06, (60, 50, 45))
    frame.pie((-0.6, -1.3, 0.6, -0.3), 180, 360, color)


def _dog(frame: Frame, color: Color) -> None:
    fur = (150, 100, 60)
    frame.ellipse(0, -0.4, 0.4, 0.2, fur)
    frame.ellipse(0.42, -0.62, 0.18, 0.17, fur)
    frame.ellipse(0.6, -0.58, 0.1, 0.07, shade(fur, 0.8))
    for x in (-0.35, -0.2, 0.12, 0.26):
        frame.rectangle(x, -0.35, x + 0.1, 0, fur)
    frame.line(-0.38, -0.45, -0.55, -0.75, 0.08, fur)
    frame.ellipse(0.33, -0.72, 0.07, 0.13, shade(fur, 0.6))


def _cat(frame: Frame, color: Color) -> None:
    fur, eye = (90, 90, 95), (220, 230, 80)
    frame.ellipse(0, -0.35, 0.25, 0.35, fur)
    frame.ellipse(0, -0.8, 0.2, 0.18, fur)
    frame.polygon([(-0.2, -0.85), (-0.15, -1.12), (-0.02, -0.92)], fur)
    frame.polygon([(0.2, -0.85), (0.15, -1.12), (0.02, -0.92)], fur)
    frame.line(0.2, -0.1, 0.5, -0.5, 0.08, fur)
    frame.ellipse(-0.08, -0.82, 0.04, 0.05, eye)
    frame.ellipse(0.08, -0.82, 0.04, 0.05, eye)


def _bicycle(frame: Frame, color: Color) -> None:
    for x in (-0.45, 0.45):
        frame.ring(x, -0.32, 0.32, 0.06, INK)
    frame.line(-0.45, -0.32, 0, -0.32, 0.06, color)
    frame.line(0, -0.32, 0.3, -0.75, 0.06, color)
    frame.line(-0.45, -0.32, -0.2, -0.75, 0.06, color)
    frame.line(-0.2, -0.75, 0.3, -0.75, 0.06, color)
    frame.line(0.45, -0.32, 0.28, -0.9, 0.06, color)
    frame.line(0.18, -0.92, 0.42, -0.92, 0.06, INK)
    frame.rectangle(-0.32, -0.84, -0.08, -0.78, INK)


def _suitcase(frame: Frame, color: Color) -> None:
    frame.rectangle(-0.3, -0.7, 0.3, 0, color)
    frame.rectangle(-0.2, -0.7, -0.15, 0, shade(color, 0.7))
    frame.rectangle(0.15, -0.7, 0.2, 0, shade(color, 0.7))
    frame.outline(-0.12, -0.95, 0.12, -0.7, 0.05, (40, 40, 40))


def _gift(frame: Frame, color: Color) -> None:
    frame.rectangle(-0.35, -0.6, 0.35, 0, color)
    frame.rectangle(-0.07, -0.6, 0.07, 0, RIBBON)
    frame.rectangle(-0.35, -0.38, 0.35, -0.26, RIBBON)
    frame.ellipse(-0.14, -0.68, 0.14, 0.1, RIBBON)
    frame.ellipse(0.14, -0.68, 0.14, 0.1, RIBBON)


def _guitar(frame: Frame, color: Color) -> None:
    wood = (190, 115, 50)
    frame.ellipse(0, -0.28, 0.28, 0.26, wood)
    frame.ellipse(0, -0.6, 0.2, 0.19, wood)
    frame.ellipse(0, -0.42, 0.09, 0.09, (40, 25, 15))
    frame.line(0, -0.6, 0, -1.35, 0.08, (90, 55, 30))
    frame.rectangle(-0.09, -1.5, 0.09, -1.33, (60, 35, 20))


def _book(frame: Frame, color: Color) -> None:
    cover = [(-0.45, -0.1), (0, 0), (0.45, -0.1), (0.45, -0.45), (0, -0.33), (-0.45, -0.45)]
    frame.polygon(cover, color)
    frame.polygon([(-0.4, -0.15), (0, -0.06), (0, -0.37), (-0.4, -0.46)], (250, 248, 240))
    frame.polygon([(0.4, -0.15), (0, -0.06), (0, -0.37), (0.4, -0.46)], (238, 235, 225))


def _bottle(frame: Frame, color: Color) -> None:
    glass = (50, 110, 60)
    frame.rectangle(-0.15, -0.6, 0.15, 0, glass)
    frame.rectangle(-0.06, -0.9, 0.06, -0.6, glass)
    frame.rectangle(-0.15, -0.42, 0.15, -0.18, (240, 230, 200))


def _plant(frame: Frame, color: Color) -> None:
    frame.polygon([(-0.22, -0.35), (0.22, -0.35), (0.15, 0), (-0.15, 0)], (180, 95, 60))
    for x, height in ((-0.35, 0.4), (-0.15, 0.65), (0.1, 0.7), (0.35, 0.45)):
        tip = -0.33 - height
        frame.polygon([(0, -0.33), (x - 0.08, tip), (x + 0.06, tip)], (50, 135, 60))


def _flower(frame: Frame, color: Color) -> None:
    frame.line(0, 0, 0, -0.7, 0.06, (70, 130, 60))
    for k in range(5):
        angle = k * math.tau / 5
        frame.ellipse(0.17 * math.cos(angle), -0.8 + 0.17 * math.sin(angle), 0.13, 0.13, color)
    frame.ellipse(0, -0.8, 0.1, 0.1, (250, 210, 60))


def _snake(frame: Frame, color: Color) -> None:
    skin, tongue = (90, 150, 40), (220, 40, 40)
    frame.polyline([(-0.6 + 0.2 * k, -0.1 - 0.18 * (k % 2)) for k in range(6)], 0.13, skin, rounded=True)
    frame.polyline([(0.4, -0.28), (0.5, -0.55)], 0.13, skin)
    frame.ellipse(0.53, -0.6, 0.14, 0.1, skin)
    frame.ellipse(0.57, -0.63, 0.03, 0.03, (255, 60, 40))
    frame.line(0.66, -0.6, 0.82, -0.62, 0.03, tongue)


def _broken_vase(frame: Frame, color: Color) -> None:
    clay = (90, 140, 190)
    shards = [(-0.4, 0), (-0.3, -0.3), (-0.12, -0.12), (0, -0.4), (0.1, -0.1), (0.28, -0.35), (0.42, 0)]
    frame.polygon(shards, clay)
    frame.polygon([(-0.6, -0.02), (-0.5, -0.14), (-0.44, 0)], clay)
    frame.polygon([(0.5, 0), (0.62, -0.18), (0.68, 0)], (70, 115, 165))
    frame.ellipse(0.05, 0.02, 0.5, 0.05, (120, 170, 210))


def _trash(frame: Frame, color: Color) -> None:
    bag, smell = (45, 60, 45), (130, 160, 60)
    frame.ellipse(0, -0.3, 0.38, 0.32, bag)
    frame.polygon([(-0.1, -0.55), (0.1, -0.55), (0.16, -0.78), (-0.16, -0.78)], bag)
    frame.ellipse(0.4, -0.06, 0.1, 0.06, (150, 120, 50))
    frame.ellipse(-0.42, -0.05, 0.08, 0.05, (190, 180, 90))
    frame.line(-0.15, -0.95, -0.1, -1.15, 0.03, smell)
    frame.line(0.12, -0.95, 0.17, -1.15, 0.03, smell)


_DRAWINGS: Mapping[str, Callable[[Frame, Color], None]] = MappingProxyType(
    {
        "ball": _ball,
        "balloon": _balloon,
        "umbrella": _umbrella,
        "dog": _dog,
        "cat": _cat,
        "bicycle": _bicycle,
        "suitcase": _suitcase,
        "gift": _gift,
        "guitar": _guitar,
        "book": _book,
        "bottle": _bottle,
        "plant": _plant,
        "flower": _flower,
        "snake": _snake,
        "vase": _broken_vase,
        "trash": _trash,
    }
)

OBJECT_NAMES: tuple[str, ...] = tuple(_DRAWINGS)
"""Names of the objects; a scenario refers to an object by its index here."""


def draw_object(frame: Frame, name: str, x: float, y: float, size: float, rng: random.Random) -> None:
    """Draw the object ``name`` standing on (x, y) in a color drawn from ``rng``."""
    color = jitter(VIVID_COLORS[int(rng.random() * len(VIVID_COLORS))], rng)
    _DRAWINGS[name](frame.at(x, y, size), color)
