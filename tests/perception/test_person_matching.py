"""Which detection is the annotated person, and what a pose says: against plain loops and drawn figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccim_ray.datasets.caer_s import body_from_face
from ccim_ray.datasets.dataset import UNLOCATED
from ccim_ray.datasets.subject import Subject
from ccim_ray.perception.person_matching import (
    PERSON_SCORE,
    POSE_IOU,
    Persons,
    box_iou,
    choose_person,
    locate_subject,
    match_pose,
    openpose_points,
)

WIDTH, HEIGHT = 200, 100
FACE = (90.0, 20.0, 110.0, 40.0)  # its centre is (100, 30)
FIGURE = {
    "nose": (20, 10), "left_eye": (23, 8), "right_eye": (17, 8), "left_ear": (26, 9), "right_ear": (14, 9),
    "left_shoulder": (32, 20), "right_shoulder": (8, 22), "left_elbow": (36, 32), "right_elbow": (4, 32),
    "left_wrist": (38, 44), "right_wrist": (2, 44), "left_hip": (28, 45), "right_hip": (12, 45),
    "left_knee": (27, 60), "right_knee": (13, 60), "left_ankle": (26, 78), "right_ankle": (14, 78),
}  # fmt: skip
COCO = tuple(FIGURE)
OPENPOSE = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)


def persons(*boxes_and_scores, joints=None):
    boxes = np.array([box for box, _ in boxes_and_scores], np.float32).reshape(-1, 4)
    return Persons(boxes, np.array([score for _, score in boxes_and_scores], np.float32), joints)


def subject(box_source="face", face=FACE, body=None):
    body = body or (body_from_face(face, WIDTH, HEIGHT) if face else (0.0, 0.0, float(WIDTH), float(HEIGHT)))
    return Subject(
        subject_id="a",
        image="a.png",
        width=WIDTH,
        height=HEIGHT,
        split="train",
        body_box=body,
        labels=("Happy",),
        box_source=box_source,
        face_box=face,
    )


AROUND, BESIDE, LARGE_AROUND = (80, 10, 120, 90), (0, 0, 70, 100), (10, 5, 190, 95)


@pytest.mark.parametrize(
    ("found", "face", "chosen"),
    [
        ([], FACE, None),
        ([(AROUND, 0.49)], FACE, None),
        ([(AROUND, 0.5)], FACE, 0),
        ([(BESIDE, 0.99), (AROUND, 0.6)], FACE, 1),
        ([(LARGE_AROUND, 0.7), (AROUND, 0.8)], FACE, 1),
        ([(AROUND, 0.7), (LARGE_AROUND, 0.8)], FACE, 1),
        ([(AROUND, 0.8), (LARGE_AROUND, 0.8)], FACE, 1),
        ([(AROUND, 0.8), (AROUND, 0.8)], FACE, 0),
        ([(AROUND, 0.4), (BESIDE, 0.6)], FACE, 1),
        ([((0, 0, 30, 30), 0.99), (BESIDE, 0.6)], FACE, 1),
        ([(AROUND, 0.99), (LARGE_AROUND, 0.6)], None, 1),
        ([(BESIDE, 0.6), (BESIDE, 0.7)], None, 1),
        ([(AROUND, float("nan"))], FACE, None),
        ([((100, 10, 100.5, 90), 0.9), (AROUND, 0.6)], FACE, 1),
        ([((100, 30, 150, 90), 0.9)], FACE, 0),  # half-open: the centre lies on its first pixel
        ([((50, 10, 100, 90), 0.9), ((99, 10, 101, 90), 0.5)], FACE, 1),  # and one past its last
    ],
)
def test_the_person_around_the_face_else_the_largest(found, face, chosen):
    assert choose_person(persons(*found), face) == chosen


coordinates = st.integers(0, 100)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinates, coordinates, coordinates, coordinates)
scored = st.lists(st.tuples(boxes, st.integers(0, 20).map(lambda score: score / 20)), max_size=8)


@given(scored, st.none() | boxes.filter(lambda box: box[2] > box[0] and box[3] > box[1]))
def test_choice_is_a_maximum_of_the_first_rule_that_applies(found, face):
    """By a plain loop: every other candidate is worse by the rule, and no candidate of an earlier rule exists."""
    chosen = choose_person(persons(*found), face)

    def area(box):
        return (box[2] - box[0]) * (box[3] - box[1])

    def holds(box):
        x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
        return box[0] <= x < box[2] and box[1] <= y < box[3]

    whole = [
        (box, score) for box, score in found if score >= PERSON_SCORE and box[2] - box[0] >= 1 and box[3] - box[1] >= 1
    ]
    around = [(box, score) for box, score in whole if face and holds(box)]
    if chosen is None:
        assert not whole
    elif around:
        assert found[chosen] in around
        assert found[chosen][1] == max(score for _, score in around)
    else:
        assert area(found[chosen][0]) == max(area(box) for box, _ in whole)


def test_a_found_person_gives_the_box_and_its_source():
    located = locate_subject(subject(), persons((AROUND, 0.9)), "some@coco")
    assert located.body_box == AROUND
    assert (located.box_source, located.box_score) == ("some@coco", pytest.approx(0.9))
    assert located.face_box == FACE
    assert located.keypoints is None
    unlocated = locate_subject(subject(UNLOCATED, face=None), persons((AROUND, 0.9)), "some@coco")
    assert (unlocated.body_box, unlocated.box_source) == (AROUND, "some@coco")
    assert unlocated.face_box is None


def test_a_box_that_leaves_the_picture_is_clipped():
    located = locate_subject(subject(), persons(((-5, -5, 300, 300), 0.9)), "some@coco")
    assert located.body_box == (0, 0, WIDTH, HEIGHT)


def test_nobody_found_leaves_the_face_grown_or_nothing():
    with_face = subject()
    assert locate_subject(with_face, persons((AROUND, 0.2)), "some@coco") == with_face
    assert with_face.body_box == body_from_face(FACE, WIDTH, HEIGHT)
    assert with_face.box_score is None
    assert locate_subject(subject(UNLOCATED, face=None), persons((AROUND, 0.2)), "some@coco") is None


@pytest.mark.parametrize("source", ["user", "annotation"])
def test_a_known_box_stays(source):
    known = subject(source, body=(1.0, 2.0, 30.0, 40.0))
    assert locate_subject(known, persons((AROUND, 0.99)), "some@coco") is known


@given(boxes, st.lists(boxes, min_size=1, max_size=5))
def test_overlap_is_what_counting_pixels_gives(one, others):
    def pixels(box):
        mask = np.zeros((201, 201), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        return mask

    expected = []
    for other in others:
        union = (pixels(one) | pixels(other)).sum()
        expected.append((pixels(one) & pixels(other)).sum() / union if union else 0)
    np.testing.assert_allclose(box_iou(one, np.array(others, np.float32)), expected, atol=1e-12)


def standing(shift=0.0, unseen=()):
    """A person of 40 x 80 pixels seen from the front, whose left is right in the picture: (17, 3)."""
    joints = np.array([(*point, -1 if name in unseen else 5) for name, point in FIGURE.items()], np.float32)
    joints[:, 0] += shift
    return joints


BODY = (0, 0, 40, 80)


def test_points_keep_their_names_and_the_neck_is_between_the_shoulders():
    joints = standing()
    named = dict(zip(OPENPOSE, openpose_points(joints), strict=True))
    assert named.pop("neck") == (20, 21)
    assert named == {name: tuple(joints[COCO.index(name), :2]) for name in named}
    assert len(named) == 17


def test_the_pose_of_the_overlapping_person_is_taken():
    joints = np.stack([standing(100), standing(), standing(5)]).astype(np.float32)
    found = persons(((100, 0, 140, 80), 0.99), (BODY, 0.6), ((5, 0, 45, 80), 0.99), joints=joints)
    pose = match_pose(found, (0, 0, 41, 80), WIDTH, HEIGHT)
    assert pose.keypoints == openpose_points(joints[1])
    assert match_pose(found, (60, 0, 95, 80), WIDTH, HEIGHT) is None


@pytest.mark.parametrize(("width", "matches"), [(80, True), (82, False)])
def test_half_of_the_union_is_enough(width, matches):
    assert POSE_IOU == 0.5
    pose = match_pose(persons((BODY, 0.9), joints=standing()[None]), (0, 0, width, 80), WIDTH, HEIGHT)
    assert (pose is not None) == matches


def test_no_pose_without_joints_persons_or_score():
    assert match_pose(persons((BODY, 0.9)), BODY, WIDTH, HEIGHT) is None
    assert match_pose(persons(joints=np.zeros((0, 17, 3), np.float32)), BODY, WIDTH, HEIGHT) is None
    assert match_pose(persons((BODY, 0.3), joints=standing()[None]), BODY, WIDTH, HEIGHT) is None


def face_of(joints, body=BODY):
    return match_pose(persons((body, 0.9), joints=joints[None].astype(np.float32)), body, WIDTH, HEIGHT).face_box


def test_the_face_is_a_square_around_the_nose_a_little_wider_than_the_ears():
    x1, y1, x2, y2 = face_of(standing())
    assert x2 - x1 == pytest.approx(y2 - y1) == pytest.approx(1.1 * 12)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((20, 10))
    moved = face_of(standing(50), (50, 0, 90, 80))
    assert moved == pytest.approx((x1 + 50, y1, x2 + 50, y2))


def test_a_face_in_profile_reaches_from_nose_to_ear():
    joints = standing(unseen=("left_eye", "left_ear"))
    x1, _, x2, _ = face_of(joints)
    assert (x1 + x2) / 2 == pytest.approx((14 + 20) / 2)
    assert x2 - x1 == pytest.approx(1.1 * math.dist((20, 10), (14, 9)), rel=1e-6)


@pytest.mark.parametrize("unseen", [("nose",), ("left_eye", "right_eye")])
def test_a_head_turned_away_has_no_face(unseen):
    assert face_of(standing(unseen=unseen)) is None


def test_a_pose_fills_in_the_face_but_never_replaces_an_annotated_one():
    found = persons((BODY, 0.9), joints=standing()[None].astype(np.float32))
    without = locate_subject(subject(UNLOCATED, face=None), found, "some@coco")
    assert without.face_box == face_of(standing())
    assert len(without.keypoints) == 18
    annotated = locate_subject(subject(face=(10.0, 0.0, 30.0, 20.0)), found, "some@coco")
    assert annotated.face_box == (10, 0, 30, 20)
    assert annotated.keypoints == without.keypoints
