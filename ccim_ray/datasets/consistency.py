"""What must hold of every dataset before anything is made of it; plug-ins are checked for it when they are read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.subject import COUNTERFACTUAL, Subject, clip_box
from ccim_ray.metric_names import metric_name

SHOWN = 5
LONGEST_CATEGORY = 100
"""Characters; its metrics' names hold more."""


def dataset_faults(dataset: Dataset) -> Iterator[str]:
    """What is wrong with the records, one line a kind with its number and first subjects; opens no picture."""
    subjects = dataset.subjects
    if not subjects:
        yield "no subject"
    if not len(set(dataset.categories)) == len(dataset.categories) > 1:
        yield f"categories {dataset.categories}: at least two are needed, each once"
    held = Counter(map(metric_name, dataset.categories))
    alike = (repr(name) for name in dataset.categories if held[metric_name(name)] > 1)
    yield from _counted("category whose name is another's where MLflow takes no such characters", alike)
    long = (repr(name) for name in dataset.categories if len(name) > LONGEST_CATEGORY)
    yield from _counted(f"category of more than {LONGEST_CATEGORY} characters", long)
    counts = Counter(subject.subject_id for subject in subjects)
    yield from _counted("subject_id twice", (name for name, count in counts.items() if count > 1))
    known = set(dataset.categories)
    unknown = ((s.subject_id, label) for s in subjects for label in s.labels if label not in known)
    yield from _counted("unknown label", (f"{label!r} of {subject_id}" for subject_id, label in unknown))
    yield from _counted("no label", (s.subject_id for s in subjects if not s.labels))
    if not dataset.multi_label:
        several = (s.subject_id for s in subjects if len(s.labels) > 1)
        yield from _counted("several labels in a single-label dataset", several)
    yield from _counted("box that is not clipped to its image", (s.subject_id for s in subjects if not _boxes_fit(s)))
    factual = [subject for subject in subjects if subject.counterfactual_of is None]
    splits = (s.split for s in factual if s.split not in ("train", "val") and not s.split.startswith("test"))
    yield from _counted("split other than train, val and test", splits)
    tested = {subject.subject_id for subject in factual if subject.split.startswith("test")}
    rest = (s for s in subjects if s.counterfactual_of is not None)
    astray = (s.subject_id for s in rest if s.split != COUNTERFACTUAL or s.counterfactual_of not in tested)
    yield from _counted(f"counterfactual outside the split {COUNTERFACTUAL}, or of no test subject", astray)
    root = dataset.root.resolve()
    yield from _counted("path that leaves the root", (s.image for s in subjects if not _inside(root, s.image)))


def _boxes_fit(subject: Subject) -> bool:
    boxes = [subject.body_box, *subject.other_boxes, *([subject.face_box] if subject.face_box else [])]
    return all(clip_box(box, subject.width, subject.height) == tuple(box) for box in boxes)


def _inside(root: Path, image: str) -> bool:
    return Path(os.path.realpath(root / image)).is_relative_to(root)


def _counted(what: str, where: Iterable[str]) -> Iterator[str]:
    found = sorted(set(where))
    if found:
        yield f"{len(found)} x {what}: {', '.join(found[:SHOWN])}"
