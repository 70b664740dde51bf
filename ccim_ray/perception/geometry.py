"""Boxes and points of a subject as small tensors, all relative, so that pictures of any size compare.

Shape suffixes: J joints, A agents, R regions; the last axis holds coordinates.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.subject import Box, Subject
from ccim_ray.perception.architectures import Architecture, GeometryView

Floats = npt.NDArray[np.float32]

JOINTS = 18
AGENTS = 9
"""The subject and the eight people nearest to it."""
REGIONS = 10


SHAPES: dict[GeometryView, tuple[int, int]] = {
    "keypoints": (JOINTS, 3),
    "agents": (AGENTS, 5),
    "regions": (REGIONS, 4),
}
"""Of one subject's rows."""


def geometry_of(view: GeometryView, subject: Subject, arch: Architecture) -> Floats:
    """The view of one subject, float32: (18, 3), (9, 5) or (10, 4)."""
    if view == "keypoints":
        return keypoints_of(subject)
    if view == "agents":
        return agents_of(subject)
    return regions_of(subject, arch)


def keypoints_of(subject: Subject) -> Floats:
    """(18, 3): x and y relative to the body box (0..1 inside it), and 1 where known; zeros where not."""
    points_J3 = np.zeros((JOINTS, 3), np.float32)
    if subject.keypoints is None:
        return points_J3
    x1, y1, x2, y2 = subject.body_box
    for joint, (x, y) in enumerate(subject.keypoints):
        if np.isfinite((x, y)).all():
            points_J3[joint] = ((x - x1) / (x2 - x1), (y - y1) / (y2 - y1), 1.0)
    return points_J3


def agents_of(subject: Subject) -> Floats:
    """(9, 5): boxes relative to the picture and 1 where there is one; the subject first, then others, nearest first."""
    agents_A5 = np.zeros((AGENTS, 5), np.float32)
    for row, box in enumerate((subject.body_box, *_nearest(subject, AGENTS - 1))):
        agents_A5[row] = (*_relative(box, subject), 1.0)
    return agents_A5


def regions_of(subject: Subject, arch: Architecture) -> Floats:
    """(10, 4): boxes relative to the context picture as ``arch`` frames it.

    Other people first, nearest first, then windows of half the picture's side from a 3 x 3 grid, and last always
    the whole picture. They stand in for the proposals of a region proposal network.
    """
    steps = (0.25, 0.0, 0.5)
    windows = [(x, y, x + 0.5, y + 0.5) for y, x in product(steps, steps)]
    others = [_framed(box, subject, arch) for box in _nearest(subject, REGIONS - 1)]
    visible = [box for box in others if box[2] > box[0] and box[3] > box[1]]
    regions = [*visible, *windows][: REGIONS - 1]
    return np.array([*regions, (0.0, 0.0, 1.0, 1.0)], np.float32)


def _nearest(subject: Subject, count: int) -> list[Box]:
    """Other people's boxes by the distance of their centres."""

    def centre(box: Box) -> npt.NDArray[np.float64]:
        return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])

    own = centre(subject.body_box)
    return sorted(subject.other_boxes, key=lambda box: (float(np.hypot(*(centre(box) - own))), box))[:count]


def _relative(box: Box, subject: Subject) -> Box:
    x1, y1, x2, y2 = box
    return x1 / subject.width, y1 / subject.height, x2 / subject.width, y2 / subject.height


def _framed(box: Box, subject: Subject, arch: Architecture) -> Box:
    """Relative to the central crop of the resized picture, clipped to it."""
    start = round((arch.resize_to - arch.input_size) / 2)
    x1, y1, x2, y2 = (
        min(1.0, max(0.0, (value * arch.resize_to - start) / arch.input_size)) for value in _relative(box, subject)
    )
    return x1, y1, x2, y2
