"""A picture with the boxes of its persons, and beside it what was predicted of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ccim_ray.datasets.images import ImageArray
from ccim_ray.datasets.subject import Box
from ccim_ray.storage import atomic_path

SHOWN_CATEGORIES = 3

# Those of Okabe and Ito's colours on which black can be read; people with any colour vision can tell them apart.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
_PAPER, _TEXT, _GREY, _TRACK = "#202020", "#F0F0F0", "#A0A0A0", "#404040"

_SMALLEST, _LARGEST = 480, 1280  # longer side of a picture as drawn
_PANEL, _GAP, _LINE = 330, 12, 22
_HEADING = 30
_ENTRY = _HEADING + SHOWN_CATEGORIES * _LINE + _GAP
_BAR, _NAME = 96, 150
_COLUMNS = 3
_LEAST_HEIGHT = 3 * _ENTRY + 2 * _GAP


@dataclass(frozen=True)
class DrawnPerson:
    """What is shown of a person: number in the picture, box, and the most probable categories."""

    number: int
    box: Box
    top: tuple[tuple[str, float], ...]


def draw_persons(image_HWC: ImageArray, persons: Sequence[DrawnPerson]) -> Image.Image:
    """The picture (H, W, 3), enlarged or reduced to be read, with numbered boxes and a panel at its right.

    The panel has room for some persons; how many more there are is said below them.
    """
    picture = Image.fromarray(image_HWC)
    longer = max(picture.size)
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resampling = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    picture = picture.resize(size, resampling)
    height = max(size[1], _LEAST_HEIGHT)
    rows = (height - 2 * _GAP) // _ENTRY
    columns = min(_COLUMNS, -(-len(persons) // rows))
    sheet = Image.new("RGB", (size[0] + columns * _PANEL, height), _PAPER)
    above = (height - size[1]) // 2
    sheet.paste(picture, (0, above))
    draw = ImageDraw.Draw(sheet)
    corners = [_draw_box(draw, person, scale, size, above) for person in persons]
    for person, corner in zip(persons, corners, strict=True):  # no box hides a number
        _draw_tag(draw, person, *corner)
    fit = rows * columns
    for place, person in enumerate(persons[:fit]):
        column, row = divmod(place, rows)
        _draw_entry(draw, person, size[0] + column * _PANEL + _GAP, _GAP + row * _ENTRY)
    if len(persons) > fit:
        told = f"and {len(persons) - fit} more in predictions.csv"
        draw.text((size[0] + _GAP, height - 20), told, _GREY, font=_font(14))
    return sheet


def write_picture(image_HWC: ImageArray, persons: Sequence[DrawnPerson], path: Path) -> None:
    """Draw to a JPEG file. Raises RequestError where it cannot be written."""
    with atomic_path(path) as temporary:
        draw_persons(image_HWC, persons).save(temporary, "JPEG", quality=90, subsampling=0)


def _draw_box(
    draw: ImageDraw.ImageDraw, person: DrawnPerson, scale: float, size: tuple[int, int], above: int
) -> tuple[int, int]:
    """Upper left corner of the box that was drawn."""
    x1, y1 = (max(0, round(value * scale)) for value in person.box[:2])
    x2 = max(x1 + 1, min(size[0], round(person.box[2] * scale)) - 1)
    y2 = max(y1 + 1, min(size[1], round(person.box[3] * scale)) - 1)
    colour = _colour(person)
    # A dark rim keeps a line visible on a picture of its own colour.
    draw.rectangle((x1 - 1, above + y1 - 1, x2 + 1, above + y2 + 1), outline="#000000", width=5)
    draw.rectangle((x1, above + y1, x2, above + y2), outline=colour, width=3)
    return x1, above + y1


def _draw_tag(draw: ImageDraw.ImageDraw, person: DrawnPerson, left: float, top: float) -> None:
    text, font = str(person.number), _font(16, bold=True)
    width = draw.textlength(text, font=font) + 12
    draw.rectangle((left, top, left + width, top + 22), fill=_colour(person), outline="#000000")
    draw.text((left + 6, top + 1), text, "#000000", font=font)


def _draw_entry(draw: ImageDraw.ImageDraw, person: DrawnPerson, left: int, top: int) -> None:
    _draw_tag(draw, person, left, top)
    for place, (name, probability) in enumerate(person.top):
        line = top + _HEADING + place * _LINE
        font = _font(15, bold=place == 0)
        draw.text((left, line), _fitting(draw, name, _NAME, font), _TEXT if place == 0 else _GREY, font=font)
        start = left + _NAME + 8
        draw.rectangle((start, line + 4, start + _BAR, line + 15), fill=_TRACK)
        draw.rectangle((start, line + 4, start + max(1, round(_BAR * probability)), line + 15), fill=_colour(person))
        draw.text((start + _BAR + 8, line), f"{probability:.0%}", _TEXT if place == 0 else _GREY, font=font)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text}…"


def _colour(person: DrawnPerson) -> str:
    return _COLOURS[person.number % len(_COLOURS)]


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own copy of DejaVu Sans, which has the letters of most languages."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
