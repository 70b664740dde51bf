"""Flags of the job that predicts, and the request that they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ccim_ray.command_line import CommonFlags
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.chosen_model import ChosenModel
    from ccim_ray.new_pictures import Pictures
    from ccim_ray.perception.architectures import View
    from ccim_ray.persons import Person
    from ccim_ray.prediction import PredictionRequest
    from ccim_ray.storage import Storage

_Text = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class PredictionFlags:
    """Which model, which pictures, whose boxes."""

    model: str = "best"
    """best (the trial with the best validation metric), models:/NAME@ALIAS, models:/ID, runs:/RUN/model, a folder, or
    the signature of a trial."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Folder of pictures, with those below it, or one picture. Default: the test pictures (test_do) of the embedded
    world that the model was trained on."""
    boxes: _File = None
    """Persons in the pictures: a CSV file with the header image,x1,y1,x2,y2 (paths relative to --images; pixels,
    0-based, half-open), a row a person. More columns may tell face_x1,face_y1,face_x2,face_y2; keypoints (18 points
    "x y x y ..."); other_boxes ("x1 y1 x2 y2 ..."; default: the picture's other rows); and depth (path of a depth
    picture). Default: a detector finds the persons."""
    dataset: _Text = None
    """Take the best trial of this dataset, where there are trials of several."""
    detector: _Text = None
    """Finds persons where no --boxes are given: fasterrcnn_resnet50_fpn, fasterrcnn_mobilenet_v3_large_320_fpn (fast,
    for laptops) or keypointrcnn_resnet50_fpn (poses too). Default: the last where the model reads faces or keypoints,
    else the first."""
    pose_detector: _Text = None
    """Finds the faces and keypoints that the model reads and --boxes do not give: keypointrcnn_resnet50_fpn (the
    default), or none: keypoints are then unknown, and a face is the upper third of the body."""
    depth_model: _File = None
    """Makes the depth pictures that some models of emoticon read: TorchScript (.pt) or an exported program (.pt2). It
    is run as code: take one that you trust. Default: depth/IMAGE.png below --images."""
    pictures: int = 50
    """How many pictures are drawn with boxes and probabilities, from the first."""
    out: _Folder = None
    """Folder of the result. Default: a folder under the storage."""
    storage: _Text = None
    """Folder for everything a run leaves behind. Default: CCIM_RAY_STORAGE, else ./runs."""
    tracking_uri: _Text = None
    """MLflow tracking server or database. Default: MLFLOW_TRACKING_URI, else SQLite under the storage."""
    plan: bool = False
    """Print what would be done, and start nothing."""


def predict(flags: PredictionFlags) -> int:
    """Predict, or say what would be done where ``--plan`` was given; returns the exit status.

    Raises RequestError for a wrong request.
    """
    request = _request(flags)
    if flags.plan:
        from ccim_ray.console import say

        say(f"Model: {request.model.name}")
        what = "the test pictures of its embedded world" if request.of_world else f"{len(request.images)} pictures"
        source = f"{len(request.persons)} boxes" if request.persons is not None else f"persons by {request.detector}"
        say(f"To predict: {what} in {request.pictures.root}" + ("" if request.of_world else f", {source}"))
        if request.pose_detector:
            say(f"Faces and keypoints that are not given: by {request.pose_detector}")
        return 0
    from ccim_ray.pipeline.prediction import run_prediction  # Ray is slow to import: only where it is used

    return run_prediction(request)


def _request(flags: PredictionFlags) -> PredictionRequest:
    from ccim_ray.chosen_model import choose_model
    from ccim_ray.derived_inputs import choose_depth_model
    from ccim_ray.new_pictures import find_pictures
    from ccim_ray.plan import views_read
    from ccim_ray.prediction import PredictionRequest

    if flags.pictures < 0:
        raise RequestError(f"--pictures {flags.pictures}: give a whole number from 0")
    if flags.boxes and not flags.images:
        raise RequestError(f"--boxes {flags.boxes}: name the pictures that they are of by --images")
    found = find_pictures(flags.images) if flags.images else None
    persons = _persons(flags, found) if found and flags.boxes else None
    storage = CommonFlags(storage=flags.storage, plan=flags.plan).open_storage()
    model = choose_model(flags.model, flags.dataset, storage, flags.tracking_uri)
    views = views_read([model.experiment])
    weights = os.environ.get("CCIM_RAY_WEIGHTS")  # read here: workers on other machines do not see it
    pose_detector = _pose_detector(flags, views, of_world=found is None)
    return PredictionRequest(
        model=model,
        pictures=found or _world(model, flags, storage),
        persons=persons,
        of_world=found is None,
        detector=_detector(flags, pose_detector) if found else None,
        pose_detector=pose_detector,
        depth_model=choose_depth_model(flags.depth_model, "new pictures", views),
        annotated=flags.pictures,
        storage=storage,
        out=flags.out.expanduser().absolute() if flags.out else None,
        weights_dir=Path(weights).expanduser().absolute() if weights else None,
    )


def _persons(flags: PredictionFlags, found: Pictures) -> tuple[Person, ...]:
    from ccim_ray.console import say
    from ccim_ray.new_pictures import read_boxes

    assert flags.images is not None
    assert flags.boxes is not None
    read = read_boxes(flags.boxes, found.root)
    if read.unread:
        say(f"{flags.boxes}: columns that are not read: {', '.join(read.unread)}")
    if flags.images.expanduser().is_dir():
        return read.persons
    persons = tuple(person for person in read.persons if person.image in found.images)
    if not persons:
        raise RequestError(f"{flags.boxes} holds no box of {found.images[0]}; name pictures relative to {found.root}")
    return persons


def _world(model: ChosenModel, flags: PredictionFlags, storage: Storage) -> Pictures:
    from ccim_ray.data_source import data_source
    from ccim_ray.datasets.dataset import AS_PUBLISHED
    from ccim_ray.new_pictures import Pictures

    if model.experiment.world is None:
        raise RequestError(
            f"this model was trained on {model.experiment.dataset}: name pictures by --images DIR (model {model.name})"
        )
    given = {"--detector": flags.detector, "--pose-detector": flags.pose_detector, "--depth-model": flags.depth_model}
    for flag, value in given.items():
        if value:
            raise RequestError(f"{flag}: the embedded world knows its persons; leave the flag out, or give --images")
    return Pictures(data_source(model.experiment, storage, None, AS_PUBLISHED).root, ())


def _detector(flags: PredictionFlags, pose_detector: str | None) -> str | None:
    from ccim_ray.perception.weight_files import DEFAULT_DETECTOR, DETECTOR_FILES

    if flags.boxes:
        if flags.detector not in (None, "none"):
            raise RequestError(f"--detector {flags.detector}: --boxes tell where the persons are; leave one out")
        return None
    if flags.detector == "none":
        raise RequestError("--detector none: somebody has to say where the persons are; give --boxes FILE")
    if flags.detector not in (None, *DETECTOR_FILES):
        raise RequestError(
            f"--detector {flags.detector}: there is no such detector; choose one of {', '.join(DETECTOR_FILES)}"
        )
    return flags.detector or pose_detector or DEFAULT_DETECTOR


def _pose_detector(flags: PredictionFlags, views: frozenset[View], *, of_world: bool) -> str | None:
    from ccim_ray.perception.architectures import FACE_VIEWS
    from ccim_ray.perception.weight_files import DEFAULT_POSE_DETECTOR

    written = flags.pose_detector
    if written not in (None, "none", DEFAULT_POSE_DETECTOR):
        raise RequestError(
            f"--pose-detector {written}: there is no such detector; choose {DEFAULT_POSE_DETECTOR} or none"
        )
    reads = "keypoints" in views or not views.isdisjoint(FACE_VIEWS)
    if written == DEFAULT_POSE_DETECTOR and not reads:
        raise RequestError("--pose-detector: this model reads neither faces nor keypoints; leave the flag out")
    return DEFAULT_POSE_DETECTOR if reads and written != "none" and not of_world else None
