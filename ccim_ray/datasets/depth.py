"""Depth pictures that a user puts beside a dataset that has none of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError

DEPTH_FOLDER = "depth"
"""Under the data root: the depth picture for ``<image>`` is ``depth/<image>.png``, light for near."""


def with_depth_pictures(dataset: Dataset) -> Dataset:
    """Name the depth pictures where the loader knows none; where there are some, images without one are counted."""
    known = any(subject.depth is not None for subject in dataset.subjects)
    if known or not (dataset.root / DEPTH_FOLDER).is_dir():
        return dataset
    paths = {subject.image: f"{DEPTH_FOLDER}/{subject.image}.png" for subject in dataset.subjects}
    found = {image: depth for image, depth in paths.items() if (dataset.root / depth).is_file()}
    if not found:
        return dataset
    for image, split in {subject.image: subject.split for subject in reversed(dataset.subjects)}.items():
        if image not in found:
            dataset.defects.add("image without a depth picture", image, split)
    return replace(dataset, subjects=tuple(replace(s, depth=found.get(s.image)) for s in dataset.subjects))


def require_depth_pictures(subjects: Iterable[Subject], root: Path) -> None:
    """RequestError, which names the first and counts them, where subjects have no depth picture."""
    lacking = dict.fromkeys(subject.image for subject in subjects if subject.depth is None)
    if lacking:
        first = next(iter(lacking))
        raise RequestError(
            f"images without a depth picture, which this baseline reads: {len(lacking)}, the first {first}; put it at "
            f"{root / DEPTH_FOLDER / first}.png, give --depth-model, or choose a variant of the baseline without depth"
        )
