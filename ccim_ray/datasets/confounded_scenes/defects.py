"""Defects planted in an embedded world, a known number of each kind, to test what reads such files.

Which picture gets which defect is a function of the world's settings and the rate. A picture has at most one, so the
counts that a loader finds are the counts that were planted. Beside them lie pictures of unusual colour modes, which
must load. A kind goes by the name under which the dataset's loader, ``read_rgb`` or the check of a dataset counts it.

``truth.parquet`` tells of the world without its defects; of a near-duplicate it holds the copied picture's boxes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ccim_ray.datasets.confounded_scenes import corruptions
from ccim_ray.datasets.confounded_scenes.corruptions import CorruptPicture, CorruptRow, Files
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.writers import PictureName, PictureRow
from ccim_ray.errors import RequestError

PLANTED_FILE = "planted_defects.json"
"""In the world's root: ``defects`` and ``quirks``, the number of each kind and where they are, and ``copies``, which
picture each near-duplicate is a copy of. It marks the folder as ``world.json`` does."""
HIGHEST_RATE = 0.2

_STREAM = int.from_bytes(b"defects")
_IMAGE_FOLDERS = {"caer_s": "CAER-S/", "emotic": "emotic/", "groupwalk": ""}

# Where a kind is found, in the words of the loader: the picture, the subject, or another file or line.
_PICTURE, _SUBJECT = "{picture}", "{subject}"


@dataclass(frozen=True, slots=True)
class _Corruption:
    """One way to go wrong, and the kinds that it is counted as, each with where the loader finds it."""

    found_as: Mapping[str, str]
    picture: CorruptPicture | None = None
    row: CorruptRow | None = None
    splits: tuple[str, ...] = ("train", "val", "test_id", "test_do", "test_anti")
    near_duplicate: bool = False
    quirk: bool = False


_NOT_AN_IMAGE = _Corruption({"not an image": _PICTURE}, corruptions.web_page)
_TRUNCATED = _Corruption({"truncated or damaged image": _PICTURE}, corruptions.truncated)
_MISSING = _Corruption({"missing image": _PICTURE}, corruptions.missing)
_BODY_LEAVES = _Corruption({"body box that leaves the image: clipped": _SUBJECT}, row=corruptions.body_leaves_image)
_BODY_WITHOUT_PIXEL = _Corruption(
    {"body box that holds no pixel of the image": _SUBJECT}, row=corruptions.body_without_pixel
)
_GREY_JPEG = _Corruption({"grey JPEG": _PICTURE}, corruptions.grey, quirk=True)
_CMYK_JPEG = _Corruption({"CMYK JPEG": _PICTURE}, corruptions.cmyk, quirk=True)

_EVERYWHERE = (_NOT_AN_IMAGE, _TRUNCATED, _BODY_LEAVES, _BODY_WITHOUT_PIXEL)

# Those that only some pictures can have come first, while there are pictures to choose from.
_CAER_S = (
    _Corruption(
        {"near-duplicate image across splits": _PICTURE},
        corruptions.slightly_changed,
        splits=("test_id", "test_do", "test_anti"),
        near_duplicate=True,
    ),
    _Corruption(
        # The published archive is listed by its folders: what is missing shows in the lists beside them.
        {
            "face of an image that is not there": "{half}.txt: {picture}",
            "body box of an image that is not there": _PICTURE,
        },
        corruptions.missing,
        corruptions.not_in_split_file,
    ),
    _Corruption({"face box that leaves the image: clipped": _SUBJECT}, row=corruptions.face_leaves_image),
    _Corruption({"face box that holds no pixel of the image": _SUBJECT}, row=corruptions.face_without_pixel),
    _Corruption({"no box": _SUBJECT}, row=corruptions.no_box),
    _Corruption({"second face of an image: the first is kept": "{half}.txt: {picture}"}, row=corruptions.second_face),
    _Corruption(
        {"label of the face file is not the folder's: the folder's is kept": _PICTURE}, row=corruptions.other_label
    ),
    _Corruption({"file that is no .png or .jpg": "{stem}.txt"}, corruptions.text_file_beside),
    _Corruption({"image not in splits.csv": _PICTURE}, row=corruptions.not_in_split_file),
    *_EVERYWHERE,
    _Corruption({"4-channel PNG": _PICTURE}, corruptions.four_channels, quirk=True),
    _Corruption({"16-bit grey PNG": _PICTURE}, corruptions.grey_16_bit, quirk=True),
)
_EMOTIC = (
    _Corruption(
        {"combined_categories are not the union of the votes": _SUBJECT},
        row=corruptions.combined_is_not_union,
        splits=("val", "test_id", "test_do", "test_anti"),
    ),
    _Corruption(
        {"image in train and in val: left out of train": _PICTURE}, row=corruptions.also_in_val, splits=("train",)
    ),
    _Corruption({"image_size of the annotation is not the image's": _PICTURE}, row=corruptions.wrong_size),
    _Corruption({"body box that is not four numbers": _SUBJECT}, row=corruptions.body_not_four_numbers),
    _Corruption({"same box twice in an image: both kept": "{picture}#1"}, row=corruptions.same_box_twice),
    _Corruption({"person without labels": _SUBJECT}, row=corruptions.without_labels),
    _Corruption({"person without valence, arousal or dominance: kept": _SUBJECT}, row=corruptions.not_rated),
    _MISSING,
    *_EVERYWHERE,
    _GREY_JPEG,
    _CMYK_JPEG,
)
_GROUPWALK = (
    _Corruption({"agent twice in an image: both kept": "{subject}/again"}, row=corruptions.agent_twice),
    _Corruption({"agent without labels": _SUBJECT}, row=corruptions.without_labels),
    _MISSING,
    *_EVERYWHERE,
    _GREY_JPEG,
    _CMYK_JPEG,
)
_CORRUPTIONS = {"caer_s": _CAER_S, "emotic": _EMOTIC, "groupwalk": _GROUPWALK}


@dataclass(frozen=True, slots=True)
class _Seat:
    """A picture of the world."""

    split: str
    index: int
    name: PictureName


@dataclass(frozen=True, slots=True)
class _Planted:
    seat: _Seat
    corruption: _Corruption
    number: int  # pictures before it with the same corruption
    copied: _Seat | None  # the picture that a near-duplicate repeats


@dataclass(frozen=True, slots=True)
class DefectPlan:
    """Which pictures of a world are corrupted, and how.

    Attributes:
        defects, quirks: where each kind is, in the loader's words.
        record: content of PLANTED_FILE; None for a world without defects.
    """

    defects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    quirks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    record: bytes | None = None
    planted: Mapping[str, _Planted] = field(default_factory=dict)

    def drawn_as(self, split: str, index: int, image: str) -> tuple[str, int]:
        """Split and index of the picture that is drawn: the picture itself, unless it copies another."""
        planted = self.planted.get(image)
        if planted is None or planted.copied is None:
            return split, index
        return planted.copied.split, planted.copied.index

    def files(self, image: str, content: bytes) -> Files:
        """What to write, by path relative to the root, for a picture whose file would hold ``content``."""
        planted = self.planted.get(image)
        if planted is None or planted.corruption.picture is None:
            return {image: content}
        return planted.corruption.picture(image, content)

    def rows(self, rows: Iterable[PictureRow]) -> Iterator[PictureRow]:
        """The rows to annotate."""
        for row in rows:
            planted = self.planted.get(row["image"])
            if planted is None or planted.corruption.row is None:
                yield row
            else:
                yield from planted.corruption.row(row, planted.number)


def plan_defects(settings: WorldSettings, names: Mapping[str, Sequence[PictureName]], rate: float) -> DefectPlan:
    """Choose the pictures of each kind by the world's seed: round(rate * images), at least 1 unless the rate is 0.

    Args:
        names: all pictures of the world by split.

    Raises:
        RequestError: the rate is out of range, or the world has too few pictures for one defect a picture.
    """
    if not 0 <= rate <= HIGHEST_RATE:
        raise RequestError(f"--defects {rate:g}: give a share of the pictures from 0 to {HIGHEST_RATE:g}")
    if rate == 0:
        return DefectPlan()
    seats = [_Seat(split, index, name) for split, listed in names.items() for index, name in enumerate(listed)]
    chosen = _choose(settings, seats, max(1, round(rate * settings.images)), rate)
    planted = [chosen[seat.name.image] for seat in seats if seat.name.image in chosen]
    defects = _found([one for one in planted if not one.corruption.quirk], settings)
    if settings.like == "caer_s":
        defects |= _empty_categories(seats, chosen)
    quirks = _found([one for one in planted if one.corruption.quirk], settings)
    copies = {
        _found_at(_PICTURE, one.seat, settings): _found_at(_PICTURE, one.copied, settings)
        for one in planted
        if one.copied
    }
    record = {
        "like": settings.like,
        "rate": rate,
        "defects": {kind: {"count": len(where), "where": where} for kind, where in defects.items()},
        "quirks": {kind: {"count": len(where), "where": where} for kind, where in quirks.items()},
        "copies": copies,
    }
    return DefectPlan(defects, quirks, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode(), chosen)


def _choose(settings: WorldSettings, seats: Sequence[_Seat], count: int, rate: float) -> dict[str, _Planted]:
    shuffled = np.random.default_rng([settings.seed, _STREAM]).permutation(len(seats))
    # An ordered set: the next picture that fits, and none twice.
    free = dict.fromkeys(seats[position] for position in shuffled)
    chosen: dict[str, _Planted] = {}
    kinds = _CORRUPTIONS[settings.like]
    for corruption in kinds:
        taken = list(islice(_take(corruption, free), count))
        if len(taken) < count:
            raise RequestError(
                f"--defects {rate:g}: {count} of each of {len(kinds)} kinds are more than {settings.images} pictures "
                f"can hold with one defect a picture; {'give a lower rate' if count > 1 else 'raise --images'}"
            )
        for number, (seat, copied) in enumerate(taken):
            chosen[seat.name.image] = _Planted(seat, corruption, number, copied)
    return chosen


def _take(corruption: _Corruption, free: dict[_Seat, None]) -> Iterator[tuple[_Seat, _Seat | None]]:
    """Pictures that fit, each with the one that it copies, taken out of ``free`` one by one."""
    for seat in tuple(free):
        if seat.split not in corruption.splits:
            continue
        copied = None
        if corruption.near_duplicate:
            copied = _picture_of_train(seat, free)
            if copied is None:
                continue
            del free[copied]
        del free[seat]
        yield seat, copied


def _picture_of_train(seat: _Seat, free: Iterable[_Seat]) -> _Seat | None:
    """A picture without a defect that a picture like CAER-S's can be a copy of: of train, in the same category."""
    return next((other for other in free if other.split == "train" and _category(other) == _category(seat)), None)


def _category(seat: _Seat) -> str:
    folder = seat.name.subject_id.split("/")[1]
    return "Anger" if folder == "Angry" else folder


def _found(planted: Iterable[_Planted], settings: WorldSettings) -> dict[str, list[str]]:
    """Where each kind is, those that are somewhere, in the order of the table above."""
    found: dict[str, list[str]] = {kind: [] for known in _CORRUPTIONS[settings.like] for kind in known.found_as}
    for one in planted:
        for kind, where in one.corruption.found_as.items():
            found[kind].append(_found_at(where, one.seat, settings))
    return {kind: where for kind, where in found.items() if where}


def _found_at(where: str, seat: _Seat, settings: WorldSettings) -> str:
    picture = seat.name.image.removeprefix(_IMAGE_FOLDERS[settings.like])
    return where.format(
        picture=picture,
        subject=seat.name.subject_id,
        half=picture.partition("/")[0],
        stem=picture.rpartition(".")[0],
    )


def _empty_categories(seats: Sequence[_Seat], chosen: Mapping[str, _Planted]) -> dict[str, list[str]]:
    """In a small world a category may have no picture, by chance or because its last one is missing."""
    there = set()
    for seat in seats:
        planted = chosen.get(seat.name.image)
        if planted is None or planted.corruption.picture is not corruptions.missing:
            there.add((seat.name.subject_id.partition("/")[0], _category(seat)))
    halves = ("train", "test")
    empty = [f"{half}/{name}" for half in halves for name in CATEGORIES["caer_s"] if (half, name) not in there]
    return {"category without pictures": empty} if empty else {}
