"""What a measurement of context bias asks for: which scenes of which images, and what must be made first."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from ccim_ray.context_bias import BiasOptions
from ccim_ray.data_source import DataSource
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.errors import RequestError
from ccim_ray.experiment import STAGE_VERSIONS
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.weight_files import default_weights_dir, planned_digest
from ccim_ray.plan import SHARD_SUBJECTS, Plan, PlannedView
from ccim_ray.storage import Storage, short_digest

MEASUREMENT_VERSION = 1
"""Raised by hand when the measurement's numbers change."""

PAPER_EMOTIONS = ("Anger", "Angry", "Happiness", "Happy", "Fear")
"""The paper's "anger", "happy" and "fear", as the datasets spell them."""

SCENE_WEIGHTS = ("places365", "scenes")
"""Weights whose head tells scenes."""

PLACES365_NAMES = "categories_places365.txt"
"""Names of the 365 classes as published with Places365: a line is ``/a/airfield 0``."""


@dataclass(frozen=True, kw_only=True)
class BiasRequest:
    """One measurement.

    Attributes:
        source: the dataset.
        splits: the splits whose images are measured, together.
        asked: the emotions; empty for the paper's, ("all",) for every one.
        scenes: "backbone": the most probable class of ``backbone`` for the whole image, as in the paper;
            "annotation": the dataset's own.
        backbone: architecture and weights, such as ("resnet152", "places365").
        without_weights: only its plan is wanted, for which weights may be missing.
    """

    source: DataSource
    splits: tuple[str, ...]
    asked: tuple[str, ...]
    scenes: Literal["backbone", "annotation"]
    backbone: tuple[str, str]
    options: BiasOptions
    storage: Storage
    weights_dir: Path | None = None
    without_weights: bool = False

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The emotions to measure. Raises RequestError for one that the dataset does not have."""
        world = self.source.world
        known = CATEGORIES[world.like] if world else self.source.dataset.categories
        if self.asked == ("all",):
            return known
        for name in self.asked:
            if name not in known:
                raise RequestError(
                    f"--categories {name}: {self.source.name} has no such category; choose all, or some of "
                    + ", ".join(known)
                )
        return tuple(dict.fromkeys(self.asked)) or tuple(name for name in PAPER_EMOTIONS if name in known)

    @cached_property
    def views(self) -> tuple[PlannedView, ...]:
        """For each split the scenes of its images, one row an image; none where the annotation is taken.

        Raises RequestError where a split does not exist or the weights are missing, unless ``without_weights``.
        """
        sizes = self._images_of_splits()
        for split in self.splits:
            if not sizes.get(split):
                raise RequestError(f"--splits {split}: {self.source.name} has {', '.join(sizes)}; choose some of these")
        if self.scenes == "annotation":
            return ()
        digest, _ = self._digest
        request = ViewRequest("context", *self.backbone, output="scene")
        versions = [STAGE_VERSIONS["views"], STAGE_VERSIONS["features"]]
        planned = []
        for split in self.splits:
            parts = [self.source.fingerprint, "scene", split, self.backbone[0], digest, versions, SHARD_SUBJECTS]
            key = short_digest(parts)
            planned.append(PlannedView(request, key, self.storage.features(key), sizes[split]))
        return tuple(planned)

    @property
    def plan(self) -> Plan:
        """What has to be made before anything can be measured."""
        subjects = self.storage.subjects(self.source.fingerprint)
        missing = () if self.scenes == "annotation" else self._digest[1]
        return Plan(self.source, subjects, self.storage.frames, self.views, (), (), missing)

    @cached_property
    def _digest(self) -> tuple[str, tuple[Path, ...]]:
        """Of the backbone's weights, and the file where that is missing."""
        missing: set[Path] | None = set() if self.without_weights else None
        digest = planned_digest(*self.backbone, self.weights_dir, missing)
        return digest, tuple(missing or ())

    @property
    def folder(self) -> Path:
        """Where the result lies."""
        scenes = [view.key for view in self.views] or self.scenes
        names = list(self.scene_names) if self.scenes == "backbone" else None
        what = [self.source.fingerprint, self.splits, self.categories, scenes, names, asdict(self.options)]
        return self.storage.context_bias(short_digest([*what, MEASUREMENT_VERSION]))

    @property
    def names_file(self) -> Path:
        """Where the user may put the names of the Places365 classes."""
        return (self.weights_dir or default_weights_dir()) / PLACES365_NAMES

    @cached_property
    def scene_names(self) -> tuple[str, ...]:
        """Names of the backbone's classes; their numbers where the file of the names is not there."""
        if self.backbone[1] == "scenes":
            return SCENE_NAMES
        return read_places365_names(self.names_file) if self.names_file.is_file() else tuple(map(str, range(365)))

    def _images_of_splits(self) -> dict[str, int]:
        if self.source.world:
            return self.source.world.split_sizes()
        dataset = self.source.dataset
        return {split: len(images_of_split(dataset, split).subjects) for split in dataset.splits}


def scene_backbone(written: str | None, embedded_world: bool) -> tuple[str, str]:
    """Architecture and weights of ``--scene-weights``. RequestError where they are no network for scenes."""
    if written is None:
        return ("thin_resnet", "scenes") if embedded_world else ("resnet152", "places365")
    arch, separator, weights = written.partition("/")
    if not separator or weights not in SCENE_WEIGHTS:
        raise RequestError(
            f"--scene-weights {written}: give ARCH/WEIGHTS with weights that tell scenes, such as resnet152/places365, "
            "resnet18/places365 or thin_resnet/scenes"
        )
    return arch, weights


def images_of_split(dataset: Dataset, split: str) -> Dataset:
    """A copy that holds the first subject of every image of ``split``."""
    first = {subject.image: subject for subject in reversed(dataset.subjects) if subject.split == split}
    return replace(dataset, subjects=tuple(reversed(first.values())))


def read_places365_names(path: Path) -> tuple[str, ...]:
    """Names by class, without the leading ``/a/``. RequestError where it is not the published file."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read ({error}); download it again, or take it away") from error
    found = [re.fullmatch(r"/\w/(\S+) (\d+)", line.strip()) for line in lines if line.strip()]
    names = {int(match[2]): match[1] for match in found if match}
    if len(found) != 365 or sorted(names) != list(range(365)):
        raise RequestError(
            f"{path} holds {len(names)} lines such as '/a/airfield 0', expected one for each of 0 to 364; download it "
            "again, or take it away to have numbers for names"
        )
    return tuple(names[number] for number in range(365))
