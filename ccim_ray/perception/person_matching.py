"""Which of the persons that a detector found is the annotated one, and how that person stands. Knows no torch.

Shape suffixes: P persons found in one picture, J = 17 joints in COCO's order, 4 = x1, y1, x2, y2 in pixels
(0-based, half-open), 3 = x, y and the heat map's peak, a logit.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.dataset import UNLOCATED
from ccim_ray.datasets.subject import Box, Point, Subject, clip_box

FloatArray = npt.NDArray[np.float32]

PERSON_SCORE = 0.5
"""A detection counts from this score on: the detector then holds "person" for likelier than not."""

POSE_IOU = 0.5
"""A pose belongs to a known body box from this overlap on, as COCO counts a detection as right."""

FACE_OVER_SPAN = 1.1
"""Side of a face box over the largest distance between nose, eyes and ears: an adult's ears are about 15 cm apart,
and brow and chin 15 to 16."""

COCO_JOINTS = 17
_NOSE, _LEFT_EYE, _RIGHT_EYE, _LEFT_EAR, _RIGHT_EAR, _LEFT_SHOULDER, _RIGHT_SHOULDER = range(7)
_OPENPOSE_AFTER_NECK = (6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO's numbers of OpenPose's points 2 to 17: right arm, left arm, right leg, left leg, eyes, ears."""


@dataclass(frozen=True, eq=False, slots=True)
class Persons:
    """Persons found in one picture, in the detector's order.

    Attributes:
        boxes_P4: (P, 4) float32.
        scores_P: (P,) float32, 0 to 1.
        joints_PJ3: (P, 17, 3) float32; None where the detector finds no poses.
    """

    boxes_P4: FloatArray
    scores_P: FloatArray
    joints_PJ3: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Pose:
    """How a person stands: 18 points in the OpenPose COCO order, and the face where the pose shows one."""

    keypoints: tuple[Point, ...]
    face_box: Box | None


def needs_box(subject: Subject) -> bool:
    """Whether the subject's box is neither annotated nor the user's, so that a detector is to find it."""
    return subject.box_source in ("face", UNLOCATED)


def choose_person(persons: Persons, face_box: Box | None) -> int | None:
    """Number of the annotated person: highest score among the boxes that hold the face's centre, else the largest.

    Of equal ones the larger, then the first. None where no box of a pixel or more reaches PERSON_SCORE.
    """
    sides_P2 = persons.boxes_P4[:, 2:] - persons.boxes_P4[:, :2]
    counted = np.flatnonzero((persons.scores_P >= PERSON_SCORE) & (sides_P2 >= 1).all(axis=1)).tolist()
    if not counted:
        return None

    def area(number: int) -> float:
        return float(sides_P2[number].prod())

    holding = [number for number in counted if face_box and holds_centre(persons.boxes_P4[number], face_box)]
    if holding:
        return max(holding, key=lambda number: (persons.scores_P[number], area(number), -number))
    return max(counted, key=lambda number: (area(number), persons.scores_P[number], -number))


def holds_centre(box_4: npt.ArrayLike, face_box: Box) -> bool:
    """Whether the centre of the face lies in the half-open box."""
    x1, y1, x2, y2 = np.asarray(box_4, np.float64)
    x, y = (face_box[0] + face_box[2]) / 2, (face_box[1] + face_box[3]) / 2
    return bool(x1 <= x < x2 and y1 <= y < y2)


def locate_subject(subject: Subject, persons: Persons, box_source: str) -> Subject | None:
    """The subject with the box and score of the person chosen, and with pose and face where the detector finds them.

    Where nobody is found the subject keeps the box that was grown from the face (box_source "face"); None where
    there is no face either. A subject whose box is annotated or the user's is returned as it is, as is an
    annotated face.
    """
    if not needs_box(subject):
        return subject
    chosen = choose_person(persons, subject.face_box)
    found = None if chosen is None else clip_box(persons.boxes_P4[chosen], subject.width, subject.height)
    if found is None:
        return None if subject.box_source == UNLOCATED else subject
    score = float(persons.scores_P[chosen])
    located = replace(subject, body_box=found, box_source=box_source, box_score=score)
    return add_pose(located, match_pose(persons, found, subject.width, subject.height))


def add_pose(subject: Subject, pose: Pose | None) -> Subject:
    """The subject with the pose's keypoints and face, where it has none of its own."""
    if pose is None:
        return subject
    return replace(subject, keypoints=subject.keypoints or pose.keypoints, face_box=subject.face_box or pose.face_box)


def match_pose(persons: Persons, body_box: Box, width: int, height: int) -> Pose | None:
    """Pose of the person whose box overlaps ``body_box`` most.

    None where the detector finds no poses, or where no person of at least PERSON_SCORE overlaps by POSE_IOU. Points
    may lie outside the picture of ``width`` x ``height`` pixels; the face box is clipped to it.
    """
    if persons.joints_PJ3 is None or not len(persons.scores_P):
        return None
    overlap_P = np.where(persons.scores_P >= PERSON_SCORE, box_iou(body_box, persons.boxes_P4), 0)
    best = int(overlap_P.argmax())
    if overlap_P[best] < POSE_IOU:
        return None
    joints_J3 = persons.joints_PJ3[best]
    return Pose(openpose_points(joints_J3), _face_of_pose(joints_J3, width, height))


def openpose_points(joints_J3: FloatArray) -> tuple[Point, ...]:
    """COCO's 17 joints as OpenPose's 18: the neck, which COCO lacks, is the middle of the shoulders."""
    xy_J2 = joints_J3[:, :2].astype(np.float64)
    neck_2 = (xy_J2[_LEFT_SHOULDER] + xy_J2[_RIGHT_SHOULDER]) / 2
    ordered = [xy_J2[_NOSE], neck_2, *xy_J2[list(_OPENPOSE_AFTER_NECK)]]
    return tuple((float(x), float(y)) for x, y in ordered)


def box_iou(box: Box, boxes_P4: FloatArray) -> npt.NDArray[np.float64]:
    """Intersection over union of one box with each of (P, 4): (P,) float64, 0 to 1."""
    one_4, boxes = np.asarray(box, np.float64), boxes_P4.astype(np.float64)
    sides_P2 = np.minimum(one_4[2:], boxes[:, 2:]) - np.maximum(one_4[:2], boxes[:, :2])
    common_P = sides_P2.clip(0).prod(axis=1)
    union_P = (one_4[2:] - one_4[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - common_P
    iou_P: npt.NDArray[np.float64] = np.divide(common_P, union_P, out=np.zeros(len(boxes)), where=union_P > 0)
    return iou_P


def _face_of_pose(joints_J3: FloatArray, width: int, height: int) -> Box | None:
    """A square around the nose, in size after the points of the head that the detector saw (a logit above 0).

    Between brows and chin the tip of the nose is about the middle; from left to right the middle of the points is.
    None where the nose or both eyes were not seen: the face is then turned away.
    """
    seen = [number for number in range(_LEFT_SHOULDER) if joints_J3[number, 2] > 0]
    if _NOSE not in seen or not {_LEFT_EYE, _RIGHT_EYE} & set(seen):
        return None
    points = [(float(x), float(y)) for x, y in joints_J3[seen, :2]]
    half = FACE_OVER_SPAN * max(math.dist(a, b) for a, b in itertools.combinations(points, 2)) / 2
    x = (min(x for x, _ in points) + max(x for x, _ in points)) / 2
    y = float(joints_J3[_NOSE, 1])
    return clip_box((x - half, y - half, x + half, y + half), width, height)
