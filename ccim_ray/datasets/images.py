"""Pictures from disk, and the views of a subject that models see.

Suffixes: H, W height and width of the stored picture; C = 3 colour channels (red, green, blue), uint8.
"""

from __future__ import annotations

import errno
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from ccim_ray.datasets.subject import Box
from ccim_ray.errors import RequestError

ImageArray = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Pillow warns about a decompression bomb above this many pixels; here it is an error."""

CROP_MARGIN = 1.06
"""Side of a square crop over the longer side of its box."""

_LARGE_READ = 1 << 20

# Raster formats that Pillow decodes itself: EPS, for one, would start an external program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# What Pillow's decoders raise on damaged bytes; unidentified and missing files are told apart before.
_DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)


class UnreadableImage(Exception):  # noqa: N818 - it names a state of the data, which callers count
    """A picture that cannot be decoded.

    Attributes:
        path: the file.
        reason: a few words fit for ``Defects.add``: "missing image", "not an image",
            "truncated or damaged image", "image too large to decode safely",
            "image without a defined colour range" or "image that may not be opened".
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _Stream(io.BufferedReader):
    """A file of which no read asks for more than is in it: Python would set aside what a damaged length asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture with its header read; every failure inside the block becomes UnreadableImage."""
    try:
        with _Stream(io.FileIO(path)) as stream, Image.open(stream, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(path, "image too large to decode safely")
            yield image
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, "not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(path, "image too large to decode safely") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadableImage(path, "missing image") from error
    except (IsADirectoryError, PermissionError) as error:
        raise UnreadableImage(path, "image that may not be opened") from error
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that of a place before the start
            # The machine, not the picture: it must not cost a subject its place in every later run.
            raise RequestError(f"cannot read {path}: {error.strerror}; run again when the disk answers") from error
        raise UnreadableImage(path, "truncated or damaged image") from error


def read_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as stored, from the file's header alone.

    Raises:
        UnreadableImage: the file is missing, is no image, or is too large to decode safely.
    """
    with _opened(path) as image:
        return image.size


def is_stored_turned(path: Path) -> bool:
    """Whether viewers turn or mirror the picture before they show it, by its EXIF orientation.

    Raises:
        UnreadableImage: as ``read_size``.
    """
    with _opened(path) as image:
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def read_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | UnreadableImage]:
    """``read_size`` of many files at once, in their order; a failure stands in the file's place."""

    # A header takes less time than handing a file to a thread, hence several at a time.
    parts = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        return [size for part in pool.map(_sizes_or_failures, parts) for size in part]


def _sizes_or_failures(paths: Sequence[Path]) -> list[tuple[int, int] | UnreadableImage]:
    found: list[tuple[int, int] | UnreadableImage] = []
    for path in paths:
        try:
            found.append(read_size(path))
        except UnreadableImage as failure:
            found.append(failure)
    return found


def read_rgb(path: Path) -> ImageArray:
    """Decode a picture of any colour mode to RGB.

    The EXIF orientation is not applied: annotated boxes are in stored pixels. Alpha is dropped, 16-bit grey
    keeps its upper 8 bits, and an animation gives its first frame.

    Returns:
        (H, W, 3) uint8, writeable.

    Raises:
        UnreadableImage: missing, truncated, not an image, too large, or floating point pixels.
    """
    with _opened(path) as image:
        image.load()
        return _to_rgb(path, image)


def _to_rgb(path: Path, image: Image.Image) -> ImageArray:
    if image.mode == "F":
        raise UnreadableImage(path, "image without a defined colour range")
    if image.mode.startswith("I"):
        # Pillow's own conversion saturates 16-bit grey at 255 instead of scaling it.
        grey_HW = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    image.info.pop("transparency", None)  # else Pillow warns that it is lost
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def mask_subject(image_HWC: ImageArray, body_box: Box) -> ImageArray:
    """A copy of the picture with the subject's rectangle set to zero (paper 3.3, 4.5).

    The box is rounded outward to whole pixels. Other people stay visible.
    """
    masked_HWC = image_HWC.copy()
    x1, y1 = (max(0, math.floor(value)) for value in body_box[:2])
    x2, y2 = (max(0, math.ceil(value)) for value in body_box[2:])
    masked_HWC[y1:y2, x1:x2] = 0
    return masked_HWC


def crop_square(image_HWC: ImageArray, box: Box, side: int) -> ImageArray:
    """A square around the box with a margin of 6 %, bilinear with antialiasing, black outside the picture.

    Returns:
        (side, side, 3) uint8.
    """
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * CROP_MARGIN / 2
    left, top = (x1 + x2) / 2 - half, (y1 + y2) / 2 - half
    # resize() takes fractions of a pixel but nothing outside the picture, so black is laid around it first.
    first_x, first_y = math.floor(left), math.floor(top)
    whole = math.ceil(2 * half) + 1
    canvas = Image.new("RGB", (whole, whole))
    canvas.paste(Image.fromarray(image_HWC), (-first_x, -first_y))
    window = (left - first_x, top - first_y, left - first_x + 2 * half, top - first_y + 2 * half)
    return np.array(canvas.resize((side, side), Image.Resampling.BILINEAR, box=window))


def resize(image_HWC: ImageArray, side: int) -> ImageArray:
    """The whole picture squashed to a square, bilinear with antialiasing: (side, side, 3) uint8."""
    return np.array(Image.fromarray(image_HWC).resize((side, side), Image.Resampling.BILINEAR))


def resize_and_crop(image_HWC: ImageArray, resize_to: int, crop: int) -> ImageArray:
    """Squash to ``resize_to`` squared and keep the central ``crop`` squared (256 and 224 in the Places demo).

    Returns:
        (crop, crop, 3) uint8.
    """
    if crop > resize_to:
        raise ValueError(f"crop {crop} is larger than the picture it is cut from, {resize_to}")
    start = round((resize_to - crop) / 2)
    return resize(image_HWC, resize_to)[start : start + crop, start : start + crop].copy()
