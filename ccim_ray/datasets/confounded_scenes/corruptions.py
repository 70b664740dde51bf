"""Ways to corrupt a picture or its annotation that users meet in real downloads.

A corruption of a picture takes its path and the bytes of its file, and returns the files to write in its place.
A corruption of an annotation takes the picture's row and how many pictures were corrupted in this way before, by
which variants take turns; it returns the rows to annotate in its place. An empty box, split or list of labels stands
for one that was not written down.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.writers import JPEG_QUALITY, PNG_COMPRESSION, PictureRow

Files = dict[str, bytes]
CorruptPicture = Callable[[str, bytes], Files]
CorruptRow = Callable[[PictureRow, int], list[PictureRow]]

_COPY_QUALITY, _COPY_BRIGHTER = 80, 6
"""JPEG quality and brightness, in steps of 255, by which a near-duplicate differs."""

# Pictures.


def missing(path: str, content: bytes) -> Files:
    """Nothing is written."""
    return {}


def web_page(path: str, content: bytes) -> Files:
    """What a download saves under a picture's name where the server has none."""
    return {path: b"<!DOCTYPE html>\n<title>404 Not Found</title>\n"}


def truncated(path: str, content: bytes) -> Files:
    """The header whole and half of the body, as after an interrupted copy."""
    # The last scan marker: coded pixels never hold one, tables before it might.
    body = content.find(b"IDAT") if path.endswith(".png") else content.rfind(b"\xff\xda")
    return {path: content[: (body + len(content)) // 2]}


def slightly_changed(path: str, content: bytes) -> Files:
    """The same picture compressed once more and a little brighter, as the next frame of a video would be."""
    stream = io.BytesIO()
    _decoded(content).convert("RGB").save(stream, "JPEG", quality=_COPY_QUALITY)
    pixels_HWC = np.asarray(_decoded(stream.getvalue())).astype(np.int16) + _COPY_BRIGHTER
    return {path: _encoded(Image.fromarray(pixels_HWC.clip(0, 255).astype(np.uint8)), path)}


def text_file_beside(path: str, content: bytes) -> Files:
    """The picture as it was, and a file beside it that is none."""
    return {path: content, str(PurePosixPath(path).with_suffix(".txt")): b"checked\n"}


def grey(path: str, content: bytes) -> Files:
    """One channel of 8 bits."""
    return {path: _encoded(_decoded(content).convert("L"), path)}


def grey_16_bit(path: str, content: bytes) -> Files:
    """One channel of 16 bits, for a PNG."""
    pixels_HW = np.asarray(_decoded(content).convert("L")).astype(np.uint16) * 257
    return {path: _encoded(Image.fromarray(pixels_HW), path)}


def four_channels(path: str, content: bytes) -> Files:
    """Red, green, blue and a half-transparent alpha, for a PNG."""
    picture = _decoded(content).convert("RGB")
    picture.putalpha(128)
    return {path: _encoded(picture, path)}


def cmyk(path: str, content: bytes) -> Files:
    """The four colours of print, for a JPEG."""
    return {path: _encoded(_decoded(content).convert("CMYK"), path)}


def _decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def _encoded(picture: Image.Image, path: str) -> bytes:
    stream = io.BytesIO()
    if path.endswith(".png"):
        picture.save(stream, "PNG", compress_level=PNG_COMPRESSION)
    else:
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


# Boxes.


def body_leaves_image(row: PictureRow, number: int) -> list[PictureRow]:
    """The body box goes on beyond one side of the picture."""
    return [{**row, "body_box": _leaving(row["body_box"], row["size"], number)}]


def face_leaves_image(row: PictureRow, number: int) -> list[PictureRow]:
    """The face box goes on beyond one side of the picture: the first has a negative corner, as dlib gives it."""
    return [{**row, "face_box": _leaving(row["face_box"], row["size"], number)}]


def body_without_pixel(row: PictureRow, number: int) -> list[PictureRow]:
    """A body box of not-a-number, outside the picture, inverted, or of width zero."""
    if number % 4 == 0:
        return [{**row, "body_box": [math.nan] * 4}]
    return [{**row, "body_box": _without_pixel(row["body_box"], row["size"], number % 4 - 1)}]


def face_without_pixel(row: PictureRow, number: int) -> list[PictureRow]:
    """A face box outside the picture, inverted, or of width zero; dlib's whole numbers have no not-a-number."""
    return [{**row, "face_box": _without_pixel(row["face_box"], row["size"], number % 3)}]


def body_not_four_numbers(row: PictureRow, number: int) -> list[PictureRow]:
    """A body box without a number, or with three."""
    return [{**row, "body_box": row["body_box"][: 3 * (number % 2)]}]


def no_box(row: PictureRow, number: int) -> list[PictureRow]:
    """Neither a body box nor a face box."""
    return [{**row, "body_box": [], "face_box": []}]


def same_box_twice(row: PictureRow, number: int) -> list[PictureRow]:
    """The person annotated a second time."""
    return [row, row]


def second_face(row: PictureRow, number: int) -> list[PictureRow]:
    """A second face, a little to the right of the first."""
    x1, y1, x2, y2 = row["face_box"]
    return [row, {**row, "body_box": [], "face_box": [x1 + 2, y1, x2 + 2, y2]}]


def _leaving(box: list[float], size: int, number: int) -> list[float]:
    side = number % 4
    beyond = -5.0 if side < 2 else size + 5.0
    return [*box[:side], beyond, *box[side + 1 :]]


def _without_pixel(box: list[float], size: int, variant: int) -> list[float]:
    x1, y1, x2, y2 = box
    outside = [size + 5.0, y1, size + 25.0, y2]
    # A whole number, as rounding outward would give the face list a pixel again.
    width_zero = [float(math.floor(x1)), y1, float(math.floor(x1)), y2]
    return (outside, [x2, y2, x1, y1], width_zero)[variant]


# Labels, splits and the rest.


def without_labels(row: PictureRow, number: int) -> list[PictureRow]:
    """Nobody named a category."""
    return [{**row, "labels": []}]


def other_label(row: PictureRow, number: int) -> list[PictureRow]:
    """The face list names the next category; the folder stays."""
    names = CATEGORIES["caer_s"]
    return [{**row, "labels": [names[(names.index(row["labels"][0]) + 1) % len(names)]]}]


def combined_is_not_union(row: PictureRow, number: int) -> list[PictureRow]:
    """The categories that votes are combined to have one that nobody voted for, or are missing."""
    unvoted = next(name for name in CATEGORIES["emotic"] if name not in row["labels"])
    return [{**row, "combined_labels": [] if number % 2 else [*row["labels"], unvoted]}]


def not_rated(row: PictureRow, number: int) -> list[PictureRow]:
    """Valence, arousal and dominance are not-a-number."""
    return [{**row, "rated": False}]


def wrong_size(row: PictureRow, number: int) -> list[PictureRow]:
    """The annotation gives the size of a picture twice as large."""
    return [{**row, "size": 2 * row["size"]}]


def also_in_val(row: PictureRow, number: int) -> list[PictureRow]:
    """A picture of train that is annotated in val too."""
    return [row, {**row, "split": "val"}]


def not_in_split_file(row: PictureRow, number: int) -> list[PictureRow]:
    """A picture that the split file passes over."""
    return [{**row, "split": ""}]


def agent_twice(row: PictureRow, number: int) -> list[PictureRow]:
    """The same agent on a second line for the same frame."""
    return [row, {**row, "subject_id": f"{row['subject_id']}/again"}]
