"""Pieces that several scenes share: sky, trees, houses, rooms, tables, crowds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from ccim_ray.datasets.confounded_scenes.canvas import Canvas, Color, mix, shade

STEP = 1e-3  # distance between two gradient stops that make a hard edge


class SceneStyle(NamedTuple):
    """What varies continuously within a scene; every value lies in [0, 1]."""

    dusk: float
    """Time of day: 0 is noon."""
    horizon: float
    """How low the horizon or the floor line lies."""
    tint: float
    """Hue of the scene's main color."""
    clutter: float
    """How much stands around."""


def sky(
    canvas: Canvas,
    style: SceneStyle,
    horizon: float,
    high: Color = (96, 160, 230),
    low: Color = (200, 225, 245),
    far_ground: Color = (110, 170, 80),
    near_ground: Color = (80, 140, 60),
) -> None:
    """Fill the picture with a sky that turns to dusk, and the ground under it."""
    high = mix(high, (70, 90, 150), 0.5 * style.dusk)
    low = mix(low, (235, 170, 120), 0.6 * style.dusk * style.dusk)
    canvas.backdrop(horizon, [(0, high), (horizon, low), (horizon + STEP, far_ground), (1, near_ground)])


def clouds(canvas: Canvas, rng: random.Random, count: int = 3) -> None:
    """Clouds above the horizon."""
    for _ in range(count):
        x, y, size = rng.random(), rng.uniform(0.04, canvas.horizon * 0.6), rng.uniform(0.05, 0.11)
        for k in (-1, 0, 1):
            canvas.ellipse(x + k * size * 0.8, y + abs(k) * size * 0.2, size * 0.8, size * 0.4, (245, 247, 250))


def leafy_tree(canvas: Canvas, x: float, y: float, height: float, leaf: Color) -> None:
    """A tree with a round crown whose foot is at (x, y)."""
    tree = canvas.at(x, y, height)
    _trunk(canvas, x, y, height)
    tree.ellipse(0, -0.68, 0.30, 0.32, leaf)
    tree.ellipse(-0.16, -0.52, 0.2, 0.2, shade(leaf, 0.88))
    tree.ellipse(0.17, -0.55, 0.19, 0.2, shade(leaf, 1.1))


def pine_tree(canvas: Canvas, x: float, y: float, height: float, leaf: Color) -> None:
    """A conifer whose foot is at (x, y)."""
    tree = canvas.at(x, y, height)
    _trunk(canvas, x, y, height)
    for k in range(3):
        base, half = -0.25 - k * 0.25, 0.30 - 0.07 * k
        tree.polygon([(-half, base), (half, base), (0, base - 0.38)], shade(leaf, 1 - 0.1 * k))


def _trunk(canvas: Canvas, x: float, y: float, height: float) -> None:
    canvas.rectangle(x - height * 0.05, y - height * 0.4, x + height * 0.05, y, (100, 70, 40))


def building(
    canvas: Canvas,
    rng: random.Random,
    corners: tuple[float, float, float, float],
    wall: Color,
    window_color: Color = (250, 235, 170),
    lit: float = 0.6,
) -> None:
    """A house front with a grid of windows, a ``lit`` share of which is bright."""
    x1, y1, x2, y2 = corners
    canvas.rectangle(x1, y1, x2, y2, wall)
    columns, floors = max(1, int((x2 - x1) / 0.06)), max(1, int((y2 - y1) / 0.09))
    width, height = (x2 - x1) / columns, (y2 - y1) / floors
    for i in range(columns):
        for j in range(floors):
            canvas.rectangle(
                x1 + (i + 0.25) * width,
                y1 + (j + 0.25) * height,
                x1 + (i + 0.7) * width,
                y1 + (j + 0.7) * height,
                window_color if rng.random() < lit else (70, 80, 100),
            )


def room(canvas: Canvas, style: SceneStyle, wall: Color, floor: Color, floor_line: float | None = None) -> None:
    """Fill the picture with a wall and a floor; without ``floor_line`` the style says where they meet."""
    horizon = 0.58 + 0.1 * style.horizon if floor_line is None else floor_line
    canvas.backdrop(
        horizon,
        [
            (0, shade(wall, 1.05)),
            (horizon, shade(wall, 0.92)),
            (horizon + STEP, shade(floor, 0.85)),
            (1, floor),
        ],
    )
    canvas.rectangle(0, horizon - 0.012, 1, horizon + 0.004, shade(wall, 0.7))


def window(canvas: Canvas, x: float, y: float, width: float, height: float, view: Color = (170, 215, 245)) -> None:
    """A window of four panes with its upper left corner at (x, y)."""
    frame, border = (245, 245, 240), 0.012
    canvas.rectangle(x, y, x + width, y + height, frame)
    canvas.rectangle(x + border, y + border, x + width - border, y + height - border, view)
    canvas.line(x + width / 2, y, x + width / 2, y + height, border, frame)
    canvas.line(x, y + height / 2, x + width, y + height / 2, border, frame)


def planks(canvas: Canvas, color: Color) -> None:
    """Floor boards that run towards the viewer."""
    for k in range(8):
        offset = k / 7 - 0.5
        canvas.line(0.5 + offset * 0.5, canvas.horizon, 0.5 + offset * 2.4, 1, 0.006, color)


def tiles(canvas: Canvas, corners: tuple[float, float, float, float], columns: int, rows: int, color: Color) -> None:
    """The joints of a grid of tiles."""
    x1, y1, x2, y2 = corners
    for i in range(columns + 1):
        x = x1 + (x2 - x1) * i / columns
        canvas.line(x, y1, x, y2, 0.005, color)
    for j in range(rows + 1):
        y = y1 + (y2 - y1) * j / rows
        canvas.line(x1, y, x2, y, 0.005, color)


def table(canvas: Canvas, x: float, y: float, width: float, height: float, color: Color) -> None:
    """A table that stands on y, seen from the side, centered at x."""
    left, right, leg = x - width / 2, x + width / 2, shade(color, 0.75)
    canvas.rectangle(left, y - height, right, y - height + 0.025, color)
    canvas.rectangle(left + 0.01, y - height, left + 0.03, y, leg)
    canvas.rectangle(right - 0.03, y - height, right - 0.01, y, leg)


def chair(canvas: Canvas, x: float, y: float, height: float, color: Color) -> None:
    """A chair that stands on y, seen from the side."""
    seat = canvas.at(x, y, height)
    seat.rectangle(-0.25, -1, -0.18, 0, color)
    seat.rectangle(-0.25, -0.5, 0.25, -0.42, color)
    seat.rectangle(0.18, -0.5, 0.25, 0, shade(color, 0.8))
    seat.rectangle(-0.25, -1, -0.12, -0.6, color)


def crowd(canvas: Canvas, rng: random.Random, y: float, count: int, size: float, clothes: Sequence[Color]) -> None:
    """A row of spectators without faces, seen from the shoulders up; nobody of them is annotated."""
    for k in range(count):
        x = (k + rng.random()) / count
        color = clothes[int(rng.random() * len(clothes))]
        canvas.ellipse(x, y, size * 0.45, size * 0.5, (225, 180, 150))
        canvas.ellipse(x, y + size, size * 0.75, size * 0.6, color)
