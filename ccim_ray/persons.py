"""Persons in new pictures as a user describes them, in a CSV file or in the input of a logged model. Knows no torch.

Boxes and points are in pixels of the stored picture, 0-based and half-open.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccim_ray.datasets.subject import Box, Point, Subject, clip_box
from ccim_ray.errors import RequestError

BOX_COLUMNS = ("x1", "y1", "x2", "y2")
FACE_COLUMNS = ("face_x1", "face_y1", "face_x2", "face_y2")

INPUT_COLUMNS = ("image", *BOX_COLUMNS)
"""Path of a picture, and the person's box."""

OPTIONAL_COLUMNS = {
    **dict.fromkeys(FACE_COLUMNS, "double"),
    **dict.fromkeys(("keypoints", "other_boxes", "depth"), "string"),
}
"""What else may be known of a person, with the type that MLflow gives it; a blank cell is what is not known.

The face's box; 18 points "x y x y ..." in the OpenPose COCO order, "nan nan" for a hidden one; boxes of other people
"x1 y1 x2 y2 ...", by default those of the picture's other rows; and the path of a depth picture, light for near.
"""

KEYPOINTS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person as described; ``box`` need not lie in the image, and None is what is not known.

    ``other_boxes`` is None where the other persons of the same picture are the others.
    """

    image: str
    box: Box
    face_box: Box | None = None
    keypoints: tuple[Point, ...] | None = None
    other_boxes: tuple[Box, ...] | None = None
    depth: str | None = None


def read_person(row: Mapping[str, Any], where: str) -> Person:
    """A person from the cells of a row: text, numbers, or None and NaN for blank ones.

    Args:
        where: file and line, or the number of the row, for messages.

    Raises:
        RequestError: a cell does not hold what its column is for.
    """
    if _is_blank(row["image"]):
        raise RequestError(f"{where}: image is blank; give the path of a picture")
    face = None
    if not all(_is_blank(row.get(name)) for name in FACE_COLUMNS):
        face = _box([row.get(name) for name in FACE_COLUMNS], FACE_COLUMNS, where)
    points = _numbers(row, "keypoints", where)
    if points is not None and len(points) != 2 * KEYPOINTS:
        raise RequestError(f"{where}: keypoints holds {len(points)} numbers; give x and y of {KEYPOINTS} points")
    others = _numbers(row, "other_boxes", where)
    if others is not None and (len(others) % 4 or not all(map(math.isfinite, others))):
        raise RequestError(f"{where}: other_boxes holds {len(others)} numbers; give x1 y1 x2 y2 of every other person")
    return Person(
        image=str(row["image"]),
        box=_box([row[name] for name in BOX_COLUMNS], BOX_COLUMNS, where),
        face_box=face,
        keypoints=None if points is None else tuple(zip(points[::2], points[1::2], strict=True)),
        other_boxes=None if others is None else tuple(_four(others[at : at + 4]) for at in range(0, len(others), 4)),
        depth=None if _is_blank(row.get("depth")) else str(row["depth"]),
    )


def write_person(subject: Subject, root: Path | None = None) -> dict[str, Any]:
    """The row from which ``read_person`` gives this subject; pictures under ``root`` where there is one."""
    row: dict[str, Any] = {"image": _under(root, subject.image)}
    row |= dict(zip(BOX_COLUMNS, subject.body_box, strict=True))
    if subject.face_box is not None:
        row |= dict(zip(FACE_COLUMNS, subject.face_box, strict=True))
    if subject.keypoints is not None:
        row["keypoints"] = " ".join(str(value) for point in subject.keypoints for value in point)
    if subject.other_boxes:
        row["other_boxes"] = " ".join(str(value) for box in subject.other_boxes for value in box)
    if subject.depth is not None:
        row["depth"] = _under(root, subject.depth)
    return row


def subjects_of(persons: Sequence[Person], sizes: Mapping[str, tuple[int, int]]) -> list[Subject | None]:
    """Persons clipped to their pictures; None for one whose box does not lie in its picture by a pixel or more.

    Args:
        sizes: width and height of every person's picture.
    """
    boxes = [clip_box(person.box, *sizes[person.image]) for person in persons]
    of_image: dict[str, list[int]] = defaultdict(list)
    for number, person in enumerate(persons):
        of_image[person.image].append(number)
    made: list[Subject | None] = []
    for number, (person, box) in enumerate(zip(persons, boxes, strict=True)):
        if box is None:
            made.append(None)
            continue
        width, height = sizes[person.image]
        others = person.other_boxes
        if others is None:
            others = tuple(persons[other].box for other in of_image[person.image] if other != number)
        clipped = (clip_box(other, width, height) for other in others)
        made.append(
            Subject(
                subject_id=f"{person.image}#{of_image[person.image].index(number)}",
                image=person.image,
                width=width,
                height=height,
                split="test",
                body_box=box,
                labels=(),
                box_source="user",
                face_box=clip_box(person.face_box, width, height) if person.face_box else None,
                keypoints=person.keypoints,
                other_boxes=tuple(other for other in clipped if other is not None),
                depth=person.depth,
            )
        )
    return made


def _under(root: Path | None, path: str) -> str:
    return path if root is None else str(root / path)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def _box(values: Sequence[Any], columns: Sequence[str], where: str) -> Box:
    try:
        box = _four([float(value) for value in values])
    except (TypeError, ValueError):
        box = (math.nan,) * 4
    if not all(map(math.isfinite, box)):
        written = ",".join("" if _is_blank(value) else str(value) for value in values)
        raise RequestError(f"{where}: {','.join(columns)} hold {written!r}, which are not four numbers")
    return box


def _four(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2


def _numbers(row: Mapping[str, Any], column: str, where: str) -> list[float] | None:
    if _is_blank(row.get(column)):
        return None
    try:
        return [float(number) for number in re.split(r"[\s,;]+", str(row[column]).strip(" []()"))]
    except ValueError:
        text = str(row[column])
        raise RequestError(f"{where}: {column} holds {text[:60]!r}; give numbers with spaces between them") from None
