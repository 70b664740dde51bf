"""A sheet of pictures with what is annotated in them, so that a wrong box or label is seen at a glance.

Suffixes: S subjects, K categories.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ccim_ray.datasets.dataset import UNLOCATED, Dataset
from ccim_ray.datasets.images import read_rgb
from ccim_ray.datasets.subject import Box, Subject
from ccim_ray.storage import atomic_path

TILES = 48
"""Subjects on a sheet, or somewhat more: of each split as many as fill its rows."""
COLUMNS = 6
SAMPLE_SEED = 0

# Okabe and Ito's colours, which people with any colour vision can tell apart.
BODY_COLOUR, FACE_COLOUR, OTHER_COLOUR = "#E69F00", "#56B4E9", "#FFFFFF"
_LEGEND = (("body", BODY_COLOUR, 3), ("face", FACE_COLOUR, 3), ("other people", OTHER_COLOUR, 1))

_WIDTH, _HEIGHT, _GAP = 250, 210, 10  # of a tile's picture
_CAPTION_LINES, _LINE_HEIGHT = 5, 16
_CAPTION_LETTERS = 38
_PAPER, _TEXT, _WARNING = "#202020", "#F0F0F0", "#FFB000"


def sampled_subjects(
    dataset: Dataset, damaged: frozenset[str], tiles: int = TILES, seed: int = SAMPLE_SEED
) -> dict[str, list[Subject]]:
    """Subjects to show, by split: of each split the same number, together as many categories as fit.

    Within a split, subjects that add the most categories not yet shown go first, then others as drawn; an image
    is shown once.
    """
    generator = np.random.default_rng(seed)
    quota = -(-tiles // (len(dataset.splits) * COLUMNS)) * COLUMNS
    return {split: _sampled(dataset, split, damaged, quota, generator) for split in dataset.splits}


def _sampled(
    dataset: Dataset, split: str, damaged: frozenset[str], quota: int, generator: np.random.Generator
) -> list[Subject]:
    usable = [row for row, s in enumerate(dataset.subjects) if s.split == split and s.image not in damaged]
    drawn_S = np.array(usable, int)[generator.permutation(len(usable))]
    targets_SK = dataset.targets[drawn_S]
    is_open_S = np.ones(len(drawn_S), bool)
    shown_K = np.zeros(targets_SK.shape[1], bool)
    chosen: list[Subject] = []
    while len(chosen) < quota and is_open_S.any():
        added_S = targets_SK @ ~shown_K
        best = int(np.where(is_open_S, added_S, -1).argmax())  # the first as drawn, where several add as many
        subject = dataset.subjects[drawn_S[best]]
        if subject.image not in {other.image for other in chosen}:
            chosen.append(subject)
            shown_K |= targets_SK[best] > 0
        is_open_S[best] = False
    return sorted(chosen, key=lambda subject: (subject.labels, subject.subject_id))


def write_contact_sheet(dataset: Dataset, damaged: frozenset[str], path: Path) -> None:
    """Draw the sampled subjects, each with body and face box, thin boxes of other people, labels and source, as PNG."""
    sample = sampled_subjects(dataset, damaged)
    tile_height = _HEIGHT + _CAPTION_LINES * _LINE_HEIGHT + _GAP
    rows = sum(-(-len(subjects) // COLUMNS) for subjects in sample.values())
    heading = 34
    width = COLUMNS * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 74 + heading * len(sample) + rows * tile_height), _PAPER)
    _draw_title(sheet, dataset)
    top = 74
    for split, subjects in sample.items():
        total = sum(subject.split == split and subject.image not in damaged for subject in dataset.subjects)
        ImageDraw.Draw(sheet).text(
            (_GAP, top + 4), f"{split}: {len(subjects)} of {total} subjects", _TEXT, font=_font(18)
        )
        top += heading
        for number, subject in enumerate(subjects):
            row, column = divmod(number, COLUMNS)
            corner = (_GAP + column * (_WIDTH + _GAP), top + row * tile_height)
            _draw_tile(sheet, dataset, subject, corner)
        top += -(-len(subjects) // COLUMNS) * tile_height
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", compress_level=3)


def _draw_title(sheet: Image.Image, dataset: Dataset) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), f"{dataset.name}  {dataset.root}", _TEXT, font=_font(20))
    left = float(_GAP)
    for name, colour, line in _LEGEND:
        draw.rectangle((left, 44, left + 26, 60), outline=colour, width=line)
        draw.text((left + 34, 42), name, _TEXT, font=_font(16))
        left += 34 + draw.textlength(name, font=_font(16)) + 26
    if dataset.note:
        draw.text((left, 42), dataset.note, _WARNING, font=_font(16))


def _draw_tile(sheet: Image.Image, dataset: Dataset, subject: Subject, corner: tuple[int, int]) -> None:
    picture = Image.fromarray(read_rgb(dataset.root / subject.image))
    scale = min(_WIDTH / picture.width, _HEIGHT / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for other in subject.other_boxes:
        _draw_box(draw, other, scale, size, OTHER_COLOUR, 1)
    if subject.box_source != UNLOCATED:
        _draw_box(draw, subject.body_box, scale, size, BODY_COLOUR, 3)
    if subject.face_box:
        _draw_box(draw, subject.face_box, scale, size, FACE_COLOUR, 2)
    left, top = corner
    sheet.paste(picture, (left + (_WIDTH - size[0]) // 2, top + (_HEIGHT - size[1]) // 2))
    text = ImageDraw.Draw(sheet)
    for number, (line, colour) in enumerate(_caption(subject)):
        text.text((left, top + _HEIGHT + 2 + number * _LINE_HEIGHT), line, colour, font=_font(12))


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, scale: float, size: tuple[int, int], colour: str, line: int) -> None:
    x1, y1 = (max(0, round(value * scale)) for value in box[:2])
    x2 = max(x1, min(size[0], round(box[2] * scale)) - 1)
    y2 = max(y1, min(size[1], round(box[3] * scale)) - 1)
    # A dark rim keeps a line visible on a picture of its own colour.
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="#000000", width=line + 2)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _caption(subject: Subject) -> Sequence[tuple[str, str]]:
    labels = textwrap.wrap(
        ", ".join(subject.labels), _CAPTION_LETTERS, max_lines=_CAPTION_LINES - 2, placeholder=" ..."
    )
    name = subject.subject_id
    name = name if len(name) <= _CAPTION_LETTERS else f"...{name[3 - _CAPTION_LETTERS :]}"
    about = f"box: {subject.box_source}" + (f", scene: {subject.scene}" if subject.scene else "")
    grey = "#A0A0A0"
    return [*((line, _TEXT) for line in labels), (name, grey), (about[: _CAPTION_LETTERS + 6], grey)]


def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own copy of DejaVu Sans, which has the letters of most languages."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
