"""What a baseline reads and a dataset lacks: by which detector or model a request derives it. Knows no torch."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.registry import dataset_card, load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import FACE_VIEWS, View
from ccim_ray.perception.weight_files import DEFAULT_POSE_DETECTOR

EMBEDDED_WORLD = "confounded_scenes"
DEPTH_MODEL_SUFFIXES = (".pt", ".pt2")


def choose_pose_detector(written: str | None, dataset: str, views: Collection[View]) -> str | None:
    """Name of the detector of ``--pose-detector``, or None.

    By default there is one where keypoints are read, or faces of a dataset that annotates none.

    Args:
        views: what the baselines of the request read.

    Raises:
        RequestError: there is no such detector, or nothing that it could find is read or unknown.
    """
    if written is not None and dataset == EMBEDDED_WORLD:
        raise RequestError("--pose-detector: the embedded world knows every face and pose; leave the flag out")
    if written not in (None, "none", DEFAULT_POSE_DETECTOR):
        raise RequestError(
            f"--pose-detector {written}: there is no such detector; choose {DEFAULT_POSE_DETECTOR} or none"
        )
    reads_keypoints, reads_faces = "keypoints" in views, not set(views).isdisjoint(FACE_VIEWS)
    if written == DEFAULT_POSE_DETECTOR and not reads_keypoints and not reads_faces:
        raise RequestError("--pose-detector: no baseline asked for reads faces or keypoints; leave the flag out")
    if written is None and dataset != EMBEDDED_WORLD:
        wanted = reads_keypoints or (reads_faces and not dataset_card(dataset).annotates_faces)
        return DEFAULT_POSE_DETECTOR if wanted else None
    return None if written == "none" else written


def choose_depth_model(written: Path | None, dataset: str, views: Collection[View]) -> Path | None:
    """Absolute path of the file of ``--depth-model``, or None. ``views`` is what the baselines of the request read.

    Raises:
        RequestError: there is no such file, it is of another kind, or no baseline reads depth.
    """
    if written is None:
        return None
    path = written.expanduser().absolute()
    if dataset == EMBEDDED_WORLD:
        raise RequestError("--depth-model: the embedded world knows its depth; leave the flag out")
    if "depth" not in views:
        raise RequestError(
            "--depth-model: no baseline asked for reads depth, as emoticon with sociodynamic=depth does; "
            "leave the flag out"
        )
    if path.suffix not in DEPTH_MODEL_SUFFIXES:
        raise RequestError(f"--depth-model {path}: give TorchScript (.pt) or an exported program (.pt2)")
    if not path.is_file():
        raise RequestError(f"--depth-model {path}: there is no such file")
    return path


@lru_cache
def every_image_has_depth(dataset: str, root: Path, options: LoadOptions) -> bool:
    """Whether a depth picture is known for every subject. Raises RequestError where the dataset cannot be read.

    Read once a process, though every baseline of a request asks for it.
    """
    return all(subject.depth is not None for subject in load_dataset(dataset, root, options).subjects)
