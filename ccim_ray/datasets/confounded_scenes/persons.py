"""People of the embedded world: an expression and a look become a drawing and its annotations.

A person is drawn in a frame of its own: the origin lies between the feet, one unit is the person's height.
"Left" and "right" mean the left and right of the picture, except in the order of the keypoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.confounded_scenes.appearance import Expression, Look, readable_expression
from ccim_ray.datasets.confounded_scenes.canvas import Frame, shade
from ccim_ray.datasets.confounded_scenes.faces import draw_head, face_slide, turned
from ccim_ray.datasets.subject import Box, Point

HEAD_RADIUS = 0.122
UPPER_ARM, FOREARM = 0.155, 0.15
LEG, TORSO = 0.43, 0.29
HIP_HALF = 0.06
LIMB = 0.052
"""Width of a limb before the build; lengths are shares of a person's height."""


class _Limb(NamedTuple):
    """Shoulder, elbow, wrist or hip, knee, ankle."""

    root: Point
    joint: Point
    tip: Point


class _Skeleton(NamedTuple):
    limb: float
    hip: Point
    neck: Point
    sway: float
    head: Point
    tilt: float
    left_arm: _Limb
    right_arm: _Limb
    left_leg: _Limb
    right_leg: _Limb


def _skeleton(pose: Expression, look: Look) -> _Skeleton:
    leg = LEG * (1 - 0.4 * pose.crouch)
    sway, upright = math.sin(pose.lean * 0.32), math.cos(pose.lean * 0.32)
    neck_x, neck_y = sway * TORSO, -leg - upright * TORSO
    shoulder = 0.10 * look.build
    shoulder_y = neck_y + 0.03 - 0.03 * pose.shrug
    left_shoulder = (neck_x - shoulder * upright, shoulder_y - shoulder * sway)
    right_shoulder = (neck_x + shoulder * upright, shoulder_y + shoulder * sway)
    head_y = neck_y - 0.035 - HEAD_RADIUS + pose.head_drop * 0.055 + max(0.0, pose.shrug) * 0.03
    foot_x = 0.05 + 0.07 * pose.stance
    knee_x = foot_x * 0.8 + 0.09 * pose.crouch
    return _Skeleton(
        limb=LIMB * look.build,
        hip=(0.0, -leg),
        neck=(neck_x, neck_y),
        sway=sway,
        head=(neck_x + sway * 0.16, head_y),
        tilt=pose.lean * 0.30 + 0.12 * look.side * max(0.0, pose.head_drop),
        left_arm=_arm(left_shoulder, -1, pose.left_upper_arm, pose.left_forearm),
        right_arm=_arm(right_shoulder, 1, pose.right_upper_arm, pose.right_forearm),
        left_leg=_Limb((-HIP_HALF, -leg), (-knee_x, -leg * 0.5), (-foot_x, 0.0)),
        right_leg=_Limb((HIP_HALF, -leg), (knee_x, -leg * 0.5), (foot_x, 0.0)),
    )


def _arm(shoulder: Point, outwards: int, upper_angle: float, forearm_angle: float) -> _Limb:
    elbow_x = shoulder[0] + outwards * math.sin(upper_angle) * UPPER_ARM
    elbow_y = shoulder[1] + math.cos(upper_angle) * UPPER_ARM
    wrist_x = elbow_x + outwards * math.sin(forearm_angle) * FOREARM
    wrist_y = elbow_y + math.cos(forearm_angle) * FOREARM
    return _Limb(shoulder, (elbow_x, elbow_y), (wrist_x, wrist_y))


@dataclass(frozen=True, slots=True)
class Person:
    """Where a drawn person is, in the coordinates of the frame that it was drawn in.

    Attributes:
        feet: y of the ground under the feet.
        height: height of the person standing upright.
        keypoints: 18 points in the OpenPose COCO order.
        head_box, body_box: what the head and the whole person cover.
    """

    feet: float
    height: float
    keypoints: tuple[Point, ...]
    head_box: Box
    body_box: Box


def draw_person(
    frame: Frame,
    x: float,
    feet: float,
    height: float,
    expression_D: npt.NDArray[np.float64],
    look: Look,
    from_behind: bool = False,
) -> Person:
    """Draw one person standing on (x, feet).

    Args:
        expression_D: 18 numbers in the order of ``emotions.EXPRESSION_DIMENSIONS``; what cannot be drawn is
            clipped.
        from_behind: show the back of the head instead of the face.
    """
    pose = readable_expression(expression_D, look.side)
    bones = _skeleton(pose, look)
    person = frame.at(x, feet, height)
    _draw_legs(person, bones, look)
    _draw_torso(person, bones, look)
    draw_head(person.at(*bones.head, HEAD_RADIUS), pose, bones.tilt, look, from_behind)
    # The arms come last: a hand can cover the face.
    _draw_arm(person, bones.left_arm, bones.limb, look)
    _draw_arm(person, bones.right_arm, bones.limb, look)
    return _annotation(bones, pose, from_behind, x, feet, height)


def _draw_legs(person: Frame, bones: _Skeleton, look: Look) -> None:
    limb = bones.limb
    for leg, outwards in ((bones.left_leg, -1), (bones.right_leg, 1)):
        person.polyline(leg, limb * 1.25, look.trousers, rounded=True)
        person.ellipse(
            leg.tip[0] + outwards * limb * 0.3, leg.tip[1] - limb * 0.1, limb * 0.8, limb * 0.45, (40, 35, 35)
        )


def _draw_torso(person: Frame, bones: _Skeleton, look: Look) -> None:
    limb = bones.limb
    (left_x, left_y), (right_x, right_y) = bones.left_arm.root, bones.right_arm.root
    _, hip_y = bones.hip
    waist = HIP_HALF + limb * 0.6
    shirt = [
        (left_x - limb * 0.3, left_y - limb * 0.2),
        (right_x + limb * 0.3, right_y - limb * 0.2),
        (waist, hip_y + limb * 0.4),
        (-waist, hip_y + limb * 0.4),
    ]
    person.polygon(shirt, look.top)
    if look.long_hair:
        hem = HIP_HALF + limb * 1.3
        person.polygon([(-waist, hip_y), (waist, hip_y), (hem, hip_y + 0.14), (-hem, hip_y + 0.14)], look.top)
    x, y = bones.neck
    person.line(x, y + limb * 0.3, x + bones.sway * 0.05, y - 0.05, limb * 1.1, shade(look.skin, 0.9))


def _draw_arm(person: Frame, arm: _Limb, limb: float, look: Look) -> None:
    person.line(*arm.root, *arm.joint, limb, shade(look.top, 0.85))
    person.ellipse(*arm.joint, limb * 0.5, limb * 0.5, shade(look.top, 0.8))
    person.line(*arm.joint, *arm.tip, limb * 0.9, shade(look.top, 0.78))
    person.ellipse(*arm.tip, limb * 0.62, limb * 0.62, look.skin)


def _annotation(bones: _Skeleton, pose: Expression, from_behind: bool, x: float, feet: float, height: float) -> Person:
    head_x, head_y = bones.head
    slide = face_slide(pose)

    def on_head(u: float, v: float) -> Point:
        turned_x, turned_y = turned(u, v, bones.tilt)
        return head_x + turned_x * HEAD_RADIUS, head_y + turned_y * HEAD_RADIUS

    left_face = (on_head(-0.36, slide - 0.08), on_head(-0.86, 0.0))
    right_face = (on_head(0.36, slide - 0.08), on_head(0.86, 0.0))
    sides = [(bones.left_arm, bones.left_leg, left_face), (bones.right_arm, bones.right_leg, right_face)]
    if from_behind:  # the person's own right is then on the right of the picture
        sides.reverse()
    (arm_r, leg_r, face_r), (arm_l, leg_l, face_l) = sides
    eyes_and_ears = (face_r[0], face_l[0], face_r[1], face_l[1])
    points = (on_head(0.0, slide + 0.15), bones.neck, *arm_r, *arm_l, *leg_r, *leg_l, *eyes_and_ears)

    radius, limb = HEAD_RADIUS, bones.limb
    xs = [point[0] for point in points] + [head_x - radius, head_x + radius]
    ys = [point[1] for point in points] + [head_y - radius * 1.1]
    head = (head_x - radius * 0.95, head_y - radius * 1.1, head_x + radius * 0.95, head_y + radius * 1.02)
    body = (min(xs) - limb, min(ys) - limb * 0.6, max(xs) + limb, max(ys) + limb * 0.5)

    def placed(box: Box) -> Box:
        x1, y1, x2, y2 = box
        return x + x1 * height, feet + y1 * height, x + x2 * height, feet + y2 * height

    keypoints = tuple((x + u * height, feet + v * height) for u, v in points)
    return Person(feet, height, keypoints, placed(head), placed(body))
