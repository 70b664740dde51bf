"""Persons as rows of text: what is written is read back, and what cannot be read is said."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.persons import Person, read_person, subjects_of, write_person

ROW = {"image": "a.jpg", "x1": "1", "y1": "2", "x2": "30.5", "y2": "40"}


@pytest.mark.parametrize("as_text", [True, False])
def test_a_subject_comes_back_from_its_row(small_world, as_text):
    for subject in load_dataset("confounded_scenes", small_world).subjects[:10]:
        row = write_person(subject)
        if as_text:
            row = {name: str(value) for name, value in row.items()}
        (found,) = subjects_of([read_person(row, "row 0")], {subject.image: (subject.width, subject.height)})
        expected = replace(
            subject, subject_id=f"{subject.image}#0", split="test", labels=(), box_source="user", scene=None
        )
        assert found == expected
        assert found.face_box
        assert found.keypoints
        assert found.depth


def test_paths_are_put_under_the_root(small_world):
    subject = load_dataset("confounded_scenes", small_world).subjects[0]
    row = write_person(subject, Path("/data"))
    assert (row["image"], row["depth"]) == (f"/data/{subject.image}", f"/data/{subject.depth}")


def test_blank_cells_are_what_is_not_known():
    blank = dict.fromkeys(("face_x1", "face_y1", "face_x2", "face_y2"), math.nan)
    person = read_person(ROW | blank | {"keypoints": None, "other_boxes": " ", "depth": ""}, "row 0")
    assert person == Person(image="a.jpg", box=(1.0, 2.0, 30.5, 40.0))


def test_hidden_keypoints_and_any_separators():
    points = " ".join(["nan,nan"] + ["3; 4.5"] * 17)
    found = read_person(ROW | {"keypoints": f"[{points}]"}, "row 0").keypoints
    assert len(found) == 18
    assert math.isnan(found[0][0])
    assert found[17] == (3.0, 4.5)


def test_rows_of_one_picture_are_each_others_other_people():
    boxes = [(0, 0, 10, 10), (5, 5, 60, 60), (90, 90, 99, 99), (1, 1, 9, 9)]
    persons = [Person(image="a.jpg" if k < 3 else "b.jpg", box=box) for k, box in enumerate(boxes)]
    persons.append(Person(image="b.jpg", box=(2, 2, 8, 8), other_boxes=((0, 0, 4, 4),)))
    found = subjects_of(persons, {"a.jpg": (50, 40), "b.jpg": (50, 40)})
    assert found[2] is None  # outside, and nobody's other
    assert (found[0].other_boxes, found[1].other_boxes) == (((5, 5, 50, 40),), ((0, 0, 10, 10),))
    assert found[1].body_box == (5, 5, 50, 40)
    assert (found[3].other_boxes, found[4].other_boxes) == (((2, 2, 8, 8),), ((0, 0, 4, 4),))
    assert [one.subject_id for one in found if one] == ["a.jpg#0", "a.jpg#1", "b.jpg#0", "b.jpg#1"]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"image": " "}, "row 3: image is blank"),
        ({"x2": "wide"}, "row 3: x1,y1,x2,y2 hold '1,2,wide,40', which are not four numbers"),
        ({"x2": ""}, "'1,2,,40'"),
        ({"x2": "nan"}, "not four numbers"),
        ({"x2": None}, "'1,2,,40'"),
        ({"face_x1": "3"}, "row 3: face_x1,face_y1,face_x2,face_y2 hold '3,,,'"),
        ({"keypoints": "1 2 3"}, "row 3: keypoints holds 3 numbers; give x and y of 18 points"),
        ({"keypoints": "left hand"}, "row 3: keypoints holds 'left hand'; give numbers"),
        ({"other_boxes": "1 2 3 4 5"}, "row 3: other_boxes holds 5 numbers"),
        ({"other_boxes": "1 2 3 nan"}, "other_boxes holds 4 numbers"),
    ],
)
def test_a_cell_that_is_wrong_is_named(cells, told):
    with pytest.raises(RequestError, match=told) as error:
        read_person(ROW | cells, "row 3")
    assert "\n" not in str(error.value)
