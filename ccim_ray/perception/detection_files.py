"""Detections on disk, one file a shard of pictures, and the dataset whose boxes they are. Knows no torch.

Shape suffixes as in person_matching: P persons in one picture, J joints, 4 box, 3 x, y and peak.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ccim_ray.arrow_files import read_parquet
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.perception.person_matching import (
    COCO_JOINTS,
    Persons,
    add_pose,
    holds_centre,
    locate_subject,
    match_pose,
    needs_box,
)
from ccim_ray.storage import atomic_path

SHARD_IMAGES = 64
"""Pictures in one shard, the unit of resuming: minutes on a CPU core, seconds on a GPU."""

NOT_FOUND = "person not found by the detector: the face grown is the box"
LEFT_OUT = "person not found by the detector, and no face: left out"
OTHER_PERSON = "no person found where the face is: the largest person is taken"

_REMEDY = "jobs/extract_features.py with the same flags"

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("boxes", pa.list_(pa.float32()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
        pa.field("joints", pa.list_(pa.float32())),
    ]
)


class LackingDetectionsError(RequestError):
    """A shard of detections is missing or damaged: detecting makes it."""


@dataclass(frozen=True, eq=False, slots=True)
class PictureDetections:
    """Persons in one picture, or why it cannot be read."""

    persons: Persons
    reason: str | None = None


@dataclass(frozen=True)
class PlannedDetections:
    """Detections in every picture with a person whose box is to be found, as a folder of shards.

    Attributes:
        detector: torchvision's name of the detector.
        folder: where the shards lie.
        images: paths relative to the dataset's root, each once.
        shard_size: pictures in a shard; the last may hold fewer.
        without: the flag that does without the detector, for messages.
    """

    detector: str
    folder: Path
    images: tuple[str, ...]
    shard_size: int = SHARD_IMAGES
    without: str = "--detector none"

    @property
    def box_source(self) -> str:
        """Where a box that was found comes from, as subjects record it."""
        return f"{self.detector}@coco"

    @property
    def shards(self) -> int:
        """Number of shards in all."""
        return -(-len(self.images) // self.shard_size)

    def shard_path(self, number: int) -> Path:
        """File of one shard."""
        return self.folder / f"shard-{number:05d}.parquet"

    def shard_images(self, number: int) -> tuple[str, ...]:
        """Pictures of one shard."""
        return self.images[number * self.shard_size : (number + 1) * self.shard_size]

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [number for number in range(self.shards) if not self.shard_path(number).exists()]

    def read(self) -> dict[str, PictureDetections]:
        """Detections by picture. LackingDetectionsError where a shard is missing or damaged."""
        missing = self.missing()
        if missing:
            raise LackingDetectionsError(
                f"{self.folder} lacks {len(missing)} of {self.shards} shards of detections: {_REMEDY} makes them"
            )
        found: dict[str, PictureDetections] = {}
        for number in range(self.shards):
            found |= self.read_shard(number)
        return found

    def read_shard(self, number: int) -> dict[str, PictureDetections]:
        """Detections in the pictures of one shard. LackingDetectionsError where it is missing or damaged."""
        return _read_shard(self.shard_path(number), self.shard_images(number))


def images_to_detect(dataset: Dataset) -> tuple[str, ...]:
    """Pictures that show a person whose box is to be found, each once, sorted."""
    return tuple(sorted({subject.image for subject in dataset.subjects if needs_box(subject)}))


def images_without_pose(dataset: Dataset, *, faces: bool, keypoints: bool) -> tuple[str, ...]:
    """Pictures that show a person whose face or keypoints are asked for and not annotated, each once, sorted."""
    lacking = {
        subject.image
        for subject in dataset.subjects
        if (faces and subject.face_box is None) or (keypoints and subject.keypoints is None)
    }
    return tuple(sorted(lacking))


def pictures_digest(root: Path, images: Sequence[str]) -> str:
    """sha256 over the pictures' paths and sizes in bytes: their split and labels do not concern a detector."""
    digest = hashlib.sha256()
    for image in images:
        path = root / image
        digest.update(f"{image}\0{path.stat().st_size if path.is_file() else -1}\n".encode())
    return digest.hexdigest()


def write_detections(path: Path, images: Sequence[str], found: Sequence[PictureDetections]) -> None:
    """Write one shard, atomically."""
    rows = [
        {
            "image": image,
            "reason": detections.reason,
            "boxes": detections.persons.boxes_P4.ravel(),
            "scores": detections.persons.scores_P,
            "joints": None if detections.persons.joints_PJ3 is None else detections.persons.joints_PJ3.ravel(),
        }
        for image, detections in zip(images, found, strict=True)
    ]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), temporary, write_page_checksum=True)


def _read_shard(path: Path, images: tuple[str, ...]) -> dict[str, PictureDetections]:
    try:
        rows = read_parquet(path, _SCHEMA).to_pylist()
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise LackingDetectionsError(f"{path} is damaged ({error}); {_REMEDY} makes it again") from error
    if tuple(row["image"] for row in rows) != images:
        raise LackingDetectionsError(
            f"{path} holds {len(rows)} pictures, not the {len(images)} expected; {_REMEDY} makes it again"
        )
    try:
        return {row["image"]: PictureDetections(_persons(row), row["reason"]) for row in rows}
    except (TypeError, ValueError) as error:
        raise LackingDetectionsError(
            f"{path} does not hold boxes and scores ({error}); {_REMEDY} makes it again"
        ) from error


def _persons(row: Mapping[str, list[float] | None]) -> Persons:
    joints = row["joints"]
    return Persons(
        np.array(row["boxes"], np.float32).reshape(-1, 4),
        np.array(row["scores"], np.float32),
        None if joints is None else np.array(joints, np.float32).reshape(-1, COCO_JOINTS, 3),
    )


def with_detected_boxes(dataset: Dataset, planned: PlannedDetections) -> Dataset:
    """The dataset with a box for every person that was found, by ``person_matching.locate_subject``.

    Its defects count those who were not: NOT_FOUND, LEFT_OUT, and OTHER_PERSON where nobody stands around the face;
    and pictures that cannot be read.

    Raises:
        RequestError: detections are missing or damaged, or not one subject is left.
    """
    detections, defects = planned.read(), deepcopy(dataset.defects)
    subjects = []
    for subject in dataset.subjects:
        if not needs_box(subject):
            subjects.append(subject)
            continue
        of_picture = detections[subject.image]
        located = locate_subject(subject, of_picture.persons, planned.box_source)
        if of_picture.reason:
            defects.add(of_picture.reason, subject.subject_id, subject.split)
        if located is None:
            defects.add(LEFT_OUT, subject.subject_id, subject.split)
            continue
        subjects.append(located)
        if located.box_source != planned.box_source:
            defects.add(NOT_FOUND, subject.subject_id, subject.split)
        elif subject.face_box and not holds_centre(located.body_box, subject.face_box):
            defects.add(OTHER_PERSON, subject.subject_id, subject.split)
    if not subjects:
        raise RequestError(
            f"{dataset.root}: {planned.detector} found nobody in any of {len(planned.images)} images; "
            "check the weights of the detector, or give face or body boxes"
        )
    return replace(dataset, subjects=tuple(subjects), defects=defects)


def with_detected_poses(dataset: Dataset, planned: PlannedDetections) -> Dataset:
    """The dataset with the face and the keypoints of everybody whose pose was found (``person_matching.match_pose``).

    What is annotated stays. RequestError where detections are missing or damaged.
    """
    detections = planned.read()

    def posed(subject: Subject) -> Subject:
        if subject.image not in detections:
            return subject
        persons = detections[subject.image].persons
        return add_pose(subject, match_pose(persons, subject.body_box, subject.width, subject.height))

    return replace(dataset, subjects=tuple(posed(subject) for subject in dataset.subjects))


def pose_note(
    annotated: Dataset, dataset: Dataset, planned: PlannedDetections | None, *, faces: bool, keypoints: bool
) -> str:
    """How many faces and keypoints, as far as they are read, are annotated, found and neither; empty where all are.

    Args:
        annotated: the dataset before any detector.
        dataset: the same after them.
        planned: the detector of poses, where there is one.
    """
    before = {subject.subject_id: subject for subject in annotated.subjects}
    told = []
    for read, name, field, otherwise in (
        (faces, "faces", "face_box", "taken as the upper third of the body"),
        (keypoints, "keypoints", "keypoints", "unknown"),
    ):
        given = sum(getattr(before[subject.subject_id], field) is not None for subject in dataset.subjects)
        there = sum(getattr(subject, field) is not None for subject in dataset.subjects)
        if not read or given == len(dataset.subjects):
            continue
        found = f"{there - given} found" + (f" by {planned.box_source}" if planned else "")
        told.append(f"{name}: {given} annotated, {found}, {len(dataset.subjects) - there} {otherwise}")
    return "; ".join(told)


def detection_summary(dataset: Dataset, planned: PlannedDetections) -> str:
    """One line: how many persons of a dataset made by ``with_detected_boxes`` were found, fell back, were left out.

    And the scores of those that were found.
    """
    scores = [subject.box_score for subject in dataset.subjects if subject.box_score is not None]
    counts = dataset.defects.counts
    told = (
        f"{len(scores)} found by {planned.box_source}, {counts.get(NOT_FOUND, 0)} fell back to the face, "
        f"{counts.get(LEFT_OUT, 0)} left out"
    )
    if not scores:
        return told
    return f"{told}; scores {min(scores):.2f} to {max(scores):.2f}, median {np.median(scores):.2f}"
