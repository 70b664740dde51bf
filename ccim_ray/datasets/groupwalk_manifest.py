"""GroupWalk's manifest, line by line and as a whole: what each video, agent and frame is, and its split.

The fields are those that ``groupwalk`` describes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccim_ray.datasets.annotation_files import SPLIT_NAMES, read_text, relative_path
from ccim_ray.datasets.dataset import Defects
from ccim_ray.datasets.subject import Box
from ccim_ray.errors import RequestError

CATEGORIES = ("Angry", "Happy", "Neutral", "Sad")
BOX_FORMAT = "xyxy_0based_halfopen"

TEST_SHARE = 0.15
"""Share of all videos that becomes test where the manifest has none (paper 4.1: 85/15); they are taken from train."""
VAL_SHARE = 0.1
"""Share of all videos that becomes val where the manifest has none; they are taken from train."""
SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One agent in one frame, as written; one of ``image`` and ``video_file`` is None."""

    source: str  # file and line
    sample_id: str
    video: str
    agent: str
    frame: int
    image: str | None
    video_file: str | None
    box: Box
    labels: tuple[str, ...]
    split: str | None
    scene: str | None
    box_source: str


def read_manifest(path: Path) -> list[ManifestRow]:
    """All lines of a manifest.

    Raises:
        RequestError: it is missing, empty or malformed, or its lines contradict each other.
    """
    rows = list(_rows(path))
    if not rows:
        raise RequestError(f"{path}: no line in it; write one JSON object for each agent in each frame")
    _require_consistent(rows)
    return rows


def split_of_videos(rows: Sequence[ManifestRow], path: Path, defects: Defects) -> dict[str, str]:
    """Split of each video: the manifest's. Test and val, where it has none, are drawn from train and counted.

    Raises:
        RequestError: a video is in two splits, only some lines have a split, or train is too small to draw from.
    """
    first_of: dict[str, ManifestRow] = {}
    for row in rows:
        first = first_of.setdefault(row.video, row)
        if first.split != row.split:
            raise RequestError(
                f"{row.source}: video {row.video!r} is in split {row.split}, and in {first.split} in "
                f"{first.source}; a video belongs to one split"
            )
    without = [row for row in first_of.values() if row.split is None]
    if 0 < len(without) < len(first_of):
        raise RequestError(f"{without[0].source}: field 'split' is missing, and other lines have it; give it to all")
    split_of = {video: first.split or "train" for video, first in first_of.items()}
    if not any(split.startswith("test") for split in split_of.values()):
        _draw("test", TEST_SHARE, rows, split_of, path, defects)
    if "val" not in split_of.values():
        _draw("val", VAL_SHARE, rows, split_of, path, defects)
    return split_of


def _rows(path: Path) -> Iterator[ManifestRow]:
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

    def row(self) -> ManifestRow:
        self._one_of("bbox_format", (BOX_FORMAT,))
        return ManifestRow(
            source=self.source,
            sample_id=self._text("sample_id"),
            video=self._text("video_id"),
            agent=self._text("agent_id"),
            frame=self._frame(),
            image=self._path("image") if self._is_given("image") else None,
            video_file=self._video_file(),
            box=self._box(),
            labels=self._labels(),
            split=self._one_of("split", SPLIT_NAMES) if self._is_given("split") else None,
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

    def _is_given(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _path(self, name: str) -> str:
        return relative_path(self._text(name), f"{self.source}: field {name!r}")

    def _video_file(self) -> str | None:
        if not self._is_given("video_file"):
            if not self._is_given("image"):
                self._text("image")  # refuses it
            return None
        if self._is_given("image"):
            raise RequestError(f"{self.source}: fields 'image' and 'video_file' are both given; set one to null")
        return self._path("video_file")

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


def _require_consistent(rows: Sequence[ManifestRow]) -> None:
    first_of: dict[str, ManifestRow] = {}
    first_in: dict[str, ManifestRow] = {}
    file_of: dict[str, ManifestRow] = {}
    for row in rows:
        first = first_of.setdefault(row.sample_id, row)
        if first is not row:
            raise RequestError(f"{row.source}: sample_id {row.sample_id!r} again, after {first.source}; keep one")
        if (row.video_file is None) != (rows[0].video_file is None):
            raise RequestError(
                f"{row.source}: names {'an image' if row.image else 'a video file'}, unlike {rows[0].source}; "
                "give image on all lines, or video_file on all"
            )
        name = row.image or str(row.video_file)
        other = first_in.setdefault(name, row)
        if other.video != row.video:
            raise RequestError(
                f"{row.source}: {name} is of video {row.video!r}, and of {other.video!r} in {other.source}; "
                f"{'an image' if row.image else 'a video file'} belongs to one video"
            )
        other = file_of.setdefault(row.video, row)
        if other.video_file != row.video_file:
            raise RequestError(
                f"{row.source}: video {row.video!r} is in {row.video_file}, and in {other.video_file} in "
                f"{other.source}; a video is one file"
            )


def _draw(
    split: str, share: float, rows: Sequence[ManifestRow], split_of: dict[str, str], path: Path, defects: Defects
) -> None:
    """Move videos of train to ``split``, by the annotation alone: a frame that cannot be read moves no video."""
    train = sorted({row.video for row in rows if row.labels and split_of[row.video] == "train"})
    if len(train) < 2:
        raise RequestError(
            f"{path}: no video has split {split}, and {len(train)} labelled in train are too few to take one from; "
            f"give some videos the split {split}"
        )
    wanted = max(1, round(share * len(split_of)))
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    for index in shuffled[: min(wanted, len(train) - 1)]:
        split_of[train[index]] = split
        kind = f"video drawn from train for {split}: the manifest names none (seed {SPLIT_SEED})"
        defects.add(kind, train[index], split)
