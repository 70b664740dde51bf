"""EMOTIC: people in everyday scenes with 26 categories that do not exclude each other (paper 4.1).

Layout of the PAMI 2019 release::

    <root>/emotic/{mscoco,framesdb,emodb_small,ade20k}/images/<file>
    <root>/Annotations/Annotations.mat

The CVPR 2017 release has ``CVPR17_Annotations.mat`` and the image folder ``cvpr_emotic``. The .mat files
hold ``train``, ``val`` and ``test``, arrays of one struct an image, each with one struct a person. A person
of train was seen by one annotator, one of val and test by several, whose votes ``combined_categories``
unites. Boxes are 1-based with inclusive right and bottom.

Beside them, ``splits.csv`` (``annotation_files.SPLIT_FILE``, images relative to the image folder) replaces
the split of the .mat file.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError, mat_struct

from ccim_ray.datasets.annotation_files import (
    digest_files,
    read_split_file,
    relative_path,
    require_all_inside,
    split_file,
)
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.images import UnreadableImage, read_sizes
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.errors import RequestError

CATEGORIES = (
    *("Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval"),
    *("Disconnection", "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem"),
    *("Excitement", "Fatigue", "Fear", "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity"),
    *("Suffering", "Surprise", "Sympathy", "Yearning"),
)

_CATEGORY_SET = frozenset(CATEGORIES)
_MAT_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class _Release:
    name: str
    annotation_file: str
    image_folder: str


# The paper quotes the size of the 2019 release, so that one is preferred where both are there.
_RELEASES = (
    _Release("pami-2019", "Annotations.mat", "emotic"),
    _Release("cvpr-2017", "CVPR17_Annotations.mat", "cvpr_emotic"),
)


@dataclass(frozen=True, slots=True)
class _Person:
    box: Box | None  # 1-based inclusive as annotated; None where it is not four numbers
    labels: tuple[str, ...]
    votes_differ: bool


@dataclass(frozen=True, slots=True)
class _Picture:
    path: str  # relative to the image folder
    mat_split: str
    declared_size: tuple[int, int] | None
    persons: tuple[_Person, ...]
    kept_overlap: bool = False  # also in another split of the .mat file, and wanted in both

    def subject_id(self, index: int) -> str:
        suffix = f"@{self.mat_split}" if self.kept_overlap else ""
        return f"{self.path}#{index}{suffix}"


def load_emotic(root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read EMOTIC, one subject a person: ``subject_id`` is ``<folder>/<filename>#<index from 0>``.

    The release stands before the colon of ``annotation_digest``: "pami-2019:..." or "cvpr-2017:...".

    Args:
        root: folder that holds the image folder and the annotation file.
        options: ``drop_overlap`` leaves an image that is in train and also in val (376 in the 2019 release) out
            of train. Otherwise it stays in both, and ``subject_id`` ends with "@train" in train.

    Raises:
        RequestError: file or folder missing, a key or field missing, an unknown label, an annotation that
            leaves the data root, or no subject that can be used.
    """
    root = root.resolve()
    release, mat_path = _find_release(root)
    base = root / release.image_folder
    defects = Defects()
    pictures = _read_pictures(mat_path)
    pictures = _without_overlap(pictures, options.drop_overlap, defects)
    splits_path = split_file(root, options.split_file)
    split_of = _splits(splits_path, base, pictures, defects)
    pictures = [picture for picture in pictures if picture.path in split_of]
    paths = [base / picture.path for picture in pictures]
    require_all_inside(base, paths, str(mat_path))
    sizes = read_sizes(paths)
    subjects: list[Subject] = []
    for picture, size in zip(pictures, sizes, strict=True):
        if isinstance(size, UnreadableImage):
            defects.add(size.reason, picture.path)
        else:
            subjects += _subjects(picture, split_of, size, release, defects)
    if not subjects:
        found = ", ".join(f"{count} x {kind}" for kind, count in defects.counts.items())
        raise RequestError(
            f"{base}: no usable image of the {len(pictures)} that {mat_path} lists ({found}); check the download"
        )
    files = [path for path in (mat_path, splits_path) if path]
    return Dataset(
        name="emotic",
        root=root,
        categories=CATEGORIES,
        multi_label=True,
        subjects=tuple(subjects),
        defects=defects,
        annotation_digest=f"{release.name}:{digest_files(root, files)}",
    )


def _find_release(root: Path) -> tuple[_Release, Path]:
    for release in _RELEASES:
        for path in (root / "Annotations" / release.annotation_file, root / release.annotation_file):
            if path.is_file():
                base = root / release.image_folder
                if not base.is_dir():
                    raise RequestError(
                        f"{base}: no such folder, though {path} is there; unpack the images of "
                        f"{release.name} there, or correct --data-root"
                    )
                return release, path
    raise RequestError(
        f"{root / 'Annotations' / 'Annotations.mat'}: no such file; --data-root must name the folder that "
        "holds Annotations/Annotations.mat and emotic/, or CVPR17_Annotations.mat and cvpr_emotic/"
    )


def _read_pictures(mat_path: Path) -> list[_Picture]:
    try:
        content = loadmat(mat_path, squeeze_me=True, struct_as_record=False)
    except (
        *(MatReadError, NotImplementedError, ValueError, TypeError, KeyError, IndexError),
        *(OSError, EOFError, OverflowError, MemoryError, struct.error, zlib.error),
    ) as error:
        raise RequestError(f"{mat_path}: not a readable MATLAB version 5 file ({error}); download it again") from error
    pictures = []
    for split in _MAT_SPLITS:
        if split not in content:
            raise RequestError(f"{mat_path}: key {split!r} is missing; train, val and test are expected")
        annotated = _AnnotationReader(mat_path, split)
        pictures += _merged(annotated.picture(item, n) for n, item in enumerate(as_list(content[split])))
    return pictures


def as_list(value: Any) -> list[Any]:
    """What loadmat squeezed, as the list it stands for: one element loses its array, none is an empty one."""
    return list(value.ravel()) if isinstance(value, np.ndarray) else [value]


@dataclass(frozen=True, slots=True)
class _AnnotationReader:
    """Reads the structs of one split by field name: their order differs between splits and releases."""

    mat_path: Path
    split: str

    def picture(self, item: Any, number: int) -> _Picture:
        where = f"{self.split}({number + 1})"
        folder = self._field(item, "folder", where)
        filename = self._field(item, "filename", where)
        path = relative_path(f"{folder}/{filename}", f"{self.mat_path} {where}")
        persons = [
            self._person(person, f"{where}.person({index + 1})", path)
            for index, person in enumerate(as_list(self._field(item, "person", where)))
        ]
        declared = self._size(self._field(item, "image_size", where), f"{where}.image_size")
        return _Picture(path, self.split, declared, tuple(persons))

    def _field(self, item: Any, name: str, where: str) -> Any:
        if not isinstance(item, mat_struct) or name not in item._fieldnames:
            raise RequestError(
                f"{self.mat_path}: field {name!r} is missing in {where}; give an unchanged EMOTIC annotation file"
            )
        return getattr(item, name)

    def _size(self, item: Any, where: str) -> tuple[int, int] | None:
        if not isinstance(item, mat_struct):
            return None
        width, height = self._field(item, "n_col", where), self._field(item, "n_row", where)
        if not all(isinstance(side, int | float | np.number) and math.isfinite(side) for side in (width, height)):
            return None
        return int(width), int(height)

    def _person(self, item: Any, where: str, image: str) -> _Person:
        voted: set[str] = set()
        for annotator in as_list(self._field(item, "annotations_categories", where)):
            if isinstance(annotator, mat_struct):
                written = self._field(annotator, "categories", f"{where}.annotations_categories")
                voted |= self._labels(written, where, image)
        labels, votes_differ = voted, False
        if self.split != "train":
            combined = self._labels(self._field(item, "combined_categories", where), where, image)
            # Where only the votes were kept, they still say what the union would.
            labels, votes_differ = combined or voted, combined != voted
        return _Person(
            box=_four_numbers(self._field(item, "body_bbox", where)),
            labels=tuple(name for name in CATEGORIES if name in labels),
            votes_differ=votes_differ,
        )

    def _labels(self, written: Any, where: str, image: str) -> set[str]:
        labels = {text.strip() for text in _strings(written)}
        unknown = sorted(labels - _CATEGORY_SET)
        if unknown:
            raise RequestError(
                f"{self.mat_path}: unknown label {unknown[0]!r} in {where} ({image}); "
                "EMOTIC has 26 categories, from Affection to Yearning"
            )
        return labels


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, np.ndarray):
        return [text for item in value.ravel() for text in _strings(item)]
    return []


def _four_numbers(value: Any) -> Box | None:
    # Small whole numbers come back as uint8, in which x - 1 wraps around: hence float at once.
    try:
        x1, y1, x2, y2 = (float(number) for number in as_list(value))
    except (TypeError, ValueError):
        return None
    return x1, y1, x2, y2


def _merged(pictures: Iterable[_Picture]) -> list[_Picture]:
    """An image listed twice in one split becomes one, with the persons of both."""
    by_path: dict[str, _Picture] = {}
    for picture in pictures:
        first = by_path.get(picture.path)
        by_path[picture.path] = replace(first, persons=first.persons + picture.persons) if first else picture
    return list(by_path.values())


def _without_overlap(pictures: Sequence[_Picture], drop: bool, defects: Defects) -> list[_Picture]:
    """Settle images that stand in several splits: test goes before val, and val before train."""
    splits_of: dict[str, list[str]] = {}
    for picture in pictures:
        splits_of.setdefault(picture.path, []).append(picture.mat_split)
    settled = []
    for picture in pictures:
        winner = max(splits_of[picture.path], key=_MAT_SPLITS.index)
        if winner == picture.mat_split:
            settled.append(picture)
            continue
        fate = f"left out of {picture.mat_split}" if drop else "kept in both"
        defects.add(f"image in {picture.mat_split} and in {winner}: {fate}", picture.path)
        if not drop:
            settled.append(replace(picture, kept_overlap=True))
    return settled


def _splits(path: Path | None, base: Path, pictures: Sequence[_Picture], defects: Defects) -> Mapping[str, str | None]:
    """Split of each image to use; None where the .mat file's own split holds."""
    if path is None:
        return {picture.path: None for picture in pictures}
    split_of = read_split_file(path)
    known = {picture.path for picture in pictures}
    for image in split_of:
        if image not in known:
            raise RequestError(f"{path}: unknown image {image!r}; the annotations of {base} do not list it")
    for image in dict.fromkeys(picture.path for picture in pictures):
        if image not in split_of:
            defects.add(f"image not in {path.name}", image)
    return split_of


def _subjects(
    picture: _Picture,
    split_of: Mapping[str, str | None],
    size: tuple[int, int],
    release: _Release,
    defects: Defects,
) -> list[Subject]:
    if picture.declared_size != size:
        defects.add("image_size of the annotation is not the image's", picture.path)
    if not picture.persons:
        defects.add("image without persons", picture.path)
    ids = [picture.subject_id(index) for index in range(len(picture.persons))]
    boxes = [_clipped(p.box, size, ids[i], defects) for i, p in enumerate(picture.persons)]
    subjects = []
    for index, (person, box) in enumerate(zip(picture.persons, boxes, strict=True)):
        if person.votes_differ:
            defects.add("combined_categories are not the union of the votes", ids[index])
        if box is not None and box in boxes[:index]:
            defects.add("same box twice in an image: both kept", ids[index])
        if not person.labels:
            defects.add("person without labels", ids[index])
        if box is None or not person.labels:
            continue
        subject = Subject(
            subject_id=ids[index],
            image=f"{release.image_folder}/{picture.path}",
            width=size[0],
            height=size[1],
            split=split_of[picture.path] or picture.mat_split,
            body_box=box,
            # The same box again is the same person annotated twice, not another one.
            other_boxes=tuple(other for other in boxes if other is not None and other != box),
            labels=person.labels,
            box_source="annotation",
        )
        subjects.append(subject)
    return subjects


def _clipped(box: Box | None, size: tuple[int, int], where: str, defects: Defects) -> Box | None:
    """From 1-based inclusive to 0-based half-open, clipped to the decoded image."""
    if box is None:
        defects.add("body box that is not four numbers", where)
        return None
    half_open = (box[0] - 1, box[1] - 1, box[2], box[3])
    clipped = clip_box(half_open, *size)
    if clipped is None:
        defects.add("body box that holds no pixel of the image", where)
    elif clipped != half_open:
        defects.add("body box that leaves the image: clipped", where)
    return clipped
