"""Heads of the embedded world: an expression becomes a face.

A head is drawn in a frame of its own: the origin is the middle of the head, one unit is its radius.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ccim_ray.datasets.confounded_scenes.appearance import Expression, Look
from ccim_ray.datasets.confounded_scenes.canvas import Color, Frame, shade
from ccim_ray.datasets.subject import Point


def turned(x: float, y: float, angle: float) -> Point:
    """The point (x, y) turned clockwise about the origin by ``angle`` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine - y * sine, x * sine + y * cosine


def draw_head(head: Frame, pose: Expression, tilt: float, look: Look, from_behind: bool) -> None:
    """Draw hair and face, or the back of the head; ``tilt`` turns the face clockwise, in radians."""
    if look.long_hair:
        head.ellipse(0, 0.085, 1.08, 1.165, look.hair)
    head.ellipse(0, 0, 0.86, 1, look.skin)
    if from_behind:
        head.ellipse(0, -0.025, 0.95, 1.055, look.hair)
        return
    turn = math.degrees(tilt)
    head.pie((-0.95, -1.12, 0.95, 0.75), 188 + turn, 352 + turn, look.hair)
    head.ellipse(0, 0.14 + pose.head_drop * 0.05, 0.78, 0.76 - pose.head_drop * 0.05, look.skin)
    face = _Face(head, tilt, face_slide(pose))
    _draw_eyes(face, pose, look)
    _draw_nose(face, pose, look.skin)
    _draw_mouth(face, pose)


def face_slide(pose: Expression) -> float:
    """How far the features slide down the face when the head drops, in head radii."""
    return 0.20 * pose.head_drop


class _Face(NamedTuple):
    head: Frame
    tilt: float
    slide: float

    def point(self, x: float, y: float) -> Point:
        """Position in the head's frame of a feature of the upright face."""
        return turned(x, y + self.slide, self.tilt)


def _draw_eyes(face: _Face, pose: Expression, look: Look) -> None:
    head = face.head
    opening = pose.eye_opening * 0.17
    brow_y = -0.36 - 0.17 * pose.brow_height
    for side in (-1, 1):
        if opening < 0.055:
            lid = [face.point(side * 0.36 + dx, -0.03 if dx == 0 else -0.08) for dx in (-0.17, 0.0, 0.17)]
            head.polyline(lid, 0.1, (30, 22, 20))
        else:
            x, y = face.point(side * 0.36, -0.08)
            pupil = min(0.11, opening)
            head.ellipse(x, y, 0.2, opening, (255, 255, 255))
            head.ellipse(x, y + pose.head_drop * opening * 0.3, pupil, pupil, (25, 25, 30))
        brow = [
            face.point(side * 0.13, brow_y + 0.17 * pose.brow_angle),
            face.point(side * 0.56, brow_y - 0.17 * pose.brow_angle),
        ]
        head.polyline(brow, 0.12, shade(look.hair, 0.6))
        if pose.blush > 0.25:
            head.ellipse(*face.point(side * 0.52, 0.25), 0.16, 0.11, _blushing(look.skin, pose.blush))
        if pose.tears > 0.3:
            x, y = face.point(side * 0.42, 0.22)
            head.ellipse(x, y - 0.025, 0.08, 0.14 * pose.tears + 0.025, (120, 190, 250))


def _blushing(skin: Color, blush: float) -> Color:
    red, green, blue = skin
    return min(255, red + 10), max(0, int(green - 55 * blush)), max(0, int(blue - 40 * blush))


def _draw_nose(face: _Face, pose: Expression, skin: Color) -> None:
    if pose.nose_wrinkle > 0.3:
        for y in (0.02, 0.12):
            wrinkle = [face.point(-0.14, y), face.point(0, y - 0.06), face.point(0.14, y)]
            face.head.polyline(wrinkle, 0.05, shade(skin, 0.6))
    else:
        face.head.polyline([face.point(0, 0.05), face.point(0.03, 0.2)], 0.05, shade(skin, 0.75))


def _draw_mouth(face: _Face, pose: Expression) -> None:
    half = 0.34 + 0.14 * pose.mouth_width
    bend = 0.24 * pose.mouth_curve
    opening = pose.mouth_opening * 0.36
    shape = [(a, 0.48 + bend * (0.5 - a * a), 1 - a * a) for a in (-1, -0.6, -0.2, 0.2, 0.6, 1)]
    upper = [face.point(a * half, y) for a, y, _ in shape]
    if opening <= 0.05:
        face.head.polyline(upper, 0.1, (130, 45, 45))
        return
    lower = [face.point(a * half, y + opening * gap + 0.02) for a, y, gap in shape]
    face.head.polygon(upper + lower[::-1], (110, 25, 30))
    if abs(pose.mouth_curve) > 0.45 and pose.mouth_opening > 0.2:
        depth = min(opening * 0.45, 0.12)
        teeth = [face.point(a * half * 0.9, y + depth * gap) for a, y, gap in reversed(shape)]
        face.head.polygon(upper + teeth, (250, 250, 248))
    face.head.polyline(upper, 0.1, (130, 45, 45))
    face.head.polyline(lower, 0.05, (150, 60, 60))
