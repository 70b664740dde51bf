"""Fig. 2 of the paper from images to the report: recognise the scenes, measure, write.

Array suffixes: S persons, K categories, I images.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ccim_ray.console import say, show, stage
from ccim_ray.context_bias import EmotionBias, measure
from ccim_ray.context_bias_request import BiasRequest, images_of_split
from ccim_ray.datasets.confounded_scenes.world import is_complete
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.errors import RequestError
from ccim_ray.pipeline.cluster import join_cluster, plain_errors
from ccim_ray.pipeline.extraction import add_unusable, extract_views, missing_shards, report_unusable
from ccim_ray.pipeline.frames import extract_frames
from ccim_ray.pipeline.preparation import list_defects, report_state
from ccim_ray.pipeline.worlds import render_world
from ccim_ray.plan import PlannedView
from ccim_ray.prepared import read_shards
from ccim_ray.rates import Rates
from ccim_ray.reports.context_bias_report import write_context_bias


@dataclass(frozen=True)
class _Persons:
    """Persons whose scene is known: number of the scene, emotions, number of the image; names of the scenes."""

    scene_S: npt.NDArray[np.int64]
    targets_SK: npt.NDArray[np.float32]
    image_S: npt.NDArray[np.int64]
    scene_names: tuple[str, ...]


def measure_context_bias(request: BiasRequest) -> int:
    """Make what is missing, measure, print and write; returns the exit status.

    Raises RequestError for a wrong request or wrong data.
    """
    categories, views = request.categories, request.views  # what is wrong is told before anything is made
    rates, world = Rates(request.storage.rates), request.source.world
    if world and not is_complete(world, request.source.root):
        join_cluster()
        with plain_errors():
            render_world(world, request.source.root, rates)
    dataset = request.source.dataset
    if dataset.videos:
        join_cluster()
        with plain_errors():
            dataset = extract_frames(dataset, request.storage.frames, rates)
    report_state(dataset)
    persons = _recognised(request, dataset, views, rates) if views else _annotated(request, dataset)
    _tell_videos(request, dataset)
    found: dict[str, EmotionBias] = {}
    with stage("measure", "categories", len(categories)) as progress:
        for name in categories:
            column = dataset.categories.index(name)
            holds_S = persons.targets_SK[:, column] > 0
            try:
                found[name] = measure(persons.scene_S, holds_S, persons.image_S, request.options, column)
            except ValueError as error:
                if request.asked and request.asked != ("all",):
                    where = " + ".join(request.splits)
                    raise RequestError(f"--categories {name}: in {where} {_why_not(persons, holds_S)}") from error
                say(f"  {name} left out: {_why_not(persons, holds_S)}")
            progress.advance(1)
    if not found:
        raise RequestError(f"--splits {' '.join(request.splits)}: none of {', '.join(categories)} can be measured")
    report = write_context_bias(request, found, persons.scene_names)
    show(report.table)
    say(report.summary)
    say(f"Results in {request.folder}: {', '.join(path.name for path in report.files)}")
    return 0


def _recognised(request: BiasRequest, dataset: Dataset, views: tuple[PlannedView, ...], rates: Rates) -> _Persons:
    """Scenes by the backbone's most probable class, of the images that can be used."""
    scene_of: dict[str, int] = {}
    probabilities: list[float] = []
    defects = deepcopy(dataset.defects)
    for split, view in zip(request.splits, views, strict=True):
        images = images_of_split(dataset, split)
        if missing_shards([view], len(images.subjects)):
            with plain_errors():
                extract_views(images, [view], join_cluster(), request.weights_dir, rates)
        rows = read_shards(view.folder, tuple(subject.subject_id for subject in images.subjects))
        rows_I2 = rows.take(np.arange(len(images.subjects)))
        reason_of = {subject.image: why for subject, why in zip(images.subjects, rows.reasons, strict=True)}
        of_split = replace(dataset, subjects=tuple(s for s in dataset.subjects if s.split == split))
        reasons = [reason_of[subject.image] for subject in of_split.subjects]
        report_unusable(of_split, reasons, needed=[split])
        add_unusable(defects, of_split, reasons)
        for subject, (scene, probability) in zip(images.subjects, rows_I2, strict=True):
            if reason_of[subject.image] is None:
                scene_of[subject.image] = int(scene)
                probabilities.append(float(probability))
    list_defects(defects, request.folder / "defects.csv")
    names = request.scene_names
    if request.backbone[1] == "places365" and not request.names_file.is_file():
        say(f"  scenes are called by their number: {request.names_file} is not there")
    say(
        f"  scenes of {len(scene_of)} images by {'/'.join(request.backbone)}: {len(set(scene_of.values()))} of "
        f"{len(names)} classes, mean probability of the class taken {np.mean(probabilities):.2f}"
    )
    return _persons(request, dataset, scene_of, names)


def _annotated(request: BiasRequest, dataset: Dataset) -> _Persons:
    """Scenes as the dataset has them; images without one are counted and left out."""
    subjects = [subject for subject in dataset.subjects if subject.split in request.splits]
    names = tuple(sorted({subject.scene for subject in subjects if subject.scene is not None}))
    if not names:
        raise RequestError(
            f"--scenes: no image of {dataset.name} in {dataset.root} has a scene annotated; leave the flag out to have "
            "the scenes recognised"
        )
    number = {name: k for k, name in enumerate(names)}
    scene_of = {subject.image: number[subject.scene] for subject in subjects if subject.scene is not None}
    images = {subject.image for subject in subjects}
    if len(scene_of) < len(images):
        say(f"  {len(images) - len(scene_of)} of {len(images)} images left out: no scene is annotated")
    say(f"  scenes of {len(scene_of)} images as annotated: {len(names)} scenes")
    return _persons(request, dataset, scene_of, names)


def _persons(request: BiasRequest, dataset: Dataset, scene_of: dict[str, int], names: tuple[str, ...]) -> _Persons:
    rows = [
        row
        for row, subject in enumerate(dataset.subjects)
        if subject.split in request.splits and subject.image in scene_of
    ]
    images = [dataset.subjects[row].image for row in rows]
    number = {image: k for k, image in enumerate(dict.fromkeys(images))}
    return _Persons(
        scene_S=np.array([scene_of[image] for image in images]),
        targets_SK=dataset.targets[rows],
        image_S=np.array([number[image] for image in images]),
        scene_names=names,
    )


def _tell_videos(request: BiasRequest, dataset: Dataset) -> None:
    """The null takes images for exchangeable, which frames of one video are not."""
    frames = {s.image: s.video for s in dataset.subjects if s.split in request.splits and s.video is not None}
    videos = len(set(frames.values()))
    if videos < len(frames):
        say(
            f"  {len(frames)} images are frames of {videos} videos, which share scene and emotion: what is given as "
            "brought by chance is too narrow"
        )


def _why_not(persons: _Persons, holds_S: npt.NDArray[np.bool_]) -> str:
    return "no image has it" if not holds_S.any() else "every image has it"
