"""CAER-S: frames of television shows with one labelled person each (paper 4.1).

Layout: ``<root>/CAER-S/{train,test}/<Emotion>/<NNNN>.png``. The anger folder is ``Angry`` under train and
``Anger`` under test in the published archive; both names are the category Anger. No person boxes and no
validation split are published, so beside the pictures the data root may hold:

- ``train.txt``, ``val.txt``, ``test.txt``: faces, one ``path,label,x1,y1,x2,y2`` a line without a header, the
  path relative to CAER-S or to its train or test folder; right and bottom inclusive, as dlib gives them.
- ``body_boxes.csv``: bodies (``annotation_files.BODY_BOX_FILE``), images relative to CAER-S.
- ``splits.csv``: the split (``annotation_files.SPLIT_FILE``), images relative to CAER-S.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccim_ray.datasets.annotation_files import (
    BODY_BOX_FILE,
    can_be_named,
    digest_files,
    parse_box,
    read_body_box_file,
    read_lines,
    read_split_file,
    relative_path,
    require_inside,
    split_file,
)
from ccim_ray.datasets.dataset import AS_PUBLISHED, UNLOCATED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.images import UnreadableImage, read_sizes
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.errors import RequestError

CATEGORIES = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
IMAGE_FOLDER = "CAER-S"
SPLIT_SEED = 0
"""Seed of the validation third that is drawn from the test folder where there is no split file."""

_CATEGORY_OF_FOLDER = {**{name: name for name in CATEGORIES}, "Angry": "Anger"}
_OTHER_ANGER = {"Anger": "Angry", "Angry": "Anger"}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_PARTS = ("train", "test")
_FACE_FILES = {"train.txt": "train", "val.txt": "test", "test.txt": "test"}


@dataclass(frozen=True, slots=True)
class _Picture:
    relative: str  # to CAER-S
    part: str  # train or test: the folder it lies in
    category: str


def load_caer_s(root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read CAER-S.

    Split: the train folder is train; of the test folder one third of each category, drawn with SPLIT_SEED, is
    val and the rest test. A split file replaces this.

    Body box: the body-box file ("user"), else the face grown 3 x wide and 6 x tall ("face"); a subject that
    has neither is counted and left out, unless ``options.keep_unlocated``.

    Raises:
        RequestError: folder missing, unknown emotion folder, malformed file, an annotation that leaves the
            data root, no picture that can be used, or no box at all.
    """
    root = root.resolve()
    defects = Defects()
    pictures = _list_pictures(root, defects)
    splits_path = split_file(root, options.split_file)
    split_of = _splits(splits_path, root, pictures, defects)
    kept = [picture for picture in pictures if picture.relative in split_of]
    face_of = _read_faces(root, pictures, split_of, defects)
    body_of = _read_bodies(root, pictures, defects)
    sizes = read_sizes([root / IMAGE_FOLDER / picture.relative for picture in kept])
    subjects: list[Subject] = []
    readable = 0
    for picture, size in zip(kept, sizes, strict=True):
        if isinstance(size, UnreadableImage):
            defects.add(size.reason, picture.relative, split_of[picture.relative])
            continue
        readable += 1
        subject = _subject(picture, split_of[picture.relative], size, face_of, body_of, options, defects)
        if subject is not None:
            subjects.append(subject)
    _require_some(root, readable, len(subjects), defects)
    beside = [root / name for name in (BODY_BOX_FILE, *_FACE_FILES)]
    files = [path for path in (splits_path, *beside) if path and path.is_file()]
    return Dataset(
        name="caer_s",
        root=root,
        categories=CATEGORIES,
        multi_label=False,
        subjects=tuple(subjects),
        defects=defects,
        annotation_digest=digest_files(root, files),
    )


def _list_pictures(root: Path, defects: Defects) -> list[_Picture]:
    base = root / IMAGE_FOLDER
    pictures = []
    for part in _PARTS:
        if not (base / part).is_dir():
            raise RequestError(
                f"{base / part}: no such folder; --data-root must name the folder that holds "
                f"{IMAGE_FOLDER}/train and {IMAGE_FOLDER}/test"
            )
        found = [picture for folder in _folders(base / part) for picture in _pictures_of(base, folder, defects)]
        for category in CATEGORIES:
            if not any(picture.category == category for picture in found):
                defects.add("category without pictures", f"{part}/{category}")
        found.sort(key=lambda picture: (CATEGORIES.index(picture.category), picture.relative))
        pictures += found
    return pictures


def _folders(part: Path) -> list[Path]:
    return sorted(entry for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures_of(base: Path, folder: Path, defects: Defects) -> list[_Picture]:
    category = _CATEGORY_OF_FOLDER.get(folder.name)
    if category is None:
        raise RequestError(f"{folder}: unknown label {folder.name!r}; CAER-S has {', '.join(CATEGORIES)}")
    require_inside(base, folder, str(folder))
    pictures = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        relative = f"{folder.parent.name}/{folder.name}/{entry.name}"
        if entry.name.startswith("."):
            continue  # what a file manager leaves behind
        if not entry.name.lower().endswith(_SUFFIXES):
            defects.add("file that is no .png or .jpg", relative)
            continue
        if not can_be_named(relative):
            defects.add("file whose name is not UTF-8", ascii(relative))
            continue
        if entry.is_symlink():
            require_inside(base, Path(entry.path), str(folder))
        pictures.append(_Picture(relative, folder.parent.name, category))
    return pictures


def _splits(path: Path | None, root: Path, pictures: Sequence[_Picture], defects: Defects) -> dict[str, str]:
    """Split by picture; a picture without one is not used."""
    if path is None:
        return _default_splits(pictures)
    by_path = {picture.relative: picture for picture in pictures}
    split_of = {}
    for listed, split in read_split_file(path).items():
        picture = _find(listed, by_path)
        if picture is None:
            raise RequestError(
                f"{path}: unknown image {listed!r}; no such file under {root / IMAGE_FOLDER}: put it there again, or "
                "take its line out"
            )
        split_of[picture.relative] = split
    for picture in pictures:
        if picture.relative not in split_of:
            defects.add(f"image not in {path.name}", picture.relative)
    return split_of


def _default_splits(pictures: Sequence[_Picture]) -> dict[str, str]:
    split_of = {picture.relative: picture.part for picture in pictures}
    for number, category in enumerate(CATEGORIES):
        # By file name, so that it does not matter what the anger folder is called.
        ordered = sorted(
            (picture.relative for picture in pictures if (picture.part, picture.category) == ("test", category)),
            key=lambda relative: (relative.rpartition("/")[2], relative),
        )
        shuffled = np.random.default_rng((SPLIT_SEED, number)).permutation(len(ordered))
        for index in shuffled[: round(len(ordered) / 3)]:
            split_of[ordered[index]] = "val"
    return split_of


def _find(listed: str, by_path: Mapping[str, _Picture]) -> _Picture | None:
    """The picture that an annotation means, whichever name its anger folder goes by."""
    if listed in by_path:
        return by_path[listed]
    part, _, rest = listed.partition("/")
    folder, _, name = rest.partition("/")
    return by_path.get(f"{part}/{_OTHER_ANGER.get(folder, folder)}/{name}")


def _read_faces(
    root: Path, pictures: Sequence[_Picture], split_of: Mapping[str, str], defects: Defects
) -> dict[str, Box]:
    """Half-open face boxes as annotated, not yet clipped, by picture."""
    by_path = {picture.relative: picture for picture in pictures}
    face_of: dict[str, Box] = {}
    for name, part in _FACE_FILES.items():
        path = root / name
        if not path.is_file():
            continue
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            source = f"{path} line {number}"
            listed, category, box = _parse_face(line, part, source)
            picture = _find(listed, by_path)
            if picture is None:
                defects.add("face of an image that is not there", f"{name}: {listed}")
            elif picture.relative in face_of:
                split = split_of.get(picture.relative)
                defects.add("second face of an image: the first is kept", f"{name}: {listed}", split)
            else:
                face_of[picture.relative] = box
                if category != picture.category:
                    kind = "label of the face file is not the folder's: the folder's is kept"
                    defects.add(kind, listed, split_of.get(picture.relative))
    return face_of


def _parse_face(line: str, part: str, source: str) -> tuple[str, str, Box]:
    fields = line.strip().rsplit(",", 5)
    if len(fields) != 6:
        raise RequestError(f"{source}: {line!r} found, path,label,x1,y1,x2,y2 expected")
    listed = relative_path(fields[0], source)
    parents = listed.split("/")[:-1]
    if len(parents) == 1:
        listed = f"{part}/{listed}"
    elif len(parents) != 2 or parents[0] not in _PARTS:
        raise RequestError(f"{source}: path {listed!r} found, [train/ or test/]<Emotion>/<file> expected")
    label = fields[1].strip()
    if label not in map(str, range(len(CATEGORIES))):
        raise RequestError(f"{source}: unknown label {label!r}; labels are 0 to {len(CATEGORIES) - 1}")
    x1, y1, x2, y2 = parse_box(fields[2:], source)
    return listed, CATEGORIES[int(label)], (x1, y1, x2 + 1, y2 + 1)


def _read_bodies(root: Path, pictures: Sequence[_Picture], defects: Defects) -> dict[str, Box]:
    path = root / BODY_BOX_FILE
    if not path.is_file():
        return {}
    by_path = {picture.relative: picture for picture in pictures}
    body_of = {}
    for listed, box in read_body_box_file(path).items():
        picture = _find(listed, by_path)
        if picture is None:
            defects.add("body box of an image that is not there", listed)
        else:
            body_of[picture.relative] = box
    return body_of


def _subject(
    picture: _Picture,
    split: str,
    size: tuple[int, int],
    face_of: Mapping[str, Box],
    body_of: Mapping[str, Box],
    options: LoadOptions,
    defects: Defects,
) -> Subject | None:
    name = picture.relative
    face = _clipped(face_of.get(name), size, "face box", (name, split), defects)
    body = _clipped(body_of.get(name), size, "body box", (name, split), defects)
    source = "user"
    if body is None and face is not None:
        body, source = body_from_face(face, *size), "face"
    if body is None and options.keep_unlocated:
        body, source = (0.0, 0.0, float(size[0]), float(size[1])), UNLOCATED
    if body is None:
        defects.add("no box", name, split)
        return None
    return Subject(
        subject_id=name,
        image=f"{IMAGE_FOLDER}/{name}",
        width=size[0],
        height=size[1],
        split=split,
        body_box=body,
        face_box=face,
        labels=(picture.category,),
        box_source=source,
    )


def _clipped(box: Box | None, size: tuple[int, int], kind: str, where: tuple[str, str], defects: Defects) -> Box | None:
    if box is None:
        return None
    clipped = clip_box(box, *size)
    if clipped is None:
        defects.add(f"{kind} that holds no pixel of the image", *where)
    elif clipped != box:
        defects.add(f"{kind} that leaves the image: clipped", *where)
    return clipped


def body_from_face(face: Box, width: int, height: int) -> Box | None:
    """The face grown 3 x wide and 6 x tall, clipped to the image.

    It is centred on the face from left to right. From top to bottom it starts half a face above the face,
    since a face box goes from the brows to the chin and the head goes on above it.
    """
    x1, y1, x2, y2 = face
    wide, tall = x2 - x1, y2 - y1
    return clip_box((x1 - wide, y1 - tall / 2, x2 + wide, y1 + 5.5 * tall), width, height)


def _require_some(root: Path, readable: int, subjects: int, defects: Defects) -> None:
    if subjects:
        return
    if readable:
        raise RequestError(
            f"{root}: none of {readable} images has a body box; give {root / BODY_BOX_FILE} "
            f"(header image,x1,y1,x2,y2) or the face files {root / 'train.txt'} and {root / 'test.txt'}"
        )
    found = ", ".join(f"{count} x {kind}" for kind, count in defects.counts.items())
    raise RequestError(f"{root / IMAGE_FOLDER}: no usable image ({found}); check the download")
