"""Scenes of places where people go out to: one painter a scene."""

from __future__ import annotations

import math
import random

from ccim_ray.datasets.confounded_scenes.canvas import Canvas, Color, jitter, mix, shade
from ccim_ray.datasets.confounded_scenes.furniture import (
    SceneStyle,
    chair,
    crowd,
    planks,
    room,
    table,
    tiles,
    window,
)

NEON: tuple[Color, ...] = ((255, 60, 180), (60, 220, 255), (255, 230, 60), (120, 90, 255))
DANCE_FLOOR: tuple[Color, ...] = ((255, 60, 180), (60, 220, 255), (255, 230, 60), (90, 255, 120))
PARTY: tuple[Color, ...] = ((230, 60, 70), (60, 120, 220), (250, 200, 50), (90, 190, 100), (220, 110, 200))
STAINED_GLASS: tuple[Color, ...] = ((200, 50, 60), (50, 90, 190), (240, 190, 60), (70, 150, 90))
GOODS: tuple[Color, ...] = (
    (225, 60, 50),
    (250, 190, 40),
    (60, 140, 210),
    (90, 180, 80),
    (240, 240, 240),
    (180, 80, 160),
)


def paint_restaurant(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Laid tables under hanging lamps."""
    room(canvas, style, jitter((150, 75, 65), rng, 15), (105, 70, 50))
    for k in range(3):
        x = 0.18 + 0.32 * k
        canvas.line(x, 0, x, 0.12, 0.006, (40, 30, 30))
        canvas.polygon([(x - 0.06, 0.17), (x + 0.06, 0.17), (x + 0.02, 0.11), (x - 0.02, 0.11)], (250, 205, 110))
        canvas.ellipse(x, 0.18, 0.025, 0.02, (255, 245, 200))
    canvas.rectangle(0.05, 0.24, 0.25, 0.4, (200, 165, 90))
    canvas.rectangle(0.065, 0.255, 0.235, 0.385, jitter((110, 130, 120), rng, 30))
    for k in range(3):
        _laid_table(canvas, 0.16 + 0.34 * k, canvas.horizon + 0.13)


def _laid_table(canvas: Canvas, x: float, y: float) -> None:
    canvas.ellipse(x, y - 0.06, 0.14, 0.035, (248, 245, 238))
    cloth = [(x - 0.14, y - 0.06), (x + 0.14, y - 0.06), (x + 0.11, y + 0.06), (x - 0.11, y + 0.06)]
    canvas.polygon(cloth, (238, 232, 222))
    canvas.ellipse(x, y - 0.065, 0.05, 0.014, (220, 225, 230))
    canvas.ellipse(x, y - 0.068, 0.025, 0.009, (190, 100, 50))
    canvas.rectangle(x + 0.07, y - 0.12, x + 0.085, y - 0.06, (120, 25, 45))
    chair(canvas, x - 0.17, y + 0.07, 0.2, (85, 50, 30))


def paint_nightclub(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Neon beams, a mirror ball, a crowd, a glowing floor."""
    walls: tuple[Color, ...] = ((120, 20, 130), (30, 40, 150), (150, 20, 70))
    wall = walls[int(rng.random() * 3)]
    stops = [(0.0, (18, 8, 34)), (0.6, shade(wall, 0.6)), (0.601, (25, 15, 40)), (1.0, (45, 25, 65))]
    canvas.backdrop(0.62, stops)
    for k in range(6):
        x = (k + 0.5) / 6
        light = NEON[int(rng.random() * 4)]
        foot = x + rng.uniform(-0.3, 0.3)
        beam = [(x - 0.01, 0), (x + 0.01, 0), (foot + 0.07, 0.62), (foot - 0.07, 0.62)]
        canvas.polygon(beam, mix((25, 12, 45), light, 0.45))
        canvas.ellipse(x, 0.02, 0.025, 0.02, light)
    _mirror_ball(canvas, rng, rng.uniform(0.35, 0.65))
    crowd(canvas, rng, 0.56, 8, 0.07, clothes=((40, 20, 60), (60, 25, 80), (30, 25, 70)))
    for k in range(8):
        for j in range(3):
            _floor_light(canvas, k, j, mix((30, 15, 50), DANCE_FLOOR[int(rng.random() * 4)], 0.55))


def _mirror_ball(canvas: Canvas, rng: random.Random, x: float) -> None:
    canvas.ellipse(x, 0.13, 0.07, 0.07, (190, 195, 215))
    for _ in range(8):
        glint_x, glint_y = x + rng.uniform(-0.05, 0.05), 0.13 + rng.uniform(-0.05, 0.05)
        canvas.ellipse(glint_x, glint_y, 0.012, 0.01, (250, 250, 255))


def _floor_light(canvas: Canvas, column: int, row: int, color: Color) -> None:
    left, right = column / 8 - 0.5, (column + 1) / 8 - 0.5
    far_width, near_width = 1.2 + 0.5 * row, 1.7 + 0.5 * row
    far, near = 0.68 + 0.11 * row, 0.79 + 0.11 * row
    corners = [
        (0.5 + left * far_width, far),
        (0.5 + right * far_width, far),
        (0.5 + right * near_width, near),
        (0.5 + left * near_width, near),
    ]
    canvas.polygon(corners, color)


def paint_party_room(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Bunting, balloons, a cake on a table, confetti."""
    room(canvas, style, jitter((250, 225, 180), rng, 12), (200, 160, 120))
    floor = canvas.horizon
    for k in range(11):
        x = k / 10
        y = 0.07 + 0.06 * math.sin(x * math.pi)
        canvas.polygon([(x - 0.04, y), (x + 0.04, y), (x, y + 0.08)], PARTY[k % 5])
    for _ in range(8):
        x, y = rng.random(), rng.uniform(0.18, 0.42)
        canvas.line(x, y + 0.05, x + 0.02, y + 0.2, 0.004, (120, 120, 120))
        canvas.ellipse(x, y, 0.045, 0.058, PARTY[int(rng.random() * 5)])
    x = rng.uniform(0.25, 0.75)
    table(canvas, x, floor + 0.16, 0.5, 0.16, (245, 240, 235))
    _cake(canvas, x, floor)
    for k in range(25):
        canvas.ellipse(rng.random(), rng.uniform(floor, 1), 0.008, 0.006, PARTY[k % 5])


def _cake(canvas: Canvas, x: float, y: float) -> None:
    canvas.rectangle(x - 0.09, y - 0.08, x + 0.09, y, (245, 190, 200))
    canvas.rectangle(x - 0.06, y - 0.14, x + 0.06, y - 0.08, (255, 235, 240))
    for k in range(4):
        candle = x - 0.046 + 0.03 * k
        canvas.rectangle(candle - 0.004, y - 0.18, candle + 0.004, y - 0.14, PARTY[k])
        canvas.ellipse(candle, y - 0.19, 0.008, 0.012, (255, 200, 60))


def paint_church(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Stained glass, an altar with a cross and candles, pews along a red carpet."""
    room(canvas, style, jitter((205, 195, 180), rng, 8), (150, 110, 85))
    floor = canvas.horizon
    for x in (0.08, 0.3, 0.7, 0.92):
        _church_window(canvas, rng, x, floor)
    canvas.rectangle(0.48, 0.08, 0.52, 0.42, (120, 80, 30))
    canvas.rectangle(0.42, 0.16, 0.58, 0.2, (120, 80, 30))
    canvas.rectangle(0.36, floor - 0.14, 0.64, floor + 0.02, (245, 240, 230))
    canvas.rectangle(0.34, floor - 0.16, 0.66, floor - 0.13, (200, 170, 90))
    for x in (0.4, 0.6):
        canvas.rectangle(x - 0.008, floor - 0.24, x + 0.008, floor - 0.16, (250, 248, 240))
        canvas.ellipse(x, floor - 0.255, 0.01, 0.016, (255, 200, 80))
    canvas.polygon([(0.44, floor + 0.02), (0.56, floor + 0.02), (0.72, 1), (0.28, 1)], (170, 35, 45))
    for k in range(3):
        y = floor + 0.1 + 0.11 * k
        canvas.rectangle(-0.02, y, 0.3 - 0.05 * k, y + 0.05, (105, 65, 35))
        canvas.rectangle(0.7 + 0.05 * k, y, 1.02, y + 0.05, (105, 65, 35))


def _church_window(canvas: Canvas, rng: random.Random, x: float, floor: float) -> None:
    canvas.rectangle(x - 0.07, 0.15, x + 0.07, floor - 0.12, (90, 80, 75))
    canvas.ellipse(x, 0.15, 0.07, 0.09, (90, 80, 75))
    for j in range(3):
        for i in range(2):
            left, top = x - 0.055 + 0.058 * i, 0.12 + 0.1 * j
            canvas.rectangle(left, top, left + 0.052, top + 0.08, STAINED_GLASS[int(rng.random() * 4)])


def paint_gym(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Treadmills before a mirror, a rack of dumbbells, a barbell."""
    room(canvas, style, jitter((90, 100, 115), rng, 10), (60, 62, 68))
    floor = canvas.horizon
    canvas.rectangle(0.03, 0.12, 0.6, floor - 0.1, (170, 190, 205))
    canvas.line(0.31, 0.12, 0.31, floor - 0.1, 0.008, (110, 120, 130))
    canvas.rectangle(0.66, 0.14, 0.97, 0.2, (230, 80, 40))
    for k in range(3):
        x = 0.12 + 0.2 * k
        canvas.rectangle(x, floor + 0.02, x + 0.15, floor + 0.05, (30, 30, 34))
        canvas.line(x + 0.13, floor + 0.03, x + 0.15, floor - 0.16, 0.014, (50, 50, 55))
        canvas.rectangle(x + 0.1, floor - 0.18, x + 0.17, floor - 0.13, (40, 160, 200))
    for j in range(2):
        y = floor - 0.17 + 0.1 * j
        canvas.rectangle(0.66, y, 0.98, y + 0.02, (140, 140, 145))
        for k in range(5):
            canvas.ellipse(0.69 + 0.065 * k, y - 0.015, 0.02, 0.022, (20, 20, 22))
    x, y = rng.uniform(0.3, 0.8), floor + 0.2
    canvas.line(x - 0.2, y, x + 0.2, y, 0.012, (190, 190, 195))
    canvas.ellipse(x - 0.18, y, 0.025, 0.07, (160, 40, 40))
    canvas.ellipse(x + 0.18, y, 0.025, 0.07, (160, 40, 40))


def paint_museum(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Framed paintings behind a rope, a bust on a pedestal."""
    room(canvas, style, jitter((240, 236, 228), rng, 6), (190, 165, 130))
    planks(canvas, (170, 145, 110))
    floor = canvas.horizon
    for k in range(3):
        _painting(canvas, rng, 0.04 + 0.33 * k)
    for k in range(5):
        x = 0.1 + 0.2 * k
        canvas.rectangle(x - 0.006, floor + 0.03, x + 0.006, floor + 0.15, (190, 160, 60))
        if k < 4:
            canvas.line(x, floor + 0.06, x + 0.2, floor + 0.09, 0.01, (150, 30, 40))
    x = rng.choice((0.05, 0.88))
    canvas.rectangle(x, floor - 0.02, x + 0.1, floor + 0.16, (250, 250, 250))
    canvas.ellipse(x + 0.05, floor - 0.1, 0.035, 0.045, (210, 205, 195))
    canvas.rectangle(x + 0.03, floor - 0.07, x + 0.07, floor - 0.02, (210, 205, 195))


def _painting(canvas: Canvas, rng: random.Random, x: float) -> None:
    width = 0.24
    canvas.rectangle(x, 0.12, x + width, 0.42, (175, 135, 60))
    canvas.rectangle(x + 0.02, 0.14, x + width - 0.02, 0.4, jitter((90, 130, 170), rng, 60))
    canvas.ellipse(x + width * 0.5, 0.28, 0.06, 0.05, jitter((200, 150, 80), rng, 60))
    hill = [(x + 0.03, 0.39), (x + 0.1, 0.27), (x + width - 0.03, 0.39)]
    canvas.polygon(hill, jitter((60, 90, 60), rng, 50))
    canvas.rectangle(x + width * 0.35, 0.05, x + width * 0.65, 0.065, (90, 90, 90))


def paint_theatre(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A stage with curtains, a spotlight, the heads of the audience."""
    stops = [(0.0, (30, 12, 16)), (0.65, (60, 24, 30)), (0.66, (120, 80, 45)), (1.0, (150, 100, 60))]
    canvas.backdrop(0.66, stops)
    velvet = jitter((165, 25, 35), rng, 18)
    canvas.rectangle(0.2, 0.1, 0.8, 0.66, (40, 44, 80))
    canvas.ellipse(0.5, 0.4, 0.2, 0.2, (70, 80, 130))
    for k in range(6):
        fold = ((k * 0.045, 0.0), (k * 0.045 + 0.045, 0.0), (k * 0.04 + 0.05, 0.7), (k * 0.04, 0.7))
        color = shade(velvet, 0.75 + 0.25 * (k % 2))
        canvas.polygon(fold, color)
        canvas.polygon([(1 - x, y) for x, y in fold], color)
    for k in range(7):
        canvas.ellipse((k + 0.5) / 7, 0.05, 0.085, 0.07, shade(velvet, 0.8 + 0.2 * (k % 2)))
    x = rng.uniform(0.3, 0.7)
    beam = [(x - 0.03, 0.1), (x + 0.03, 0.1), (x + 0.2, 0.86), (x - 0.2, 0.86)]
    canvas.polygon(beam, (112, 100, 92))
    canvas.ellipse(x, 0.86, 0.22, 0.05, (225, 190, 130))
    crowd(canvas, rng, 0.97, 9, 0.06, clothes=((30, 15, 18), (45, 25, 28)))


def paint_supermarket(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Shelves of goods, a sign and a trolley."""
    room(canvas, style, (235, 238, 240), (215, 215, 212), floor_line=0.62)
    for k in range(3):
        canvas.rectangle(0.05 + 0.33 * k, 0.02, 0.28 + 0.33 * k, 0.05, (255, 255, 250))
    for k in range(4):
        _shelf(canvas, rng, 0.22 + k * 0.125)
    canvas.rectangle(0.4, 0.07, 0.6, 0.11, (40, 120, 60))
    _trolley(canvas, rng.choice((0.1, 0.82)), 0.84)


def _shelf(canvas: Canvas, rng: random.Random, board: float) -> None:
    canvas.rectangle(0, board, 1, board + 0.018, (150, 155, 160))
    x = 0.0
    while x < 1:
        color = GOODS[int(rng.random() * 6)]
        for _ in range(2 + int(rng.random() * 3)):
            canvas.rectangle(x, board - 0.075, x + 0.03, board, color)
            x += 0.036


def _trolley(canvas: Canvas, x: float, y: float) -> None:
    basket = [(x - 0.09, y - 0.12), (x + 0.1, y - 0.12), (x + 0.07, y), (x - 0.06, y)]
    canvas.polygon(basket, (165, 170, 178))
    canvas.ellipse(x - 0.04, y + 0.03, 0.018, 0.018, (40, 40, 40))
    canvas.ellipse(x + 0.06, y + 0.03, 0.018, 0.018, (40, 40, 40))
    canvas.line(x + 0.1, y - 0.12, x + 0.14, y - 0.16, 0.012, (210, 60, 50))


def paint_swimming_pool(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Lanes of water, starting blocks, windows and a lifebuoy."""
    water = mix((40, 160, 215), (60, 190, 200), style.tint)
    canvas.backdrop(
        0.42,
        [
            (0, (215, 230, 240)),
            (0.3, (235, 240, 242)),
            (0.301, (200, 190, 175)),
            (0.42, (215, 205, 190)),
            (0.421, shade(water, 0.9)),
            (0.82, water),
            (0.821, (225, 215, 200)),
            (1, (235, 228, 215)),
        ],
    )
    for k in range(4):
        window(canvas, 0.03 + 0.25 * k, 0.05, 0.19, 0.19)
    for j in range(4):
        for k in range(16):
            float_color = (225, 50, 50) if k % 2 else (250, 250, 250)
            canvas.ellipse((k + 0.5) / 16, 0.48 + 0.1 * j, 0.018, 0.008, float_color)
    for _ in range(10):
        x, y = rng.random(), rng.uniform(0.44, 0.8)
        canvas.line(x, y, x + 0.08, y, 0.005, (190, 235, 250))
    for k in range(4):
        x = 0.12 + 0.25 * k
        canvas.rectangle(x - 0.05, 0.79, x + 0.05, 0.84, (60, 90, 150))
    tiles(canvas, (0, 0.82, 1, 1), 10, 2, (205, 195, 180))
    x = rng.choice((0.05, 0.9))
    canvas.line(x, 0.3, x, 0.1, 0.01, (120, 120, 120))
    canvas.ellipse(x, 0.3, 0.045, 0.05, (235, 90, 50))
