"""The one record that runs through everything: a person annotated in an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels: 0-based, half-open, clipped to the decoded image."""

Point = tuple[float, float]

COUNTERFACTUAL = "counterfactual"
"""The embedded world's split of subjects who are shown once more, in another scene."""

SUBJECT_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("body_box", pa.list_(pa.float64(), 4), nullable=False),
        pa.field("face_box", pa.list_(pa.float64())),  # Parquet cannot read back a null of a fixed size
        pa.field("other_boxes", pa.list_(pa.list_(pa.float64(), 4)), nullable=False),
        pa.field("keypoints", pa.list_(pa.list_(pa.float64(), 2))),
        pa.field("depth", pa.string()),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("scene", pa.string()),
        pa.field("video", pa.string()),
        pa.field("frame", pa.int64()),
        pa.field("agent", pa.string()),
        pa.field("box_source", pa.string(), nullable=False),
        pa.field("box_score", pa.float64()),
        pa.field("counterfactual_of", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One annotated person.

    Attributes:
        subject_id: unique within the dataset, stable across runs.
        image: path of the picture relative to the dataset's root, with forward slashes.
        width, height: size of the decoded image in pixels.
        split: "train", "val", "test", or the embedded world's "test_id", "test_do", "test_anti"
            and COUNTERFACTUAL.
        body_box: the person's box.
        face_box: the person's face, where known.
        other_boxes: boxes of the other people in the image.
        keypoints: 18 points (x, y) in pixels in the OpenPose COCO order, where known.
        depth: path of a depth picture relative to the root, where there is one.
        labels: names of the categories that hold; one for single-label datasets.
        scene, video, frame: where known.
        agent: "<video>/<agent>", where one person is followed through a video: the same in all of its frames.
        box_source: where body_box comes from: "annotation", "user", "face", or a detector's name.
        box_score: the detector's score of body_box, 0 to 1, where a detector found it.
        counterfactual_of: ``subject_id`` of the same person in the scene that the world drew; in COUNTERFACTUAL alone.
    """

    subject_id: str
    image: str
    width: int
    height: int
    split: str
    body_box: Box
    labels: tuple[str, ...]
    box_source: str
    face_box: Box | None = None
    other_boxes: tuple[Box, ...] = ()
    keypoints: tuple[Point, ...] | None = None
    depth: str | None = None
    scene: str | None = None
    video: str | None = None
    frame: int | None = None
    agent: str | None = None
    box_score: float | None = None
    counterfactual_of: str | None = None


def clip_box(box: Iterable[float], width: int, height: int) -> Box | None:
    """Clip a half-open box to an image of ``width`` x ``height`` pixels.

    Returns None where nothing of at least one pixel on each side is left, or where a number is not finite.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        return None
    x1, y1, x2, y2 = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None
    return x1, y1, x2, y2


def agents_of(subjects: Sequence[Subject]) -> npt.NDArray[np.str_] | None:
    """Agent of each subject; None where there is nothing to average: no agents, or each of them in one frame."""
    agents = [subject.agent for subject in subjects]
    known = [agent for agent in agents if agent is not None]
    if len(known) < len(agents) or len(set(known)) == len(known):
        return None
    return np.array(known)


def scenes_of(subjects: Sequence[Subject]) -> npt.NDArray[np.str_] | None:
    """Scene of each subject; None unless all are known."""
    scenes = [subject.scene for subject in subjects]
    known = [scene for scene in scenes if scene is not None]
    return np.array(known) if known and len(known) == len(scenes) else None


def factual_rows_of(subjects: Sequence[Subject]) -> npt.NDArray[np.int64] | None:
    """Row of the subject that each is the counterfactual of, -1 for the others; None where nobody is one.

    Raises ValueError for a counterfactual of nobody.
    """
    row_of = {subject.subject_id: row for row, subject in enumerate(subjects)}
    factual = [subject.counterfactual_of for subject in subjects]
    missing = next((name for name in factual if name is not None and name not in row_of), None)
    if missing is not None:
        raise ValueError(f"a counterfactual of {missing}, who is not among the {len(subjects)} subjects")
    rows_S = np.array([-1 if name is None else row_of[name] for name in factual], np.int64)
    return rows_S if (rows_S >= 0).any() else None


def face_region(subject: Subject) -> Box:
    """The face; where none is known, the upper third of the body box."""
    if subject.face_box is not None:
        return subject.face_box
    x1, y1, x2, y2 = subject.body_box
    return x1, y1, x2, y1 + (y2 - y1) / 3


def subjects_to_table(subjects: Iterable[Subject]) -> pa.Table:
    """Arrow table of SUBJECT_SCHEMA, one row a subject."""
    return pa.Table.from_pylist([asdict(subject) for subject in subjects], schema=SUBJECT_SCHEMA)


def subjects_from_table(table: pa.Table) -> tuple[Subject, ...]:
    """The inverse of subjects_to_table."""
    return tuple(_subject_from_row(row) for row in table.to_pylist())


def _subject_from_row(row: dict) -> Subject:  # type: ignore[type-arg]
    # An index that was written before a column was added lacks it.
    later = ("depth", "scene", "video", "frame", "agent", "box_score", "counterfactual_of")
    optional = {name: row.get(name) for name in later}
    return Subject(
        subject_id=row["subject_id"],
        image=row["image"],
        width=row["width"],
        height=row["height"],
        split=row["split"],
        body_box=tuple(row["body_box"]),
        labels=tuple(row["labels"]),
        box_source=row["box_source"],
        face_box=tuple(row["face_box"]) if row["face_box"] is not None else None,
        other_boxes=tuple(tuple(box) for box in row["other_boxes"]),
        keypoints=tuple(tuple(point) for point in row["keypoints"]) if row["keypoints"] is not None else None,
        **optional,
    )
