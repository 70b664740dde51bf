"""Reads an embedded world as what it imitates, and joins what only its maker knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from ccim_ray.datasets.annotation_files import digest_files
from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.counterfactuals import (
    COUNTERFACTUALS_FILE,
    counterfactual_subject,
    load_counterfactuals,
)
from ccim_ray.datasets.confounded_scenes.defects import PLANTED_FILE
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import load_truth
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.errors import RequestError

WORLD_FILE = "world.json"
TRUTH_FILE = "truth.parquet"

_REAL_LOADERS: dict[str, Callable[[Path, LoadOptions], Dataset]] = {
    "caer_s": load_caer_s,
    "emotic": load_emotic,
    "groupwalk": load_groupwalk,
}


def load_confounded_scenes(root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read an embedded world with the loader of the dataset whose format it is written in.

    By ``subject_id`` the truth adds face_box, keypoints, other_boxes, depth and scene. The counterfactuals come last,
    in a split of their own that is none of ``test_splits``.

    Raises:
        RequestError: ``world.json`` or a table of the world is missing or malformed, the truth and the pictures
            disagree, defects were planted, or the real loader refuses the files.
    """
    root = root.resolve()
    settings = _read_settings(root / WORLD_FILE)
    if (root / PLANTED_FILE).is_file():
        raise RequestError(
            f"{root / PLANTED_FILE}: defects were planted in this world, so its truth does not fit its files; read it"
            f" with --dataset {settings.like}"
        )
    if not (root / TRUTH_FILE).is_file():
        raise RequestError(f"{root / TRUTH_FILE}: no such file; make the world again")
    real = _REAL_LOADERS[settings.like](root, options)
    try:
        truth = {row["subject_id"]: row for row in load_truth(root).to_pylist()}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RequestError(f"{root / TRUTH_FILE}: cannot be read ({error}); make the world again") from error
    subjects = _joined(real.subjects, truth, root / TRUTH_FILE, real.defects)
    counterfactuals = tuple(_counterfactuals(root, subjects))
    own_digest = digest_files(root, [root / WORLD_FILE, root / TRUTH_FILE, root / COUNTERFACTUALS_FILE])
    return replace(
        real,
        name="confounded_scenes",
        subjects=subjects + counterfactuals,
        annotation_digest=f"{settings.like}:{real.annotation_digest}:{own_digest}",
        note="",  # what is unsure about the real dataset's files is not about these
    )


def _read_settings(path: Path) -> WorldSettings:
    try:
        return WorldSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be read ({error.strerror}); make a world with jobs/make_confounded_scenes.py, "
            "or correct --data-root"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RequestError(f"{path}: {where}: {first['msg']}; make the world again") from error


def _joined(
    subjects: Iterable[Subject], truth: dict[str, dict[str, Any]], path: Path, defects: Defects
) -> tuple[Subject, ...]:
    joined = []
    for subject in subjects:
        row = truth.pop(subject.subject_id, None)
        if row is None:
            raise RequestError(f"{path}: no row for {subject.subject_id}; make the world again")
        if row["split"] != subject.split:
            raise RequestError(
                f"{path}: {subject.subject_id} is in {row['split']}, the dataset's files say "
                f"{subject.split}; make the world again"
            )
        joined.append(_with_truth(subject, row))
    for subject_id, row in truth.items():
        defects.add("subject of the truth that could not be read", subject_id, row["split"])
    return tuple(joined)


def _counterfactuals(root: Path, subjects: Iterable[Subject]) -> Iterable[Subject]:
    known = {subject.subject_id: subject for subject in subjects}
    for row in load_counterfactuals(root).to_pylist():
        factual = known.get(row["counterfactual_of"])
        if factual is not None:
            yield _with_truth(counterfactual_subject(row, factual.box_source), row)


def _with_truth(subject: Subject, row: dict[str, Any]) -> Subject:
    def clipped(box: Iterable[float] | None) -> Box | None:
        return None if box is None else clip_box(box, subject.width, subject.height)

    others = (clipped(box) for box in row["other_boxes"] or ())
    keypoints = row["keypoints"]
    return replace(
        subject,
        face_box=clipped(row["face_box"]),
        keypoints=None if keypoints is None else tuple((float(x), float(y)) for x, y in keypoints),
        other_boxes=tuple(box for box in others if box is not None),
        depth=row["depth"],
        scene=row["scene"],
    )
