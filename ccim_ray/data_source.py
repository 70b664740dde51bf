"""Where a sweep's data come from, and what detectors and models have to derive because the dataset lacks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, LoadOptions
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.experiment import STAGE_VERSIONS, Experiment
from ccim_ray.perception.architectures import FACE_VIEWS, View
from ccim_ray.perception.detection_files import (
    SHARD_IMAGES,
    LackingDetectionsError,
    PlannedDetections,
    images_to_detect,
    images_without_pose,
    pictures_digest,
    pose_note,
    with_detected_boxes,
    with_detected_poses,
)
from ccim_ray.perception.weight_files import file_digest, weights_digest
from ccim_ray.storage import Storage, short_digest


@dataclass(frozen=True)
class DataSource:
    """The dataset of a sweep; read, or for an embedded world rendered, when first asked for.

    Three states of it: ``annotated`` is what can be known before a detector ran, ``located`` has a box for everybody,
    ``dataset`` the faces and keypoints too, as far as ``views`` need them. Each is the one before where nothing lacks.

    Attributes:
        views: what the baselines read: no pose is looked for that nobody reads.
    """

    name: str
    root: Path
    world: WorldSettings | None
    subject_limit: int | None
    storage: Storage
    options: LoadOptions = AS_PUBLISHED
    weights_dir: Path | None = None
    views: frozenset[View] = frozenset()

    @property
    def fingerprint(self) -> str:
        """Key of everything derived from the data."""
        return self.fingerprint_of(self.views)

    def fingerprint_of(self, views: Iterable[View]) -> str:
        """Key of what is made from these views: poses and depth count only where they are seen.

        A world is a function of its settings, and what a detector or a model finds one of the pictures and its
        weights, so none of them need exist.
        """
        seen = set(views)
        derived = []
        if self.poses and seen & {*FACE_VIEWS, "keypoints"}:
            derived.append(self.poses.folder.name)
        if self.options.depth_model and "depth" in seen:
            derived.append(file_digest(self.options.depth_model))
        return short_digest([self._located_fingerprint, *derived]) if derived else self._located_fingerprint

    @cached_property
    def _located_fingerprint(self) -> str:
        if self.world:
            return short_digest(_world_facts(self.world) | {"subject_limit": self.subject_limit})
        key = short_digest({"dataset": self.annotated.fingerprint, "subject_limit": self.subject_limit})
        return short_digest([key, self.detections.folder.name]) if self.detections else key

    def lacks_world(self) -> bool:
        """Whether it is an embedded world whose pictures are not all there."""
        from ccim_ray.datasets.confounded_scenes.world import is_complete  # brings the drawing with it

        return self.world is not None and not is_complete(self.world, self.root)

    @property
    def train_subjects(self) -> int:
        """Subjects in the train split: as many context features as a dictionary is made from."""
        if self.world:
            return self.world.split_sizes()["train"]
        return sum(subject.split == "train" for subject in self.known.subjects)

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories. Raises RequestError as ``annotated``."""
        return CATEGORIES[self.world.like] if self.world else self.annotated.categories

    @cached_property
    def detections(self) -> PlannedDetections | None:
        """What the detector of persons has to find; None without one, or where every person has a box."""
        if self.world or not self.options.detector:
            return None
        return self._planned(self.options.detector, images_to_detect(self.annotated), "--detector none")

    @cached_property
    def poses(self) -> PlannedDetections | None:
        """What the detector of poses has to find; None without one, or where all that is read is annotated."""
        if self.world or not self.options.pose_detector:
            return None
        images = images_without_pose(self.annotated, faces=self._read_faces, keypoints=self._read_keypoints)
        return self._planned(self.options.pose_detector, images, "--pose-detector none")

    def _planned(self, detector: str, images: tuple[str, ...], without: str) -> PlannedDetections | None:
        if not images:
            return None
        pictures = pictures_digest(self.root, images)
        weights = weights_digest(detector, "coco", self.weights_dir)
        key = short_digest([pictures, detector, weights, STAGE_VERSIONS["detection"], SHARD_IMAGES])
        return PlannedDetections(detector, self.storage.detections(key), images, without=without)

    @property
    def _read_faces(self) -> bool:
        return not self.views.isdisjoint(FACE_VIEWS)

    @property
    def _read_keypoints(self) -> bool:
        return "keypoints" in self.views

    @cached_property
    def annotated(self) -> Dataset:
        """Reads the annotation. Raises RequestError where folder or files are wrong."""
        options = replace(self.options, keep_unlocated=True) if self.options.detector else self.options
        dataset = load_dataset(self.name, self.root, options)
        return dataset.limited(self.subject_limit) if self.subject_limit else dataset

    @property
    def known(self) -> Dataset:
        """The dataset as far as it can be known now: before detection with everybody who may yet be found."""
        try:
            return self.located
        except LackingDetectionsError:
            return self.annotated

    @cached_property
    def located(self) -> Dataset:
        """Subjects with their boxes. Raises RequestError as ``annotated``, and where detections are missing."""
        return with_detected_boxes(self.annotated, self.detections) if self.detections else self.annotated

    @cached_property
    def dataset(self) -> Dataset:
        """Subjects with boxes, faces and keypoints; its note counts what of it is not annotated.

        Raises RequestError as ``located``, and where poses are missing.
        """
        posed = with_detected_poses(self.located, self.poses) if self.poses else self.located
        note = pose_note(self.annotated, posed, self.poses, faces=self._read_faces, keypoints=self._read_keypoints)
        return replace(posed, note="; ".join(filter(None, (posed.note, note)))) if note else posed


def _world_facts(world: WorldSettings) -> dict[str, object]:
    """What an embedded world's pictures depend on."""
    # The counterfactuals are named here instead of by a new version, which would make every real dataset's trial new.
    return {
        "world": world.model_dump(mode="json"),
        "version": STAGE_VERSIONS["world"],
        "counterfactuals": world.counterfactuals,
    }


def data_source(
    experiment: Experiment,
    storage: Storage,
    data_root: Path | None,
    options: LoadOptions,
    weights_dir: Path | None = None,
    views: frozenset[View] = frozenset(),
) -> DataSource:
    """Where the dataset of an experiment lies. Raises RequestError where a real dataset was given no folder."""
    if experiment.world:
        root, limit = storage.world(short_digest(_world_facts(experiment.world))), experiment.subject_limit
        return DataSource(experiment.dataset, root, experiment.world, limit, storage, views=views)
    if data_root is None:
        raise RequestError(f"--dataset {experiment.dataset} needs its folder: add --data-root DIR")
    root = data_root.expanduser().absolute()
    return DataSource(experiment.dataset, root, None, experiment.subject_limit, storage, options, weights_dir, views)
