"""Scenes in the open: one painter a scene."""

from __future__ import annotations

import math
import random

from ccim_ray.datasets.confounded_scenes.canvas import Canvas, Color, jitter, mix, shade
from ccim_ray.datasets.confounded_scenes.furniture import SceneStyle, clouds, leafy_tree, pine_tree, sky


def paint_park(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Lawn, trees, a path and a bench."""
    grass = mix((120, 185, 85), (150, 170, 70), style.tint)
    sky(canvas, style, 0.45 + 0.1 * style.horizon, far_ground=shade(grass, 0.9), near_ground=grass)
    horizon = canvas.horizon
    clouds(canvas, rng)
    canvas.polygon([(0.42, horizon), (0.5, horizon), (0.75, 1), (0.25, 1)], (205, 190, 150))
    for _ in range(4 + int(3 * style.clutter)):
        x, y, height = rng.random(), horizon + rng.uniform(0.01, 0.08), rng.uniform(0.28, 0.45)
        leafy_tree(canvas, x, y, height, jitter((70, 150, 60), rng))
    _bench(canvas, rng.uniform(0.05, 0.7), horizon + 0.16)


def _bench(canvas: Canvas, x: float, y: float) -> None:
    wood, leg = (130, 85, 45), (90, 60, 30)
    canvas.rectangle(x, y, x + 0.2, y + 0.015, wood)
    canvas.rectangle(x, y - 0.05, x + 0.2, y - 0.035, wood)
    canvas.rectangle(x + 0.02, y, x + 0.035, y + 0.05, leg)
    canvas.rectangle(x + 0.165, y, x + 0.18, y + 0.05, leg)


def paint_beach(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Sea, sand, a sunshade and a palm."""
    horizon = 0.35 + 0.08 * style.horizon
    sea = mix((30, 130, 190), (40, 170, 180), style.tint)
    canvas.backdrop(
        horizon,
        [
            (0, mix((80, 165, 240), (240, 150, 110), 0.5 * style.dusk)),
            (horizon, mix((205, 232, 250), (250, 205, 150), style.dusk)),
            (horizon + 0.001, sea),
            (horizon + 0.19, shade(sea, 1.25)),
            (horizon + 0.2, (240, 245, 245)),
            (horizon + 0.22, (225, 200, 150)),
            (1, (240, 215, 165)),
        ],
    )
    canvas.ellipse(rng.random(), rng.uniform(0.06, 0.2), 0.06, 0.06, (255, 240, 170))
    for _ in range(5):
        y, x = horizon + rng.uniform(0.02, 0.17), rng.random()
        canvas.line(x, y, x + 0.12, y, 0.006, (235, 245, 250))
    _sunshade(canvas, rng.uniform(0.05, 0.95), horizon + 0.4, jitter((225, 70, 70), rng, 30))
    _palm(canvas, rng.choice((0.04, 0.93)), horizon)


def _sunshade(canvas: Canvas, x: float, y: float, color: Color) -> None:
    canvas.line(x, y, x, y - 0.3, 0.012, (240, 240, 240))
    canvas.polygon([(x - 0.17, y - 0.24), (x + 0.17, y - 0.24), (x, y - 0.36)], color)
    canvas.polygon([(x - 0.06, y - 0.24), (x + 0.06, y - 0.24), (x, y - 0.36)], (250, 250, 245))


def _palm(canvas: Canvas, x: float, horizon: float) -> None:
    crown_x, crown_y = x + 0.02, horizon - 0.14
    canvas.line(x, horizon + 0.36, crown_x, crown_y, 0.022, (140, 100, 60))
    for k in range(5):
        tip_x, tip_y = crown_x + 0.13 * math.cos(k * 1.3), crown_y + 0.08 * math.sin(k * 1.3)
        canvas.line(crown_x, crown_y, tip_x, tip_y, 0.02, (50, 140, 60))


def paint_forest(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Dense trees, conifers in most styles, and undergrowth."""
    sky(canvas, style, 0.55, (90, 130, 100), (150, 185, 140), (60, 90, 45), (75, 95, 50))
    tree = pine_tree if style.tint > 0.35 else leafy_tree
    for k in range(9 + int(4 * style.clutter)):
        nearness = k / 12
        leaf = mix((60, 110, 70), (25, 75, 40), nearness)
        tree(canvas, rng.random(), canvas.horizon + 0.02 + 0.12 * nearness, 0.5 + 0.5 * nearness, leaf)
    for _ in range(6):
        x, y = rng.random(), rng.uniform(0.75, 0.98)
        canvas.ellipse(x, y, 0.05, 0.03, jitter((50, 110, 45), rng))


def paint_mountain(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Peaks with snow over a meadow with stones."""
    sky(canvas, style, 0.62, far_ground=(120, 150, 90), near_ground=(95, 125, 70))
    clouds(canvas, rng, 2)
    for _ in range(4):
        x, height, half = rng.random(), rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.35)
        _peak(canvas, x, height, half, mix((110, 115, 140), (80, 90, 110), rng.random()))
    for _ in range(5):
        x, y = rng.random(), rng.uniform(0.7, 0.95)
        canvas.ellipse(x, y, 0.04, 0.025, jitter((140, 135, 130), rng))


def _peak(canvas: Canvas, x: float, height: float, half: float, rock: Color) -> None:
    foot, top = canvas.horizon, canvas.horizon - height
    canvas.polygon([(x - half, foot), (x, top), (x + half, foot)], rock)
    snow_line = foot - height * 0.7
    snow = [
        (x - half * 0.3, snow_line),
        (x, top),
        (x + half * 0.3, snow_line),
        (x + half * 0.1, foot - height * 0.62),
        (x - half * 0.1, foot - height * 0.75),
    ]
    canvas.polygon(snow, (245, 248, 252))


def paint_snowfield(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Snow, frosted conifers, falling flakes, sometimes a snowman."""
    sky(canvas, style, 0.5, (150, 170, 195), (215, 225, 235), (225, 232, 240), (245, 248, 252))
    hills = [(0, 0.5), (0.3, 0.42), (0.7, 0.48), (1, 0.4), (1, 0.6), (0, 0.6)]
    canvas.polygon(hills, (232, 238, 245))
    for _ in range(5):
        x, y, height = rng.random(), canvas.horizon + rng.uniform(0, 0.1), rng.uniform(0.25, 0.4)
        pine_tree(canvas, x, y, height, jitter((190, 210, 205), rng, 10))
    if style.clutter > 0.4:
        _snowman(canvas, rng.uniform(0.1, 0.9), 0.78)
    for _ in range(45):
        canvas.ellipse(rng.random(), rng.random(), 0.006, 0.006, (255, 255, 255))


def _snowman(canvas: Canvas, x: float, y: float) -> None:
    canvas.ellipse(x, y, 0.07, 0.07, (250, 250, 252))
    canvas.ellipse(x, y - 0.1, 0.05, 0.05, (250, 250, 252))
    canvas.line(x, y - 0.1, x + 0.05, y - 0.09, 0.012, (240, 130, 40))


def paint_desert(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Dunes and cactuses under the sun."""
    sky(canvas, style, 0.48, (110, 170, 230), (245, 220, 170), (225, 180, 110), (235, 195, 125))
    horizon = canvas.horizon
    for k in range(3):
        x, crest = rng.random(), horizon - 0.1 + 0.08 * k
        dune = [(x - 0.5, crest + 0.12), (x, crest), (x + 0.5, crest + 0.12), (x + 0.5, 1), (x - 0.5, 1)]
        canvas.polygon(dune, jitter((225, 178, 105), rng, 12))
    for _ in range(3):
        _cactus(canvas, rng.random(), horizon + rng.uniform(0.08, 0.25), rng.uniform(0.14, 0.24))
    canvas.ellipse(rng.random(), 0.1, 0.07, 0.07, (255, 245, 200))


def _cactus(canvas: Canvas, x: float, y: float, height: float) -> None:
    green = (60, 125, 60)
    canvas.line(x, y, x, y - height, 0.035, green)
    canvas.line(x - 0.06, y - height * 0.55, x, y - height * 0.55, 0.022, green)
    canvas.line(x - 0.055, y - height * 0.85, x - 0.055, y - height * 0.5, 0.022, green)
    canvas.line(x + 0.06, y - height * 0.4, x, y - height * 0.4, 0.022, green)
    canvas.line(x + 0.055, y - height * 0.7, x + 0.055, y - height * 0.35, 0.022, green)


def paint_farm(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """A furrowed field, a red barn and cows."""
    sky(canvas, style, 0.45, far_ground=(200, 180, 80), near_ground=(165, 150, 60))
    clouds(canvas, rng, 2)
    for k in range(9):
        offset = k / 8 - 0.5
        canvas.line(0.5 + offset * 0.6, canvas.horizon, 0.5 + offset * 3, 1, 0.018, (140, 120, 45))
    _barn(canvas, rng.uniform(0.05, 0.65), canvas.horizon)
    for _ in range(2):
        _cow(canvas, rng.random(), rng.uniform(0.6, 0.72))


def _barn(canvas: Canvas, x: float, y: float) -> None:
    red = (175, 50, 40)
    canvas.rectangle(x, y - 0.18, x + 0.26, y + 0.04, red)
    roof = [(x - 0.02, y - 0.18), (x + 0.28, y - 0.18), (x + 0.2, y - 0.29), (x + 0.06, y - 0.29)]
    canvas.polygon(roof, (95, 60, 55))
    canvas.rectangle(x + 0.09, y - 0.09, x + 0.17, y + 0.04, (240, 235, 225))
    canvas.line(x + 0.09, y - 0.09, x + 0.17, y + 0.04, 0.012, red)
    canvas.line(x + 0.17, y - 0.09, x + 0.09, y + 0.04, 0.012, red)


def _cow(canvas: Canvas, x: float, y: float) -> None:
    canvas.ellipse(x, y, 0.07, 0.04, (250, 250, 248))
    canvas.ellipse(x - 0.02, y - 0.01, 0.025, 0.02, (30, 30, 30))
    canvas.ellipse(x + 0.075, y - 0.025, 0.022, 0.02, (240, 235, 230))
    canvas.rectangle(x - 0.05, y, x - 0.035, y + 0.07, (40, 40, 40))
    canvas.rectangle(x + 0.035, y, x + 0.05, y + 0.07, (40, 40, 40))


def paint_harbour(canvas: Canvas, style: SceneStyle, rng: random.Random) -> None:
    """Sailing boats behind a wooden pier."""
    sky(canvas, style, 0.42, far_ground=(60, 110, 150), near_ground=(80, 130, 165))
    clouds(canvas, rng, 2)
    for k in range(3):
        x, y, half = rng.random(), canvas.horizon + 0.04 + 0.05 * k, 0.1 + 0.05 * k
        _boat(canvas, x, y, half, jitter((150, 60, 50), rng, 40))
    canvas.rectangle(0, 0.76, 1, 1, (140, 105, 70))
    for k in range(9):
        canvas.line(k / 8, 0.76, 0.5 + (k / 8 - 0.5) * 1.6, 1, 0.008, (95, 70, 45))
    for k in range(3):
        x = 0.1 + 0.4 * k
        canvas.rectangle(x - 0.02, 0.68, x + 0.02, 0.8, (85, 60, 40))


def _boat(canvas: Canvas, x: float, y: float, half: float, hull: Color) -> None:
    keel = y + half * 0.4
    canvas.polygon([(x - half, y), (x + half, y), (x + half * 0.7, keel), (x - half * 0.7, keel)], hull)
    canvas.line(x, y, x, y - half * 2, 0.01, (90, 70, 50))
    sail = [(x + 0.01, y - half * 1.9), (x + 0.01, y - half * 0.2), (x + half * 0.9, y - half * 0.2)]
    canvas.polygon(sail, (245, 243, 235))
