"""Scenes of towns and other built places outdoors: one painter a scene."""

from __future__ import annotations

import random

from ccim_ray.datasets.confounded_scenes.canvas import Canvas, Color, jitter, shade
from ccim_ray.datasets.confounded_scenes.furniture import SceneStyle, building, clouds, sky


def paint_street(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """House fronts, a pavement, a road with parked cars."""
    sky(canvas, style, 0.55, far_ground=(105, 105, 110), near_ground=(85, 85, 92))
    x = -0.05
    while x < 1.05:
        width = rng.uniform(0.12, 0.22)
        roof = rng.uniform(0.05, 0.3)
        wall = jitter((170, 140, 120), rng, 35)
        building(canvas, rng, (x, roof, x + width - 0.006, 0.55), wall, (200, 225, 245), lit=0.8)
        x += width
    canvas.rectangle(0, 0.55, 1, 0.61, (170, 168, 162))
    for k in range(5):
        canvas.rectangle(k * 0.22 + 0.03, 0.79, k * 0.22 + 0.14, 0.805, (240, 235, 200))
    for _ in range(2):
        _car_from_the_side(canvas, rng.random(), jitter((190, 60, 60), rng, 60))


def _car_from_the_side(canvas: Canvas, x: float, color: Color) -> None:
    canvas.rectangle(x - 0.12, 0.62, x + 0.12, 0.69, color)
    cabin = [(x - 0.08, 0.62), (x - 0.05, 0.565), (x + 0.05, 0.565), (x + 0.08, 0.62)]
    canvas.polygon(cabin, (60, 80, 100))
    canvas.ellipse(x - 0.07, 0.695, 0.025, 0.025, (25, 25, 25))
    canvas.ellipse(x + 0.07, 0.695, 0.025, 0.025, (25, 25, 25))


def paint_night_alley(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Brick walls at night, one lamp, a waste container."""
    canvas.backdrop(0.6, [(0, (14, 16, 34)), (0.6, (30, 30, 52)), (0.601, (34, 32, 38)), (1, (52, 48, 52))])
    for _ in range(12):
        canvas.ellipse(rng.random(), rng.uniform(0, 0.2), 0.004, 0.004, (220, 220, 200))
    canvas.ellipse(rng.uniform(0.35, 0.65), 0.1, 0.045, 0.045, (240, 238, 205))
    width = 0.26 + 0.08 * style.clutter
    brick = jitter((70, 42, 42), rng, 10)
    canvas.polygon([(0, 0), (width, 0.12), (width, 0.62), (0, 0.95)], brick)
    canvas.polygon([(1, 0), (1 - width, 0.12), (1 - width, 0.62), (1, 0.95)], shade(brick, 0.85))
    for k in range(5):
        y = 0.15 + 0.14 * k
        canvas.line(0, y, width, 0.12 + y * 0.62, 0.005, shade(brick, 0.6))
        canvas.line(1, y, 1 - width, 0.12 + y * 0.62, 0.005, shade(brick, 0.5))
    canvas.rectangle(0.08, 0.25, 0.15, 0.36, (230, 190, 80))
    _street_lamp(canvas, 1 - width + 0.03)
    x = rng.uniform(0.02, 0.2)
    canvas.rectangle(x, 0.68, x + 0.12, 0.86, (60, 75, 62))
    canvas.rectangle(x - 0.01, 0.66, x + 0.13, 0.69, (44, 56, 48))


def _street_lamp(canvas: Canvas, x: float) -> None:
    canvas.line(x, 0.72, x, 0.3, 0.012, (40, 40, 45))
    canvas.ellipse(x, 0.3, 0.045, 0.035, (255, 235, 150))
    cone = [(x - 0.03, 0.33), (x + 0.03, 0.33), (x + 0.14, 0.74), (x - 0.14, 0.74)]
    canvas.polygon(cone, (84, 78, 62))


def paint_market(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Stalls with striped awnings and fruit before a long house."""
    sky(canvas, style, 0.5, far_ground=(170, 150, 125), near_ground=(190, 170, 140))
    building(canvas, rng, (0, 0.02, 1, 0.4), (205, 180, 150), lit=0.2)
    awnings: tuple[Color, ...] = ((200, 60, 50), (60, 130, 80), (230, 170, 50), (60, 100, 180))
    for k, awning in enumerate(awnings):
        _stall(canvas, rng, k * 0.26 - 0.02, jitter(awning, rng, 20))


def _stall(canvas: Canvas, rng: random.Random, x: float, awning: Color) -> None:
    for j in range(5):
        strip = [
            (x + j * 0.046, 0.3),
            (x + (j + 1) * 0.046, 0.3),
            (x + (j + 1) * 0.05 - 0.01, 0.42),
            (x + j * 0.05 - 0.01, 0.42),
        ]
        canvas.polygon(strip, awning if j % 2 == 0 else (245, 240, 230))
    canvas.rectangle(x, 0.56, x + 0.22, 0.68, (140, 95, 55))
    fruits: tuple[Color, ...] = ((225, 80, 50), (240, 180, 40), (110, 170, 60), (190, 60, 100))
    fruit = jitter(fruits[int(rng.random() * 4)], rng)
    for j in range(6):
        canvas.ellipse(x + 0.02 + j * 0.036, 0.555, 0.02, 0.02, fruit)
    canvas.rectangle(x, 0.4, x + 0.01, 0.6, (110, 80, 50))


def paint_playground(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Swings and a slide on sand."""
    sky(canvas, style, 0.45, far_ground=(150, 185, 100), near_ground=(215, 185, 130))
    clouds(canvas, rng)
    _swings(canvas, rng.uniform(0.02, 0.25))
    _slide(canvas, rng.uniform(0.6, 0.72))


def _swings(canvas: Canvas, x: float) -> None:
    red = (220, 60, 60)
    canvas.line(x, 0.7, x + 0.07, 0.22, 0.022, red)
    canvas.line(x + 0.3, 0.7, x + 0.23, 0.22, 0.022, red)
    canvas.line(x + 0.06, 0.22, x + 0.24, 0.22, 0.022, (60, 110, 210))
    for offset in (0.11, 0.19):
        canvas.line(x + offset, 0.22, x + offset, 0.52, 0.006, (70, 70, 70))
        canvas.rectangle(x + offset - 0.03, 0.52, x + offset + 0.03, 0.54, (250, 200, 50))


def _slide(canvas: Canvas, x: float) -> None:
    blue = (60, 110, 210)
    canvas.polygon([(x, 0.3), (x + 0.05, 0.3), (x + 0.28, 0.75), (x + 0.2, 0.75)], (250, 200, 40))
    canvas.line(x, 0.3, x, 0.75, 0.015, blue)
    canvas.line(x - 0.06, 0.3, x - 0.06, 0.75, 0.015, blue)
    for k in range(5):
        canvas.line(x - 0.06, 0.36 + 0.08 * k, x, 0.36 + 0.08 * k, 0.012, blue)
    canvas.polygon([(x - 0.1, 0.3), (x + 0.05, 0.3), (x - 0.02, 0.2)], (220, 60, 60))


def paint_stadium(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Packed stands behind a mown pitch, floodlights."""
    grass = (60, 150, 60)
    canvas.backdrop(
        0.55,
        [
            (0, (60, 80, 130)),
            (0.14, (120, 150, 200)),
            (0.15, (90, 90, 105)),
            (0.55, (70, 70, 85)),
            (0.551, grass),
            (1, shade(grass, 0.85)),
        ],
    )
    shirts: tuple[Color, ...] = ((210, 50, 50), (240, 240, 240), (50, 70, 180), (240, 200, 60))
    for row in range(8):
        y = 0.17 + 0.045 * row
        for k in range(22):
            x = (k + 0.1 * (row % 3)) / 22
            canvas.rectangle(x, y, x + 0.026, y + 0.026, shirts[int(rng.random() * 4)])
    for k in range(5):
        canvas.rectangle(k * 0.2, 0.55, k * 0.2 + 0.1, 1, shade(grass, 1.12))
    canvas.line(0, 0.72, 1, 0.72, 0.008, (245, 245, 245))
    _goal(canvas, rng.uniform(0.15, 0.7))
    for x in (0.06, 0.94):
        canvas.line(x, 0.17, x, 0.03, 0.012, (60, 60, 60))
        canvas.rectangle(x - 0.05, 0, x + 0.05, 0.05, (255, 255, 235))


def _goal(canvas: Canvas, x: float) -> None:
    white = (250, 250, 250)
    canvas.line(x, 0.66, x, 0.53, 0.008, white)
    canvas.line(x + 0.16, 0.66, x + 0.16, 0.53, 0.008, white)
    canvas.line(x, 0.53, x + 0.16, 0.53, 0.008, white)


def paint_construction_site(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A scaffold, a crane, warning cones and a barrier."""
    sky(canvas, style, 0.6, high=(150, 175, 200), far_ground=(165, 130, 90), near_ground=(150, 115, 75))
    x = rng.uniform(0.05, 0.4)
    for k in range(4):
        canvas.line(x + 0.13 * k, 0.6, x + 0.13 * k, 0.1, 0.014, (110, 100, 95))
        canvas.line(x, 0.12 + 0.13 * k, x + 0.4, 0.12 + 0.13 * k, 0.016, (140, 130, 125))
    _crane(canvas, rng.uniform(0.55, 0.9))
    for _ in range(4):
        x, y = rng.random(), rng.uniform(0.68, 0.85)
        canvas.polygon([(x - 0.03, y), (x + 0.03, y), (x, y - 0.09)], (245, 110, 30))
        canvas.rectangle(x - 0.018, y - 0.045, x + 0.018, y - 0.03, (250, 250, 250))
    for k in range(12):
        stripe = (245, 200, 30) if k % 2 else (30, 30, 30)
        canvas.rectangle(k * 0.085, 0.6, k * 0.085 + 0.043, 0.635, stripe)


def _crane(canvas: Canvas, x: float) -> None:
    yellow = (240, 185, 30)
    canvas.line(x, 0.6, x, 0.05, 0.022, yellow)
    canvas.line(x - 0.4, 0.08, x + 0.12, 0.08, 0.018, yellow)
    canvas.line(x - 0.33, 0.08, x - 0.33, 0.3, 0.005, (50, 50, 50))
    canvas.rectangle(x - 0.37, 0.3, x - 0.29, 0.34, (130, 130, 130))


def paint_parking_garage(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Concrete beams and pillars, parked cars, white lines."""
    stops = [(0.0, (92, 92, 96)), (0.49, (128, 128, 130)), (0.5, (98, 98, 102)), (1.0, (120, 120, 124))]
    canvas.backdrop(0.5, stops)
    for k in range(3):
        canvas.rectangle(0, 0.06 + 0.1 * k, 1, 0.075 + 0.1 * k, (76, 76, 80))
    for k in range(4):
        canvas.rectangle(0.1 + k * 0.27, 0.05, 0.15 + k * 0.27, 0.1, (250, 250, 225))
    for k in range(3):
        x = 0.05 + 0.42 * k
        canvas.rectangle(x, 0.05, x + 0.07, 0.66, (150, 150, 150))
        canvas.rectangle(x, 0.48, x + 0.07, 0.56, (235, 190, 50))
    for k in range(3):
        _car_from_the_front(canvas, 0.24 + 0.4 * k + rng.uniform(-0.05, 0.05), jitter((100, 110, 150), rng, 70))
    for k in range(6):
        offset = k / 5 - 0.5
        canvas.line(0.5 + offset * 1.1, 0.64, 0.5 + offset * 2.4, 1, 0.012, (235, 235, 230))


def _car_from_the_front(canvas: Canvas, x: float, color: Color) -> None:
    canvas.rectangle(x - 0.1, 0.5, x + 0.1, 0.58, color)
    canvas.rectangle(x - 0.075, 0.45, x + 0.075, 0.5, (50, 60, 75))
    canvas.rectangle(x - 0.095, 0.58, x - 0.05, 0.61, (25, 25, 25))
    canvas.rectangle(x + 0.05, 0.58, x + 0.095, 0.61, (25, 25, 25))
    canvas.ellipse(x - 0.075, 0.54, 0.015, 0.012, (250, 245, 200))
    canvas.ellipse(x + 0.075, 0.54, 0.015, 0.012, (250, 245, 200))


def paint_cemetery(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Gravestones, crosses and a bare tree."""
    sky(canvas, style, 0.5, (110, 120, 135), (175, 180, 185), (95, 115, 80), (80, 100, 65))
    bark = (60, 50, 45)
    x = rng.uniform(0.05, 0.9)
    canvas.line(x, 0.6, x + 0.02, 0.15, 0.028, bark)
    for reach in (-1, -0.5, 0.4, 1):
        canvas.line(x + 0.015, 0.32, x + 0.015 + 0.15 * reach, 0.14 + 0.05 * abs(reach), 0.01, bark)
    for k in range(9):
        x, y, size = rng.random(), 0.54 + 0.038 * k, 0.05 + 0.006 * k
        stone = jitter((150, 150, 152), rng, 15)
        grave = _cross if rng.random() < 0.35 else _gravestone
        grave(canvas, x, y, size, stone)


def _cross(canvas: Canvas, x: float, y: float, size: float, stone: Color) -> None:
    canvas.rectangle(x - 0.012, y - size * 1.6, x + 0.012, y, stone)
    canvas.rectangle(x - size * 0.5, y - size * 1.2, x + size * 0.5, y - size * 1.2 + 0.02, stone)


def _gravestone(canvas: Canvas, x: float, y: float, size: float, stone: Color) -> None:
    canvas.rectangle(x - size * 0.6, y - size * 0.9, x + size * 0.6, y, stone)
    canvas.ellipse(x, y - size * 0.9, size * 0.6, size * 0.5, stone)
    canvas.line(x - size * 0.3, y - size * 0.6, x + size * 0.3, y - size * 0.6, 0.006, (100, 100, 102))


def paint_train_platform(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A standing train, rails, the yellow line, a sign and a clock."""
    canvas.backdrop(
        0.5,
        [
            (0, (70, 75, 85)),
            (0.16, (96, 100, 110)),
            (0.5, (150, 155, 160)),
            (0.501, (60, 58, 60)),
            (0.66, (72, 70, 70)),
            (0.661, (160, 160, 158)),
            (1, (178, 178, 174)),
        ],
    )
    _train(canvas, rng.uniform(-0.3, 0.1), jitter((40, 90, 160), rng, 30))
    canvas.rectangle(0, 0.661, 1, 0.69, (245, 205, 40))
    canvas.line(0, 0.6, 1, 0.6, 0.012, (130, 110, 100))
    canvas.line(0, 0.64, 1, 0.64, 0.012, (130, 110, 100))
    canvas.rectangle(0, 0.06, 1, 0.11, (50, 55, 62))
    x = rng.uniform(0.2, 0.6)
    canvas.rectangle(x, 0.1, x + 0.25, 0.18, (20, 25, 40))
    canvas.rectangle(x + 0.02, 0.125, x + 0.18, 0.14, (250, 170, 40))
    canvas.ellipse(0.85, 0.15, 0.04, 0.04, (245, 245, 245))
    canvas.line(0.85, 0.15, 0.85, 0.12, 0.006, (0, 0, 0))
    canvas.line(0.85, 0.15, 0.87, 0.15, 0.006, (0, 0, 0))


def _train(canvas: Canvas, x: float, color: Color) -> None:
    canvas.rectangle(x, 0.2, x + 1.0, 0.58, color)
    canvas.rectangle(x, 0.46, x + 1.0, 0.5, (240, 240, 240))
    for k in range(6):
        canvas.rectangle(x + 0.04 + k * 0.165, 0.26, x + 0.15 + k * 0.165, 0.4, (185, 215, 235))


def paint_ruins(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Burning ruins, rubble and smoke."""
    canvas.backdrop(
        0.58,
        [
            (0, (70, 52, 50)),
            (0.35, (150, 85, 55)),
            (0.58, (205, 120, 60)),
            (0.581, (85, 72, 66)),
            (1, (70, 60, 56)),
        ],
    )
    for _ in range(5):
        x, width, top = rng.random(), rng.uniform(0.1, 0.2), rng.uniform(0.15, 0.4)
        _broken_wall(canvas, x, width, top, jitter((55, 46, 46), rng, 8))
    for _ in range(6):
        _flame(canvas, rng.random(), rng.uniform(0.06, 0.14))
    for _ in range(9):
        x, y = rng.random(), rng.uniform(0.66, 0.95)
        canvas.polygon([(x - 0.06, y), (x - 0.01, y - 0.05), (x + 0.06, y)], jitter((105, 95, 90), rng, 12))
    for _ in range(3):
        canvas.ellipse(rng.random(), 0.08, 0.16, 0.06, (52, 44, 46))


def _broken_wall(canvas: Canvas, x: float, width: float, top: float, color: Color) -> None:
    edge = ((0, 0), (0.3, 0.09), (0.5, -0.03), (0.8, 0.12), (1, 0.05))
    outline = [(x, 0.6), *((x + along * width, top + drop) for along, drop in edge), (x + width, 0.6)]
    canvas.polygon(outline, color)
    canvas.rectangle(x + width * 0.3, top + 0.18, x + width * 0.55, top + 0.25, (230, 120, 40))


def _flame(canvas: Canvas, x: float, size: float) -> None:
    flame = canvas.at(x, 0.62, size)
    tongues = [(-0.6, 0), (-0.3, -1.2), (-0.1, -0.7), (0.1, -1.9), (0.35, -0.8), (0.6, 0)]
    flame.polygon(tongues, (245, 120, 30))
    flame.polygon([(-0.3, 0), (0, -1.0), (0.3, 0)], (255, 215, 70))
