"""EMOTIC: people in everyday scenes with 26 categories that do not exclude each other (paper 4.1).

Layout of the PAMI 2019 release::

    <root>/emotic/{mscoco,framesdb,emodb_small,ade20k}/images/<file>
    <root>/Annotations/Annotations.mat

The CVPR 2017 release has ``CVPR17_Annotations.mat`` and the image folder ``cvpr_emotic``. What the .mat files hold
stands in ``emotic_annotations``. Boxes are 1-based with inclusive right and bottom.

Beside them, ``splits.csv`` (``annotation_files.SPLIT_FILE``, images relative to the image folder) replaces
the split of the .mat file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccim_ray.datasets.annotation_files import (
    digest_files,
    read_split_file,
    require_all_inside,
    split_file,
)
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.emotic_annotations import CATEGORIES, MAT_SPLITS, AnnotatedImage, read_annotations
from ccim_ray.datasets.images import UnreadableImage, read_sizes
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.errors import RequestError

NOT_RATED = "person without valence, arousal or dominance: kept"
"""Readers that drop these persons have smaller splits: categories are all that is trained here, so they stay."""


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
class _Picture:
    annotated: AnnotatedImage
    kept_overlap: bool = False  # also in another split of the .mat file, and wanted in both

    @property
    def path(self) -> str:
        return self.annotated.path

    def subject_id(self, index: int) -> str:
        suffix = f"@{self.annotated.mat_split}" if self.kept_overlap else ""
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
    splits_path = split_file(root, options.split_file)
    pictures = _without_overlap(read_annotations(mat_path), options.drop_overlap, defects)
    split_of = _splits(splits_path, base, pictures, defects)
    pictures = [picture for picture in pictures if picture.path in split_of]
    paths = [base / picture.path for picture in pictures]
    require_all_inside(base, paths, str(mat_path))
    sizes = read_sizes(paths)
    subjects: list[Subject] = []
    for picture, size in zip(pictures, sizes, strict=True):
        if isinstance(size, UnreadableImage):
            defects.add(size.reason, picture.path, _split(picture, split_of))
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


def _without_overlap(images: Sequence[AnnotatedImage], drop: bool, defects: Defects) -> list[_Picture]:
    """Settle images that stand in several splits: test goes before val, and val before train."""
    splits_of: dict[str, list[str]] = {}
    for image in images:
        splits_of.setdefault(image.path, []).append(image.mat_split)
    settled = []
    for image in images:
        winner = max(splits_of[image.path], key=MAT_SPLITS.index)
        overlaps = winner != image.mat_split
        if overlaps:
            fate = f"left out of {image.mat_split}" if drop else "kept in both"
            defects.add(f"image in {image.mat_split} and in {winner}: {fate}", image.path, image.mat_split)
        if not (overlaps and drop):
            settled.append(_Picture(image, kept_overlap=overlaps))
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
    persons, split = picture.annotated.persons, _split(picture, split_of)
    if picture.annotated.declared_size != size:
        defects.add("image_size of the annotation is not the image's", picture.path, split)
    if not persons:
        defects.add("image without persons", picture.path, split)
    ids = [picture.subject_id(index) for index in range(len(persons))]
    boxes = [_clipped(person.box, size, name, split, defects) for person, name in zip(persons, ids, strict=True)]
    subjects = []
    for index, (person, box) in enumerate(zip(persons, boxes, strict=True)):
        if person.votes_differ:
            defects.add("combined_categories are not the union of the votes", ids[index], split)
        if box is not None and box in boxes[:index]:
            defects.add("same box twice in an image: both kept", ids[index], split)
        if not person.labels:
            defects.add("person without labels", ids[index], split)
        if box is None or not person.labels:
            continue
        if not person.is_rated:
            defects.add(NOT_RATED, ids[index], split)
        subject = Subject(
            subject_id=ids[index],
            image=f"{release.image_folder}/{picture.path}",
            width=size[0],
            height=size[1],
            split=split,
            body_box=box,
            # The same box again is the same person annotated twice, not another one.
            other_boxes=tuple(other for other in boxes if other is not None and other != box),
            labels=person.labels,
            box_source="annotation",
        )
        subjects.append(subject)
    return subjects


def _split(picture: _Picture, split_of: Mapping[str, str | None]) -> str:
    return split_of[picture.path] or picture.annotated.mat_split


def _clipped(box: Box | None, size: tuple[int, int], where: str, split: str, defects: Defects) -> Box | None:
    """From 1-based inclusive to 0-based half-open, clipped to the decoded image."""
    if box is None:
        defects.add("body box that is not four numbers", where, split)
        return None
    half_open = (box[0] - 1, box[1] - 1, box[2], box[3])
    clipped = clip_box(half_open, *size)
    if clipped is None:
        defects.add("body box that holds no pixel of the image", where, split)
    elif clipped != half_open:
        defects.add("body box that leaves the image: clipped", where, split)
    return clipped
