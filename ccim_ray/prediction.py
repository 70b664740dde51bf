"""What a prediction asks for, and which persons of which pictures it is about. Knows neither torch nor Ray."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ccim_ray.chosen_model import ChosenModel
from ccim_ray.datasets.depth import DEPTH_FOLDER
from ccim_ray.datasets.images import UnreadableImage
from ccim_ray.datasets.subject import Subject, clip_box
from ccim_ray.experiment import STAGE_VERSIONS
from ccim_ray.new_pictures import Pictures, pictures_state
from ccim_ray.perception.architectures import FACE_VIEWS, View
from ccim_ray.perception.detection_files import PictureDetections, PlannedDetections
from ccim_ray.perception.person_matching import PERSON_SCORE, Persons, add_pose, match_pose
from ccim_ray.perception.weight_files import weights_digest
from ccim_ray.persons import Person, subjects_of
from ccim_ray.plan import views_read
from ccim_ray.storage import Storage, short_digest

NO_BOX = "no box in the file of boxes"
OUTSIDE = "box does not lie in the image"
NOBODY = "nobody found"

Sizes = Mapping[str, tuple[int, int] | UnreadableImage]


@dataclass(frozen=True)
class Located:
    """One line of the result before anything is predicted: a person, or a picture without one and why.

    Attributes:
        person: number within the picture, from 0; None where there is none.
        subject: None where nothing can be predicted.
        box_score: the detector's, 0 to 1; None for a box that was given.
        status: why there is no subject.
    """

    image: str
    person: int | None = None
    subject: Subject | None = None
    box_score: float | None = None
    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """One prediction.

    Attributes:
        model: what predicts.
        pictures: what is looked at; of the embedded world, only its root counts.
        persons: from a file of boxes; None where a detector or the embedded world knows them.
        of_world: whether the pictures are the test pictures of the model's own embedded world.
        detector: finds persons; None where they are known.
        pose_detector: finds the faces and keypoints that the model reads; None takes what is known.
        depth_model: makes the depth pictures that the model reads; None takes those beside the images.
        annotated: how many pictures are drawn.
        out: folder of the result; None takes one under the storage.
    """

    model: ChosenModel
    pictures: Pictures
    persons: tuple[Person, ...] | None
    of_world: bool
    detector: str | None
    pose_detector: str | None
    depth_model: Path | None
    annotated: int
    storage: Storage
    out: Path | None
    weights_dir: Path | None

    @cached_property
    def views(self) -> frozenset[View]:
        """What the model reads of a person."""
        return views_read([self.model.experiment])

    @property
    def images(self) -> tuple[str, ...]:
        """Pictures that the result is about, sorted."""
        given = {person.image for person in self.persons or ()}
        return tuple(sorted({*self.pictures.images, *given}))

    def detections(self, images: Sequence[str]) -> PlannedDetections | None:
        """What the detector of persons has to find. RequestError where its weights cannot be named."""
        return self._planned(self.detector, images, "--boxes FILE") if self.detector else None

    def poses(self, subjects: Iterable[Subject]) -> PlannedDetections | None:
        """What the detector of poses has to find: pictures of persons without the face or keypoints that are read."""
        if not self.pose_detector:
            return None
        faces, keypoints = not self.views.isdisjoint(FACE_VIEWS), "keypoints" in self.views
        lacking = {
            subject.image
            for subject in subjects
            if (faces and subject.face_box is None) or (keypoints and subject.keypoints is None)
        }
        return self._planned(self.pose_detector, sorted(lacking), "--pose-detector none") if lacking else None

    def _planned(self, detector: str, images: Sequence[str], without: str) -> PlannedDetections:
        weights = weights_digest(detector, "coco", self.weights_dir)
        state = pictures_state(self.pictures.root, images)
        key = short_digest(["new pictures", state, detector, weights, STAGE_VERSIONS["detection"]])
        return PlannedDetections(detector, self.storage.detections(key), tuple(images), without=without)


def located_from_boxes(images: Sequence[str], persons: Sequence[Person], sizes: Sizes) -> list[Located]:
    """Lines for the persons of a file of boxes, picture by picture, each in the order of the file."""
    of_image: dict[str, list[Person]] = defaultdict(list)
    for person in persons:
        of_image[person.image].append(person)
    lines: list[Located] = []
    for image in images:
        size = sizes[image]
        if isinstance(size, UnreadableImage):
            lines += [Located(image, k, status=size.reason) for k in range(len(of_image[image]))] or [
                Located(image, status=size.reason)
            ]
            continue
        subjects = subjects_of(of_image[image], {image: size})
        lines += [
            Located(image, number, subject, status=None if subject else OUTSIDE)
            for number, subject in enumerate(subjects)
        ] or [Located(image, status=NO_BOX)]
    return lines


def located_by_detector(
    images: Sequence[str], detections: Mapping[str, PictureDetections], sizes: Sizes, box_source: str
) -> list[Located]:
    """Lines for everybody who was found, picture by picture, the surest first, with the pose where one was found."""
    lines: list[Located] = []
    for image in images:
        size = sizes[image]
        if isinstance(size, UnreadableImage):
            lines.append(Located(image, status=size.reason))
            continue
        found = detections[image]
        if found.reason:
            lines.append(Located(image, status=found.reason))
            continue
        lines += _found_in(image, found.persons, size, box_source) or [Located(image, status=NOBODY)]
    return lines


def _found_in(image: str, persons: Persons, size: tuple[int, int], box_source: str) -> list[Located]:
    width, height = size
    boxes = [
        (clip_box(box_4, width, height), float(score))
        for box_4, score in zip(persons.boxes_P4, persons.scores_P, strict=True)
        if score >= PERSON_SCORE
    ]
    sure = sorted(((box, score) for box, score in boxes if box), key=lambda found: -found[1])
    lines = []
    for number, (box, score) in enumerate(sure):
        subject = Subject(
            subject_id=f"{image}#{number}",
            image=image,
            width=width,
            height=height,
            split="test",
            body_box=box,
            labels=(),
            box_source=box_source,
            other_boxes=tuple(other for k, (other, _) in enumerate(sure) if k != number),
        )
        posed = add_pose(subject, match_pose(persons, box, width, height))
        lines.append(Located(image, number, posed, score))
    return lines


def located_in_world(subjects: Iterable[Subject]) -> list[Located]:
    """Lines for subjects of a dataset, in its order."""
    seen: Counter[str] = Counter()
    lines = []
    for subject in subjects:
        lines.append(Located(subject.image, seen[subject.image], subject))
        seen[subject.image] += 1
    return lines


def with_poses(lines: Sequence[Located], detections: Mapping[str, PictureDetections]) -> list[Located]:
    """Lines with the faces and keypoints of those whose pose was found; what is known stays."""

    def posed(line: Located) -> Located:
        if line.subject is None or line.image not in detections:
            return line
        subject = line.subject
        pose = match_pose(detections[line.image].persons, subject.body_box, subject.width, subject.height)
        return replace(line, subject=add_pose(subject, pose))

    return [posed(line) for line in lines]


def with_depth(lines: Sequence[Located], root: Path) -> list[Located]:
    """Lines that name the depth picture beside each image, where there is one and none was named."""

    def deep(line: Located) -> Located:
        beside = f"{DEPTH_FOLDER}/{line.image}.png"
        if line.subject is None or line.subject.depth is not None or not (root / beside).is_file():
            return line
        return replace(line, subject=replace(line.subject, depth=beside))

    return [deep(line) for line in lines]
