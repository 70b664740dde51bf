"""What every loader returns: subjects, categories, and what had to be left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccim_ray.datasets.subject import Subject


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What a user may choose about how a dataset is read; what does not concern a dataset leaves it as it is.

    Attributes:
        split_file: a CSV file ``image,split`` used in place of ``splits.csv`` in the data root.
        drop_overlap: EMOTIC: leave an image that is in train and also in val out of train.
        keep_unlocated: CAER-S: keep a person without any box for a detector to find: ``box_source`` is then
            UNLOCATED and ``body_box`` the whole picture. Otherwise they are counted and left out.
        frame_step: GroupWalk: use every so-many-th annotated frame of each agent, from its first.
        detector: CAER-S: name of the detector that finds persons without a box of the user's; None takes none. The
            loaders do not run it: ``data_source.DataSource`` does, and sets ``keep_unlocated``.
        pose_detector: name of the detector that finds the keypoints and faces that a dataset lacks and a baseline
            reads; None takes none. Run as ``detector`` is.
        depth_model: file of the program that makes depth pictures (``perception.depth_model``); None takes those
            that lie beside the images.
    """

    split_file: Path | None = None
    drop_overlap: bool = True
    keep_unlocated: bool = False
    frame_step: int = 1
    detector: str | None = None
    pose_detector: str | None = None
    depth_model: Path | None = None


AS_PUBLISHED = LoadOptions()
"""Everything as the recommended defaults have it."""

UNLOCATED = "not located"
"""``box_source`` of a subject whose box is still to be found."""


@dataclass(slots=True)
class Defects:
    """What was found wrong: by kind, where each one is and in which split, in the order found."""

    found: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)

    def add(self, kind: str, where: str, split: str | None = None) -> None:
        """Count one defect of ``kind`` (a few words, such as "unreadable image") found at ``where``.

        ``split`` is that of the image or subject, None where it has none, such as a line about an image that is not
        there.
        """
        self.found.setdefault(kind, []).append((where, split))

    @property
    def places(self) -> dict[str, list[str]]:
        """Where each one is, by kind."""
        return {kind: [where for where, _ in found] for kind, found in self.found.items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(found) for kind, found in self.found.items()}

    @property
    def examples(self) -> dict[str, list[str]]:
        """Where up to five of each kind are."""
        return {kind: places[:5] for kind, places in self.places.items()}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as read from disk.

    Attributes:
        name: "caer_s", "emotic", "groupwalk" or "confounded_scenes".
        root: absolute folder that image paths are relative to.
        categories: names in the dataset's canonical order.
        multi_label: whether a subject may have several categories (metric mAP) or one (metric accuracy).
        subjects: the usable subjects, in a deterministic order.
        defects: what was left out or repaired.
        annotation_digest: sha256 of the annotation files that were read.
        note: what everyone who uses the data must be told, such as "format unverified"; mostly empty.
        videos: where images are frames of videos that are decoded while preparing: the folder of a video's frames,
            relative like ``Subject.image``, to the video file, relative to the root. Empty for pictures on disk.
    """

    name: str
    root: Path
    categories: tuple[str, ...]
    multi_label: bool
    subjects: tuple[Subject, ...]
    defects: Defects
    annotation_digest: str
    note: str = ""
    videos: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The paper's metric for this dataset (section 4.1): "mAP" or "accuracy"."""
        return "mAP" if self.multi_label else "accuracy"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that hold a subject, in the order train, val, then the test splits as they come."""
        found = dict.fromkeys(subject.split for subject in self.subjects)
        first = [name for name in ("train", "val") if name in found]
        return (*first, *sorted((name for name in found if name not in first), key=split_rank))

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits whose name starts with "test"."""
        return tuple(name for name in self.splits if name.startswith("test"))

    def limited(self, subject_limit: int) -> Dataset:
        """A copy with at most ``subject_limit`` subjects a split, chosen by a hash of their ids, order kept.

        A counterfactual is kept where the subject is that it is of.
        """
        factual = (subject for subject in self.subjects if subject.counterfactual_of is None)
        ranked = sorted(factual, key=lambda subject: hashlib.sha256(subject.subject_id.encode()).digest())
        taken: dict[str, int] = {}
        chosen = set()
        for subject in ranked:
            taken[subject.split] = taken.get(subject.split, 0) + 1
            if taken[subject.split] <= subject_limit:
                chosen.add(subject.subject_id)
        kept = (s for s in self.subjects if (s.counterfactual_of or s.subject_id) in chosen)
        return replace(self, subjects=tuple(kept))

    @cached_property
    def targets(self) -> npt.NDArray[np.float32]:
        """Multi-hot labels (S, K), float32, rows in the order of ``subjects``."""
        column = {name: k for k, name in enumerate(self.categories)}
        targets_SK = np.zeros((len(self.subjects), len(self.categories)), np.float32)
        for row, subject in enumerate(self.subjects):
            for label in subject.labels:
                targets_SK[row, column[label]] = 1.0
        return targets_SK

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over records, categories and annotation: changes whenever a result could."""
        digest = hashlib.sha256()
        head: Mapping[str, object] = {
            "categories": self.categories,
            "multi_label": self.multi_label,
            "annotation": self.annotation_digest,
        }
        digest.update(json.dumps(head, sort_keys=True).encode())
        for subject in self.subjects:
            record = asdict(subject)
            for later in ("agent", "box_score", "counterfactual_of"):
                if record[later] is None:
                    del record[later]  # without a field that came later, older fingerprints stay what they were
            digest.update(json.dumps(record, sort_keys=True).encode())
            for picture in (subject.image, subject.depth):
                if picture is not None:
                    digest.update(_size_of(self.root / picture).encode())
        return digest.hexdigest()


def _size_of(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        return "-1"  # a missing image is counted when it is read


def split_rank(name: str) -> tuple[int, str]:
    """Sort key that puts test splits in the order in which they are read: as trained, then ever further from it."""
    order = ("test", "test_id", "test_do", "test_anti")
    return (order.index(name) if name in order else len(order), name)
