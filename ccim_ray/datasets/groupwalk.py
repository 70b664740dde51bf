"""GroupWalk: people walking before fixed cameras, with four emotions (paper 4.1). Format unverified.

No file of the published dataset was at hand, so its own format is not read. What is read is a manifest in JSON
Lines, which a short script can make from any annotation, and frames extracted beforehand::

    <root>/manifest.jsonl    one line for each agent in each frame
    <root>/<image>           a frame, where the manifest says

A line is an object with all of these fields; others are passed over::

    sample_id    unique text, such as "<video>/<agent>/<frame>"
    video_id     text; a video is in one split
    agent_id     text, unique within the video
    frame_index  whole number from 0
    image        path relative to the root, with forward slashes
    bbox         [x1, y1, x2, y2] in pixels
    bbox_format  "xyxy_0based_halfopen"
    labels       list of Angry, Happy, Neutral, Sad; several may hold
    split        "train", "val" or "test", or the embedded world's "test_id", "test_do", "test_anti"
    setting      text or null
    box_source   "annotation", or "detector:<name>@<version>"
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccim_ray.datasets.annotation_files import (
    SPLIT_NAMES,
    digest_files,
    read_text,
    relative_path,
    require_all_inside,
)
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.images import UnreadableImage, read_sizes
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.errors import RequestError

CATEGORIES = ("Angry", "Happy", "Neutral", "Sad")
MANIFEST_FILE = "manifest.jsonl"
BOX_FORMAT = "xyxy_0based_halfopen"
NOTE = "format unverified"

VAL_SHARE = 0.1
"""Share of all videos that becomes val where the manifest has none; they are taken from train."""
VAL_SEED = 0


@dataclass(frozen=True, slots=True)
class _Row:
    source: str  # file and line
    sample_id: str
    video: str
    agent: str
    frame: int
    image: str
    box: Box  # as written
    labels: tuple[str, ...]
    split: str
    scene: str | None
    box_source: str


def load_groupwalk(root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read the manifest, one subject a line: ``subject_id`` is its sample_id.

    Split: the manifest's. Where it has no val, whole videos of train, drawn with VAL_SEED, become val.

    Raises:
        RequestError: the manifest is missing, empty or malformed, a sample_id is listed twice, a video is in two
            splits, an image in two videos or outside the data root, or no subject can be used.
    """
    root = root.resolve()
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise RequestError(f"{path}: no such file; --data-root must name the folder that holds {MANIFEST_FILE}")
    rows = list(_read_rows(path))
    if not rows:
        raise RequestError(f"{path}: no line in it; write one JSON object for each agent in each frame")
    _require_consistent(rows)
    split_of = _splits(rows, path)
    defects = Defects()
    subjects = _subjects(rows, split_of, _sizes(root, rows, path, defects), defects)
    if not subjects:
        found = ", ".join(f"{count} x {kind}" for kind, count in defects.counts.items())
        raise RequestError(f"{path}: no usable subject on its {len(rows)} lines ({found}); check the frames' folder")
    return Dataset(
        name="groupwalk",
        root=root,
        categories=CATEGORIES,
        multi_label=True,
        subjects=subjects,
        defects=defects,
        annotation_digest=digest_files(root, [path]),
        note=NOTE,
    )


def _read_rows(path: Path) -> Iterator[_Row]:
    # Only a line feed ends a line: text in JSON may hold the other characters at which splitlines() cuts.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        source = f"{path} line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{source}: not JSON ({error}); write one whole object a line") from error
        if not isinstance(fields, dict):
            raise RequestError(f"{source}: {_shown(fields)} found, one JSON object a line expected")
        yield _Fields(fields, source).row()


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one line, each read with the type that it must have."""

    values: Mapping[str, Any]
    source: str

    def row(self) -> _Row:
        self._one_of("bbox_format", (BOX_FORMAT,))
        return _Row(
            source=self.source,
            sample_id=self._text("sample_id"),
            video=self._text("video_id"),
            agent=self._text("agent_id"),
            frame=self._frame(),
            image=relative_path(self._text("image"), f"{self.source}: field 'image'"),
            box=self._box(),
            labels=self._labels(),
            split=self._one_of("split", SPLIT_NAMES),
            scene=None if self._value("setting") is None else self._text("setting"),
            box_source=self._text("box_source"),
        )

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise RequestError(f"{self.source}: field {name!r} is missing; each line needs it")
        return self.values[name]

    def _refused(self, name: str, expected: str) -> RequestError:
        return RequestError(f"{self.source}: field {name!r} is {_shown(self.values[name])}; give {expected}")

    def _text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
            raise self._refused(name, "a text that is not empty")
        return value

    def _one_of(self, name: str, known: Sequence[str]) -> str:
        value = self._value(name)
        if value not in known:
            raise self._refused(name, " or ".join(known))
        return str(value)

    def _frame(self) -> int:
        value = self._value("frame_index")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self._refused("frame_index", "a whole number from 0")
        return value

    def _box(self) -> Box:
        value = self._value("bbox")
        try:
            x1, y1, x2, y2 = (_number(item) for item in value)
        except (TypeError, ValueError, OverflowError):
            raise self._refused("bbox", "four numbers [x1, y1, x2, y2]") from None
        return x1, y1, x2, y2

    def _labels(self) -> tuple[str, ...]:
        value = self._value("labels")
        written = [] if value is None else value
        if not isinstance(written, list):
            raise self._refused("labels", f"a list of {', '.join(CATEGORIES)}")
        for label in written:
            if label not in CATEGORIES:
                raise RequestError(
                    f"{self.source}: field 'labels' has the unknown label {_shown(label)}; "
                    f"GroupWalk has {', '.join(CATEGORIES)}"
                )
        return tuple(name for name in CATEGORIES if name in written)


def _number(value: Any) -> float:
    if value is None:  # what programs write that keep to JSON, which has no NaN
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _is_unicode(text: str) -> bool:
    """JSON can name half a surrogate pair, which no file name and no Arrow string can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: Any) -> str:
    """What was found, short enough for one line, as JSON and hence in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _require_consistent(rows: Sequence[_Row]) -> None:
    first_of: dict[str, _Row] = {}
    first_in: dict[str, _Row] = {}
    for row in rows:
        first = first_of.setdefault(row.sample_id, row)
        if first is not row:
            raise RequestError(f"{row.source}: sample_id {row.sample_id!r} again, after {first.source}; keep one")
        other = first_in.setdefault(row.image, row)
        if other.video != row.video:
            raise RequestError(
                f"{row.source}: {row.image} is a frame of video {row.video!r}, and of {other.video!r} in "
                f"{other.source}; an image belongs to one video"
            )


def _splits(rows: Sequence[_Row], path: Path) -> dict[str, str]:
    """Split of each video."""
    first_of: dict[str, _Row] = {}
    for row in rows:
        first = first_of.setdefault(row.video, row)
        if first.split != row.split:
            raise RequestError(
                f"{row.source}: video {row.video!r} is in split {row.split}, and in {first.split} in "
                f"{first.source}; a video belongs to one split"
            )
    split_of = {video: first.split for video, first in first_of.items()}
    if "val" not in split_of.values():
        for video in _drawn_for_val(rows, split_of, path):
            split_of[video] = "val"
    return split_of


def _drawn_for_val(rows: Sequence[_Row], split_of: Mapping[str, str], path: Path) -> list[str]:
    """Videos of train to validate on, by the annotation alone: a frame that cannot be read moves no video."""
    train = sorted({row.video for row in rows if row.labels and split_of[row.video] == "train"})
    if len(train) < 2:
        raise RequestError(
            f"{path}: no video has split val, and {len(train)} labelled in train are too few to take one from; "
            "give some videos the split val"
        )
    wanted = max(1, round(VAL_SHARE * len(split_of)))
    shuffled = np.random.default_rng(VAL_SEED).permutation(len(train))
    return [train[index] for index in shuffled[: min(wanted, len(train) - 1)]]


def _sizes(root: Path, rows: Sequence[_Row], path: Path, defects: Defects) -> dict[str, tuple[int, int]]:
    """Width and height of each image that can be read; the others are counted."""
    images = list(dict.fromkeys(row.image for row in rows))
    files = [root / image for image in images]
    require_all_inside(root, files, str(path))
    size_of = {}
    for image, size in zip(images, read_sizes(files), strict=True):
        if isinstance(size, UnreadableImage):
            defects.add(size.reason, image)
        else:
            size_of[image] = size
    return size_of


def _subjects(
    rows: Sequence[_Row],
    split_of: Mapping[str, str],
    size_of: Mapping[str, tuple[int, int]],
    defects: Defects,
) -> tuple[Subject, ...]:
    readable = [row for row in rows if row.image in size_of]
    boxes = [_clipped(row, size_of[row.image], defects) for row in readable]
    people_of: dict[str, list[tuple[str, Box | None]]] = {}
    for row, box in zip(readable, boxes, strict=True):
        people = people_of.setdefault(row.image, [])
        if any(agent == row.agent for agent, _ in people):
            defects.add("agent twice in an image: both kept", row.sample_id)
        people.append((row.agent, box))
    for row in rows:
        if not row.labels:
            defects.add("agent without labels", row.sample_id)
    return tuple(
        Subject(
            subject_id=row.sample_id,
            image=row.image,
            width=size_of[row.image][0],
            height=size_of[row.image][1],
            split=split_of[row.video],
            body_box=box,
            other_boxes=tuple(
                other for agent, other in people_of[row.image] if agent != row.agent and other is not None
            ),
            labels=row.labels,
            scene=row.scene,
            video=row.video,
            frame=row.frame,
            box_source=row.box_source,
        )
        for row, box in zip(readable, boxes, strict=True)
        if box is not None and row.labels
    )


def _clipped(row: _Row, size: tuple[int, int], defects: Defects) -> Box | None:
    clipped = clip_box(row.box, *size)
    if clipped is None:
        defects.add("body box that holds no pixel of the image", row.sample_id)
    elif clipped != row.box:
        defects.add("body box that leaves the image: clipped", row.sample_id)
    return clipped
