"""Scenes of homes and of places of work and duty: one painter a scene."""

from __future__ import annotations

import random

from ccim_ray.datasets.confounded_scenes.canvas import Canvas, Color, jitter, mix, shade
from ccim_ray.datasets.confounded_scenes.furniture import SceneStyle, planks, room, table, tiles, window


def paint_living_room(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A sofa, a window, a picture, a lamp and a rug."""
    room(canvas, style, jitter((225, 205, 170), rng), (165, 120, 80))
    planks(canvas, (130, 90, 58))
    window(canvas, rng.uniform(0.02, 0.12), 0.12, 0.24, 0.28)
    x, floor = rng.uniform(0.5, 0.62), canvas.horizon
    _sofa(canvas, x, floor, jitter((90, 120, 150), rng, 40))
    canvas.rectangle(x - 0.1, 0.14, x + 0.1, 0.3, (120, 80, 40))
    canvas.rectangle(x - 0.085, 0.155, x + 0.085, 0.285, jitter((180, 200, 160), rng, 30))
    canvas.line(0.93, floor + 0.05, 0.93, 0.28, 0.012, (90, 80, 60))
    canvas.polygon([(0.86, 0.3), (1.0, 0.3), (0.97, 0.2), (0.89, 0.2)], (250, 225, 150))
    canvas.ellipse(0.45, 0.88, 0.4, 0.09, jitter((180, 90, 80), rng, 30))


def _sofa(canvas: Canvas, x: float, floor: float, color: Color) -> None:
    canvas.rectangle(x - 0.22, floor - 0.14, x + 0.22, floor + 0.06, color)
    canvas.rectangle(x - 0.26, floor - 0.08, x - 0.2, floor + 0.09, shade(color, 0.8))
    canvas.rectangle(x + 0.2, floor - 0.08, x + 0.26, floor + 0.09, shade(color, 0.8))
    canvas.rectangle(x - 0.2, floor - 0.02, x + 0.2, floor + 0.07, shade(color, 1.15))


def paint_bedroom(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A bed, a night table with a lamp, a window onto the time of day."""
    room(canvas, style, jitter((190, 200, 225), rng), (190, 165, 135))
    view = mix((170, 215, 245), (30, 35, 70), style.dusk)
    window(canvas, 0.62 + 0.1 * rng.random(), 0.1, 0.24, 0.26, view)
    floor = canvas.horizon
    _bed(canvas, rng.uniform(0.02, 0.1), floor, jitter((150, 120, 190), rng, 45))
    canvas.rectangle(0.8, floor - 0.08, 0.95, floor + 0.1, (130, 90, 60))
    lamp_shade = [
        (0.83, floor - 0.13),
        (0.92, floor - 0.13),
        (0.905, floor - 0.2),
        (0.845, floor - 0.2),
    ]
    canvas.polygon(lamp_shade, (255, 235, 170))
    canvas.rectangle(0.87, floor - 0.13, 0.88, floor - 0.08, (80, 60, 40))


def _bed(canvas: Canvas, x: float, floor: float, blanket: Color) -> None:
    canvas.rectangle(x, floor - 0.2, x + 0.03, floor + 0.2, (110, 70, 45))
    foot = floor + 0.2
    canvas.polygon([(x, floor + 0.02), (x + 0.5, floor + 0.02), (x + 0.58, foot), (x, foot)], blanket)
    canvas.rectangle(x + 0.03, floor - 0.05, x + 0.18, floor + 0.04, (248, 248, 245))
    canvas.rectangle(x, foot, x + 0.58, foot + 0.07, shade(blanket, 0.8))


def paint_kitchen(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Cupboards, a worktop, an oven with a pot and a fridge."""
    room(canvas, style, jitter((238, 235, 220), rng, 10), (200, 190, 175))
    cupboard = jitter((205, 225, 200), rng, 35)
    floor = canvas.horizon
    for k in range(5):
        canvas.rectangle(k * 0.2 + 0.005, 0.05, k * 0.2 + 0.19, 0.24, cupboard)
        canvas.rectangle(k * 0.2 + 0.16, 0.16, k * 0.2 + 0.172, 0.21, (120, 120, 120))
    tiles(canvas, (0, 0.25, 1, floor - 0.14), 10, 3, (205, 205, 200))
    canvas.rectangle(0, floor - 0.14, 1, floor - 0.11, (90, 90, 95))
    for k in range(5):
        canvas.rectangle(k * 0.2 + 0.005, floor - 0.11, k * 0.2 + 0.19, floor + 0.1, shade(cupboard, 0.92))
    _fridge(canvas, rng.choice((0.02, 0.82)), floor)
    canvas.rectangle(0.42, floor - 0.1, 0.6, floor + 0.1, (70, 72, 76))
    canvas.rectangle(0.44, floor - 0.02, 0.58, floor + 0.07, (25, 25, 30))
    canvas.rectangle(0.46, floor - 0.2, 0.54, floor - 0.14, (190, 60, 50))
    tiles(canvas, (0, floor + 0.1, 1, 1), 8, 3, (175, 165, 150))


def _fridge(canvas: Canvas, x: float, floor: float) -> None:
    canvas.rectangle(x, 0.12, x + 0.17, floor + 0.12, (232, 236, 240))
    canvas.line(x, 0.32, x + 0.17, 0.32, 0.008, (150, 150, 155))
    canvas.rectangle(x + 0.14, 0.2, x + 0.15, 0.28, (140, 140, 140))


def paint_bathroom(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Tiles, a bath with a shower, a mirror over a basin, a toilet."""
    room(canvas, style, jitter((200, 228, 235), rng, 10), (215, 220, 225))
    floor = canvas.horizon
    tiles(canvas, (0, 0, 1, floor), 10, 6, (175, 208, 218))
    tiles(canvas, (0, floor, 1, 1), 7, 4, (180, 185, 192))
    _bath(canvas, rng.uniform(0.02, 0.1), floor)
    x = rng.uniform(0.6, 0.68)
    canvas.ellipse(x, 0.22, 0.09, 0.13, (150, 160, 165))
    canvas.ellipse(x, 0.22, 0.08, 0.12, (225, 240, 248))
    canvas.ellipse(x, floor - 0.12, 0.11, 0.035, (252, 252, 252))
    canvas.rectangle(x - 0.02, floor - 0.1, x + 0.02, floor + 0.06, (240, 240, 242))
    canvas.rectangle(0.84, floor - 0.16, 0.97, floor - 0.02, (250, 250, 250))
    canvas.ellipse(0.9, floor + 0.03, 0.08, 0.045, (248, 248, 248))
    canvas.rectangle(0.87, floor + 0.03, 0.94, floor + 0.11, (242, 242, 242))


def _bath(canvas: Canvas, x: float, floor: float) -> None:
    canvas.rectangle(x, floor - 0.06, x + 0.42, floor + 0.12, (252, 252, 252))
    canvas.ellipse(x + 0.02, floor + 0.03, 0.03, 0.09, (252, 252, 252))
    canvas.rectangle(x - 0.01, floor - 0.08, x + 0.44, floor - 0.05, (238, 240, 242))
    canvas.line(x + 0.36, floor - 0.08, x + 0.36, 0.1, 0.008, (150, 155, 160))
    canvas.ellipse(x + 0.33, 0.1, 0.04, 0.015, (150, 155, 160))


def paint_office(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Desks with screens, blinds, a chart on the wall."""
    room(canvas, style, jitter((205, 210, 212), rng, 10), (110, 120, 130))
    for k in range(3):
        canvas.rectangle(0.08 + 0.33 * k, 0.03, 0.28 + 0.33 * k, 0.06, (252, 252, 245))
    window(canvas, 0.05, 0.14, 0.5, 0.24)
    for k in range(5):
        canvas.line(0.05, 0.16 + 0.045 * k, 0.55, 0.16 + 0.045 * k, 0.006, (230, 230, 225))
    for k in range(3):
        _desk(canvas, 0.16 + 0.34 * k + rng.uniform(-0.03, 0.03), canvas.horizon)
    canvas.rectangle(0.7, 0.14, 0.93, 0.3, (248, 248, 250))
    for k in range(4):
        canvas.rectangle(0.73 + 0.04 * k, 0.28 - 0.03 * (k + 1), 0.76 + 0.04 * k, 0.28, (70, 130, 200))


def _desk(canvas: Canvas, x: float, floor: float) -> None:
    table(canvas, x, floor + 0.15, 0.28, 0.16, (175, 150, 115))
    canvas.rectangle(x - 0.07, floor - 0.13, x + 0.07, floor - 0.03, (30, 32, 36))
    canvas.rectangle(x - 0.06, floor - 0.12, x + 0.06, floor - 0.04, (110, 165, 215))
    canvas.rectangle(x - 0.008, floor - 0.03, x + 0.008, floor - 0.01, (40, 40, 40))


def paint_classroom(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A blackboard with writing and two rows of desks."""
    room(canvas, style, jitter((235, 225, 195), rng, 8), (185, 150, 110))
    canvas.rectangle(0.14, 0.08, 0.86, 0.38, (140, 95, 55))
    canvas.rectangle(0.16, 0.1, 0.84, 0.36, (40, 95, 70))
    for k in range(4):
        y = 0.15 + 0.05 * k
        canvas.line(0.2, y, 0.2 + rng.uniform(0.15, 0.5), y, 0.007, (230, 235, 230))
    canvas.rectangle(0.9, 0.12, 0.98, 0.4, (245, 240, 225))
    canvas.rectangle(0.02, 0.1, 0.1, 0.3, jitter((220, 180, 120), rng, 40))
    for row in range(2):
        for k in range(4):
            x, y = 0.12 + 0.26 * k + 0.05 * row, canvas.horizon + 0.1 + 0.15 * row
            table(canvas, x, y, 0.17 + 0.03 * row, 0.09, (205, 160, 100))


def paint_library(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Walls of books and a reading table."""
    room(canvas, style, (150, 115, 80), (125, 90, 60))
    covers: tuple[Color, ...] = (
        (150, 50, 45),
        (50, 85, 120),
        (60, 110, 70),
        (190, 150, 80),
        (95, 60, 100),
    )
    for k in range(5):
        board = 0.13 + k * 0.118
        canvas.rectangle(0, board, 1, board + 0.018, (95, 62, 36))
        x = 0.0
        while x < 1:
            width, height = rng.uniform(0.018, 0.04), rng.uniform(0.06, 0.095)
            canvas.rectangle(x, board - height, x + width * 0.85, board, covers[int(rng.random() * 5)])
            x += width
    for x in (0.0, 0.32, 0.66, 0.98):
        canvas.rectangle(x, 0, x + 0.025, canvas.horizon, (80, 52, 30))
    table(canvas, rng.uniform(0.15, 0.8), canvas.horizon + 0.17, 0.4, 0.12, (140, 95, 55))


def paint_hospital_room(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A bed with a drip, a heart monitor, a red cross."""
    room(canvas, style, jitter((222, 236, 232), rng, 6), (205, 215, 215))
    floor = canvas.horizon
    canvas.rectangle(0, floor - 0.2, 1, floor - 0.17, (120, 190, 180))
    _sickbed(canvas, rng.uniform(0.05, 0.3), floor)
    canvas.rectangle(0.8, 0.12, 0.96, 0.28, (40, 46, 50))
    pulse = [(0.81, 0.21), (0.85, 0.21), (0.87, 0.15), (0.89, 0.25), (0.89, 0.21), (0.95, 0.21)]
    canvas.polyline(pulse, 0.008, (80, 240, 110))
    canvas.rectangle(0.6, 0.1, 0.72, 0.22, (250, 250, 250))
    canvas.rectangle(0.645, 0.12, 0.675, 0.2, (215, 40, 50))
    canvas.rectangle(0.62, 0.145, 0.7, 0.175, (215, 40, 50))
    tiles(canvas, (0, floor, 1, 1), 6, 3, (190, 202, 202))


def _sickbed(canvas: Canvas, x: float, floor: float) -> None:
    canvas.rectangle(x, floor - 0.02, x + 0.5, floor + 0.06, (250, 252, 253))
    canvas.rectangle(x + 0.02, floor - 0.07, x + 0.14, floor, (240, 245, 250))
    canvas.rectangle(x + 0.2, floor - 0.03, x + 0.5, floor + 0.07, (150, 200, 215))
    canvas.line(x, floor - 0.14, x, floor + 0.2, 0.014, (160, 165, 170))
    canvas.line(x + 0.5, floor - 0.05, x + 0.5, floor + 0.2, 0.014, (160, 165, 170))
    canvas.rectangle(x, floor + 0.06, x + 0.5, floor + 0.085, (170, 175, 180))
    canvas.line(x - 0.03, floor + 0.2, x - 0.03, 0.14, 0.009, (150, 155, 160))
    canvas.rectangle(x - 0.055, 0.16, x - 0.005, 0.26, (225, 240, 250))


def paint_prison_cell(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Bare blocks, a barred window, a bunk, bars in front."""
    room(canvas, style, jitter((120, 122, 118), rng, 8), (95, 95, 92))
    floor = canvas.horizon
    for k in range(6):
        canvas.line(0, k * floor / 6, 1, k * floor / 6, 0.005, (95, 97, 95))
        for j in range(6):
            x = (j + 0.5 * (k % 2)) / 6
            canvas.line(x, k * floor / 6, x, (k + 1) * floor / 6, 0.005, (95, 97, 95))
    canvas.rectangle(0.38, 0.08, 0.62, 0.26, (60, 60, 62))
    canvas.rectangle(0.4, 0.1, 0.6, 0.24, (150, 175, 195))
    for k in range(4):
        canvas.line(0.43 + 0.047 * k, 0.08, 0.43 + 0.047 * k, 0.26, 0.012, (50, 50, 52))
    canvas.rectangle(0.55, floor - 0.03, 0.97, floor + 0.03, (85, 80, 75))
    canvas.rectangle(0.55, floor - 0.06, 0.97, floor - 0.02, (140, 140, 130))
    canvas.ellipse(0.1, floor + 0.03, 0.06, 0.03, (170, 172, 172))
    bar = (45, 46, 50)
    for k in (0, 1, 2, 6, 7, 8):  # the middle stays open, where the people stand
        canvas.line(0.06 + 0.11 * k, 0, 0.06 + 0.11 * k, 0.99, 0.014, bar)
    canvas.line(0, 0.12, 0.3, 0.12, 0.014, bar)
    canvas.line(0.7, 0.12, 1, 0.12, 0.014, bar)
