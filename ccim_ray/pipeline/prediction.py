"""Prediction over Ray Data: persons are found, shards of them predicted by actors that load the model once each.

What is finished stays finished: the same command goes on with the shards of detections and predictions that lack.

Shape suffixes: S persons, K categories.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.data

from ccim_ray.chosen_model import ChosenModel
from ccim_ray.console import say, stage
from ccim_ray.datasets.depth import require_depth_pictures
from ccim_ray.datasets.images import UnreadableImage, is_stored_turned, read_rgb, read_sizes
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import Subject, subjects_to_table
from ccim_ray.deconfounders.card import CONTEXT_FEATURES
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.experiment import STAGE_VERSIONS
from ccim_ray.new_pictures import pictures_state
from ccim_ray.perception.weight_files import file_digest, weights_digest
from ccim_ray.pipeline.cluster import join_cluster, plain_errors
from ccim_ray.pipeline.detection import detect_persons
from ccim_ray.pipeline.extraction import packed_subjects, unpacked_subjects
from ccim_ray.pipeline.worlds import render_world
from ccim_ray.plan import SHARD_SUBJECTS
from ccim_ray.prediction import (
    NO_BOX,
    NOBODY,
    Located,
    PredictionRequest,
    located_by_detector,
    located_from_boxes,
    located_in_world,
    with_depth,
    with_poses,
)
from ccim_ray.prepared import read_shards, write_shard
from ccim_ray.rates import Rates
from ccim_ray.reports.annotated_pictures import SHOWN_CATEGORIES, DrawnPerson, write_picture
from ccim_ray.reports.defect_list import write_defects
from ccim_ray.reports.predictions import DONE, PredictedRow, failures, write_predictions
from ccim_ray.resources import ClusterResources
from ccim_ray.storage import short_digest

WORLD_SPLIT = "test_do"


def run_prediction(request: PredictionRequest) -> int:
    """Predict and write the result; returns 0, or 1 where a picture or a box could not be used.

    Raises RequestError for a wrong request or wrong data.
    """
    started = time.monotonic()
    say(f"Model: {request.model.name}")
    cluster = join_cluster()
    with plain_errors():
        lines = _located(request, cluster)
        subjects = [line.subject for line in lines if line.subject is not None]
        key = _key(request, subjects)
        scores_SK, reasons = _predicted(request, subjects, key, cluster)
        rows = _rows(lines, scores_SK, reasons)
        folder = request.out or request.storage.root / "predictions" / key
        _write(request, rows, folder)
    say(f"Done in {time.monotonic() - started:.0f} s")
    return 1 if any(row.status not in (DONE, NOBODY, NO_BOX) for row in rows) else 0


def _located(request: PredictionRequest, cluster: ClusterResources) -> list[Located]:
    """Every person, with what the model reads of them as far as it is known or found."""
    rates, root = Rates(request.storage.rates), request.pictures.root
    if request.of_world:
        assert request.model.experiment.world is not None
        render_world(request.model.experiment.world, root, rates)
        of_split = (s for s in load_dataset("confounded_scenes", root).subjects if s.split == WORLD_SPLIT)
        return located_in_world(of_split)
    images = request.images
    if request.pictures.other_files:
        say(f"  {request.pictures.other_files} files are no pictures by their names: passed over")
    sizes = dict(zip(images, read_sizes([root / image for image in images]), strict=True))
    readable = [image for image in images if not isinstance(sizes[image], UnreadableImage)]
    _tell_turned([image for image in readable if _is_known_to_be_turned(root / image)])
    detections = request.detections(readable)
    if detections:
        detect_persons(detections, root, cluster, request.weights_dir, rates)
        lines = located_by_detector(images, detections.read(), sizes, detections.box_source)
    else:
        lines = located_from_boxes(images, request.persons or (), sizes)
    poses = request.poses(line.subject for line in lines if line.subject)
    if poses and poses != detections and poses.detector != request.detector:
        detect_persons(poses, root, cluster, request.weights_dir, rates)
        lines = with_poses(lines, poses.read())
    return with_depth(lines, root) if "depth" in request.views and not request.depth_model else lines


def _is_known_to_be_turned(path: Path) -> bool:
    try:
        return is_stored_turned(path)
    except UnreadableImage:
        return False  # its header was readable; the rest is told with its persons, who are all in the result


def _tell_turned(images: Sequence[str]) -> None:
    if images:
        say(
            f"  {len(images)} pictures are stored turned (EXIF orientation), such as {images[0]}: they are read as "
            "stored, as boxes are in the datasets; for photos from a phone, turn the pixels first"
        )


def _key(request: PredictionRequest, subjects: Sequence[Subject]) -> str:
    """Key of everything that decides the scores."""
    experiment, weights_dir = request.model.experiment, request.weights_dir
    used = list(experiment.trunks.values()) if experiment.trainable == "head" else []
    if CONTEXT_FEATURES in deconfounder_card(experiment.deconfounder).trains_with:
        used.append(experiment.backbone)
    images = [*dict.fromkeys(s.image for s in subjects), *dict.fromkeys(s.depth for s in subjects if s.depth)]
    return short_digest(
        [
            request.model.digest,
            [weights_digest(of.arch, of.weights, weights_dir) for of in used],
            file_digest(request.depth_model) if request.depth_model else None,
            pictures_state(request.pictures.root, images),
            repr(subjects_to_table(subjects).to_pylist()),
            [STAGE_VERSIONS[name] for name in ("views", "features", "training")],
            SHARD_SUBJECTS,
        ]
    )


def _predicted(
    request: PredictionRequest, subjects: Sequence[Subject], key: str, cluster: ClusterResources
) -> tuple[npt.NDArray[np.float32], tuple[str | None, ...]]:
    """Scores (S, K) of the subjects, and for each None or why its picture could not be used."""
    if not subjects:
        return np.zeros((0, len(request.model.categories)), np.float32), ()
    if "depth" in request.views and not request.depth_model:
        require_depth_pictures(subjects, request.pictures.root)
    folder = request.storage.root / "derived" / "predictions" / key
    shards = range(-(-len(subjects) // SHARD_SUBJECTS))
    parts = {k: subjects[k * SHARD_SUBJECTS : (k + 1) * SHARD_SUBJECTS] for k in shards}
    missing = [k for k in shards if not _shard(folder, k).exists()]
    if missing:
        rows = [{"path": str(_shard(folder, k)), "subjects": packed_subjects(parts[k])} for k in missing]
        actors = min(len(rows), cluster.gpus or cluster.cpus)
        with stage("predict", "persons", sum(len(parts[k]) for k in missing)) as progress:
            written = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Predictor,
                fn_constructor_args=(
                    ray.put(request.model),
                    str(request.pictures.root),
                    str(request.weights_dir) if request.weights_dir else None,
                    str(request.depth_model) if request.depth_model else None,
                    cluster.gpus > 0,
                ),
                batch_size=1,
                num_cpus=1,
                num_gpus=1 if cluster.gpus else 0,
                compute=ray.data.ActorPoolStrategy(size=actors),
            )
            for row in written.iter_rows():
                progress.advance(int(row["persons"]))
    found = read_shards(folder, tuple(subject.subject_id for subject in subjects))
    return found.take(np.arange(len(found))), found.reasons


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.parquet"


class _Predictor:
    """Ray Data actor: predicts the persons of a shard and writes them."""

    def __init__(
        self,
        model: ray.ObjectRef[ChosenModel],
        root: str,
        weights_dir: str | None,
        depth_model: str | None,
        use_gpu: bool,
    ) -> None:
        import torch

        from ccim_ray.trained_model import load_trained

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            ray.get(model).write(Path(folder))
            self._model = load_trained(
                Path(folder),
                Path(weights_dir) if weights_dir else None,
                root=Path(root),
                device=torch.device("cuda" if use_gpu else "cpu"),
                depth_model=Path(depth_model) if depth_model else None,
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = []
        for path, content in zip(batch["path"], batch["subjects"], strict=True):
            subjects = unpacked_subjects(content)
            scores_SK, reasons = self._model.score(subjects)
            write_shard(Path(path), [subject.subject_id for subject in subjects], scores_SK, reasons)
            counts.append(len(subjects))
        return {"persons": np.array(counts)}


def _rows(
    lines: Sequence[Located], scores_SK: npt.NDArray[np.float32], reasons: Sequence[str | None]
) -> list[PredictedRow]:
    rows: list[PredictedRow] = []
    place = 0
    for line in lines:
        subject, status, probabilities_K = line.subject, line.status, None
        if subject is not None:
            status = reasons[place]
            probabilities_K = None if status else scores_SK[place]
            place += 1
        rows.append(
            PredictedRow(
                image=line.image,
                person=line.person,
                box=subject.body_box if subject else None,
                box_source=subject.box_source if subject else None,
                box_score=line.box_score,
                status=status or DONE,
                probabilities_K=probabilities_K,
            )
        )
    return rows


def _write(request: PredictionRequest, rows: Sequence[PredictedRow], folder: Path) -> None:
    facts = {"model": request.model.name, "model_sha256": request.model.digest, "images": str(request.pictures.root)}
    write_predictions(rows, request.model.categories, facts, folder)
    _draw(request, rows, folder / "pictures")
    done = sum(row.status == DONE for row in rows)
    say(f"{done} persons predicted in {len({row.image for row in rows if row.status == DONE})} pictures")
    defects = failures(rows)
    (folder / "defects.csv").unlink(missing_ok=True)  # of an earlier prediction to the same folder
    if defects.places:
        for kind, count in defects.counts.items():
            say(f"  {count} x {kind}, such as {defects.examples[kind][0]}")
        write_defects(defects, folder / "defects.csv")
        say(f"  all by name: {folder / 'defects.csv'}")
    say(f"Results in {folder}: predictions.csv, predictions.parquet" + (", pictures" if request.annotated else ""))


def _draw(request: PredictionRequest, rows: Sequence[PredictedRow], folder: Path) -> None:
    """Draw the first pictures of which something was predicted."""
    pictured = [(image, list(of_image)) for image, of_image in groupby(rows, key=lambda row: row.image)]
    chosen = [
        (image, persons) for image, of_image in pictured if (persons := _drawn(of_image, request.model.categories))
    ][: request.annotated]

    def draw(image: str, persons: Sequence[DrawnPerson]) -> None:
        write_picture(read_rgb(request.pictures.root / image), persons, folder / f"{image}.jpg")

    if chosen:
        # Too few to be worth processes of their own; Pillow works outside Python's lock.
        with stage("draw", "pictures", len(chosen)) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(draw, *zip(*chosen, strict=True)):
                progress.advance(1)


def _drawn(rows: Sequence[PredictedRow], categories: Sequence[str]) -> list[DrawnPerson]:
    return [
        DrawnPerson(row.person, row.box, tuple(row.top(categories, SHOWN_CATEGORIES)))
        for row in rows
        if row.status == DONE and row.person is not None and row.box is not None
    ]
