"""A scenario becomes a picture with its annotations.

A picture is painted at twice its size and reduced; then the light of the place and a fixed grain go over it.
Every part draws its randomness from a stream of its own, so that changing one part of a scenario leaves the
others where they are: the same scenario with another scene is an exact counterfactual.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ccim_ray.datasets.confounded_scenes.appearance import random_look
from ccim_ray.datasets.confounded_scenes.canvas import Canvas
from ccim_ray.datasets.confounded_scenes.causal_model import Scenario
from ccim_ray.datasets.confounded_scenes.furniture import SceneStyle
from ccim_ray.datasets.confounded_scenes.objects import OBJECT_NAMES, draw_object
from ccim_ray.datasets.confounded_scenes.persons import Person, draw_person
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES, SCENES
from ccim_ray.datasets.subject import Box, Point, clip_box

Pixels = npt.NDArray[np.uint8]

SUPERSAMPLING = 2
GRAIN_SIDE = 512
GRAIN_TEXTURES = 8
GRAIN_OCTAVES = ((1, 3.0), (2, 2.5), (8, 2.0), (64, 3.0))
"""Grain is a sum of white noise at these cell sizes (pixels) and amplitudes (grey levels)."""

FARTHEST, NEAREST = 235, 35
"""Depth values of everything from the horizon up, and of the lower edge of the picture."""

PLACES_OF_OTHERS = (-0.32, 0.30, 0.52, -0.5)
"""Distances of other people from the subject, in picture widths."""

# Streams of randomness: the first two come from scene_seed, the others from person_seed.
_BACKGROUND, _GRAIN = 0, 1
_SUBJECT, _OTHERS, _OBJECTS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered scenario; boxes and points are in pixels of the picture.

    Attributes:
        image_HWC: the picture, (size, size, 3), uint8, RGB.
        depth_HW: (size, size), uint8, larger is farther away; the background and the people.
        body_box, face_box: the subject's, clipped to the picture; the face box is that of the head, also
            where the subject is seen from behind.
        keypoints: the subject's 18 points in the OpenPose COCO order; a hand may lie outside the picture.
        other_boxes: bodies of the other people, in the scenario's order; one outside the picture has none.
    """

    image_HWC: Pixels
    depth_HW: Pixels
    body_box: Box
    face_box: Box
    keypoints: tuple[Point, ...]
    other_boxes: tuple[Box, ...]


def render(scenario: Scenario, size: int) -> Picture:
    """Render a scenario as a square picture of ``size`` pixels.

    The same scenario gives the same bytes in every process.

    Raises:
        ValueError: ``size`` lies outside 32..512.
    """
    canvas = _background(scenario, size)
    subject, others = _draw_people_and_objects(canvas, scenario)
    other_boxes = (_pixel_box(other.body_box, size) for other in others)
    body_box, face_box = _pixel_box(subject.body_box, size), _pixel_box(subject.head_box, size)
    if body_box is None or face_box is None:
        raise AssertionError("the subject stands in the picture by construction")
    return Picture(
        image_HWC=_finish(canvas, scenario, size),
        depth_HW=_depth(canvas.horizon, [*sorted(others, key=_feet), subject], size),
        body_box=body_box,
        face_box=face_box,
        keypoints=tuple((x * size, y * size) for x, y in subject.keypoints),
        other_boxes=tuple(box for box in other_boxes if box is not None),
    )


def render_scene(scenario: Scenario, size: int) -> Pixels:
    """Render the place of a scenario without people and objects: (size, size, 3), uint8, RGB."""
    return _finish(_background(scenario, size), scenario, size)


def render_object(object_index: int, scenario: Scenario, size: int) -> Pixels:
    """Render one large object before the place of a scenario: (size, size, 3), uint8, RGB."""
    canvas = _background(scenario, size)
    rng = _stream(scenario.person_seed, _OBJECTS)
    object_size, x, y = rng.uniform(0.3, 0.55), rng.uniform(0.35, 0.65), rng.uniform(0.7, 0.95)
    draw_object(canvas, OBJECT_NAMES[object_index], x, y, object_size, rng)
    return _finish(canvas, scenario, size)


def _stream(seed: int, purpose: int) -> random.Random:
    return random.Random(4 * seed + purpose)


def _background(scenario: Scenario, size: int) -> Canvas:
    if not 32 <= size <= GRAIN_SIDE:
        raise ValueError(f"a picture of {size} pixels was asked for; the side must be in 32..{GRAIN_SIDE}")
    canvas = Canvas(SUPERSAMPLING * size)
    painter = SCENES[SCENE_NAMES[scenario.scene]]
    painter(canvas, SceneStyle(*scenario.style[:4]), _stream(scenario.scene_seed, _BACKGROUND))
    return canvas


def _draw_people_and_objects(canvas: Canvas, scenario: Scenario) -> tuple[Person, list[Person]]:
    """Draw others, objects and the subject, from the back to the front."""
    subject_rng = _stream(scenario.person_seed, _SUBJECT)
    height, x = subject_rng.uniform(0.56, 0.80), subject_rng.uniform(0.28, 0.72)
    feet = subject_rng.uniform(0.92, 0.99)
    others = _draw_others(canvas, scenario, x, height)
    object_rng = _stream(scenario.person_seed, _OBJECTS)
    for index in scenario.objects:
        beside = (0.05, 0.3) if object_rng.random() < 0.5 else (0.7, 0.95)
        object_x, object_y = object_rng.uniform(*beside), object_rng.uniform(0.86, 0.97)
        draw_object(canvas, OBJECT_NAMES[index], object_x, object_y, object_rng.uniform(0.12, 0.17), object_rng)
    look = random_look(subject_rng)
    subject = draw_person(canvas, x, feet, height, scenario.expression, look, scenario.seen_from_behind)
    return subject, others


def _draw_others(canvas: Canvas, scenario: Scenario, subject_x: float, subject_height: float) -> list[Person]:
    """Draw the other people, the farthest first; the result is in the scenario's order."""
    rng = _stream(scenario.person_seed, _OTHERS)
    places = list(PLACES_OF_OTHERS)
    rng.shuffle(places)
    standing = []
    for index, expression_D in enumerate(scenario.other_expressions):
        height = subject_height * rng.uniform(0.5, 0.72)
        x = subject_x + places[index % len(places)] * rng.uniform(0.8, 1.15)
        feet = rng.uniform(0.80, 0.90)
        standing.append((feet, index, min(max(x, 0.06), 0.94), height, expression_D, random_look(rng)))
    drawn = {
        index: draw_person(canvas, x, feet, height, expression_D, look)
        for feet, index, x, height, expression_D, look in sorted(standing, key=lambda other: other[:2])
    }
    return [drawn[index] for index in range(len(standing))]


def _feet(person: Person) -> float:
    return person.feet


def _pixel_box(box: Box, size: int) -> Box | None:
    x1, y1, x2, y2 = box
    return clip_box((x1 * size, y1 * size, x2 * size, y2 * size), size, size)


def _finish(canvas: Canvas, scenario: Scenario, size: int) -> Pixels:
    """Reduce the canvas; apply the light (style[4]), its warmth (style[5]) and the grain."""
    brightness, warmth = 0.82 + 0.3 * scenario.style[4], 0.08 * (scenario.style[5] - 0.5)
    levels = np.arange(256)
    gains = (brightness * (1 + warmth), brightness, brightness * (1 - warmth))
    curve = np.concatenate([np.minimum(255, levels * gain).astype(np.uint8) for gain in gains])
    image_HWC = np.asarray(canvas.image.reduce(SUPERSAMPLING).point(curve.tolist())).astype(np.int16)

    rng = _stream(scenario.scene_seed, _GRAIN)
    texture = int(rng.random() * GRAIN_TEXTURES)
    top, left = (int(rng.random() * (GRAIN_SIDE - size + 1)) for _ in range(2))
    image_HWC += _grain()[texture, top : top + size, left : left + size, None]
    return np.clip(image_HWC, 0, 255, out=image_HWC).astype(np.uint8)


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.int16]:
    """Textures of grain, (GRAIN_TEXTURES, GRAIN_SIDE, GRAIN_SIDE), the same in every process."""
    # RandomState's stream is frozen; that of default_rng may change between versions of NumPy.
    generator = np.random.RandomState(0)
    textures = np.zeros((GRAIN_TEXTURES, GRAIN_SIDE, GRAIN_SIDE))
    for texture in textures:
        for cell, amplitude in GRAIN_OCTAVES:
            cells = GRAIN_SIDE // cell
            noise = amplitude * generator.standard_normal((cells, cells))
            texture += noise.repeat(cell, axis=0).repeat(cell, axis=1)
    return textures.astype(np.int16)


def _depth(horizon: float, people: list[Person], size: int) -> Pixels:
    """Depth of the ground, and over it the silhouettes of ``people``, the farthest first."""
    ground_H1 = _ground_depth(np.arange(size) / size, horizon).astype(np.uint8)[:, None]
    image = Image.fromarray(np.repeat(ground_H1, size, axis=1))
    draw = ImageDraw.Draw(image)
    for person in people:
        value = int(_ground_depth(np.array(person.feet), horizon))
        width = max(1, int(0.06 * person.height * size))
        x1, y1, x2, y2 = person.head_box
        points = [(x * size, y * size) for x, y in person.keypoints]
        draw.ellipse((x1 * size, y1 * size, x2 * size, y2 * size), fill=value)
        draw.polygon([points[2], points[5], points[11], points[8]], fill=value)
        for limb in (points[2:5], points[5:8], points[8:11], points[11:14]):
            draw.line(limb, fill=value, width=width)
    return np.asarray(image)


def _ground_depth(y: npt.NDArray[np.float64], horizon: float) -> npt.NDArray[np.float64]:
    """Depth of the ground at height ``y`` of the picture."""
    nearness = np.clip((y - horizon) / (1 - horizon), 0, 1)
    return FARTHEST - (FARTHEST - NEAREST) * nearness
