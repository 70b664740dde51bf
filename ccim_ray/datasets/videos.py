"""Video files: their header, and single frames of them, decoded by FFmpeg through PyAV.

Suffixes: H, W height and width of the coded picture; C = 3 colour channels (red, green, blue), uint8.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccim_ray.datasets.images import MAX_PIXELS, ImageArray
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MISSING_VIDEO = "missing video"
UNDECODABLE = "video that cannot be decoded"
BEYOND_THE_END = "frame beyond the end of the video"

# A playlist may call itself .mp4 and name files elsewhere, or addresses: only files that hold the pictures themselves.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

# A picture may say that it is larger than the header does. FFmpeg guesses at what is damaged unless told to give up;
# that it guessed it does not say of pictures drawn from the guess.
_DECODING = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}

_VERSION = 2
"""Of how frames are decoded: raised where other frames come out of the same video. 2: nothing is guessed."""

_ENDS = 65_536


class UnreadableVideo(Exception):  # noqa: N818 - it names a state of the data, which callers count
    """A video of which nothing, or nothing more, can be decoded; ``reason`` is MISSING_VIDEO or UNDECODABLE."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What is known of a video without decoding it.

    Attributes:
        width, height: of the coded picture in pixels; a rotation or a pixel that is not square is not applied.
        frames: no frame has this number or a higher one; None where the header does not say.
        identity: 16 hexadecimal digits of a sha256 over the version of decoding, and the file's size, first and last
            64 KiB.
    """

    width: int
    height: int
    frames: int | None
    identity: str


def read_header(path: Path) -> VideoHeader:
    """Read a video's header.

    Raises:
        UnreadableVideo: missing, no video, or of a size that is not safe to decode.
        RequestError: the file is there and cannot be read.
    """
    identity = _identity(path)
    with _opened(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if not 0 < width * height <= MAX_PIXELS:
            raise UnreadableVideo(path, UNDECODABLE)
        # MP4 lists every frame; other formats have an estimate at best.
        listed = container.format.name.startswith("mov") and stream.frames > 0
        return VideoHeader(width, height, stream.frames if listed else None, identity)


def decode_frames(path: Path, wanted: Collection[int]) -> Iterator[tuple[int, ImageArray]]:
    """Numbers (from 0, in presentation order) and pictures (H, W, C) of the wanted frames, one in memory at a time.

    Frames beyond the end are not given. All frames up to the last one wanted are decoded: a number is no place in
    the file that could be looked up. H.264 and its like carry no checksum: a changed byte that still decodes gives
    another picture, and nobody can tell.

    Raises:
        UnreadableVideo: at the first frame whose damage the decoder notices, from which numbers would be a guess.
        RequestError: the file is there and cannot be read.
    """
    last = max(wanted)
    with _opened(path) as (container, stream):
        size = stream.codec_context.width, stream.codec_context.height
        stream.codec_context.options = dict(_DECODING)
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt or (frame.width, frame.height) != size:
                raise UnreadableVideo(path, UNDECODABLE)
            if number in wanted:
                yield number, frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
            if number >= last:
                return


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream; every failure of FFmpeg inside becomes UnreadableVideo."""
    import av  # loads FFmpeg: only where there are videos

    try:
        with av.open(str(path), options=_OPTIONS, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnreadableVideo(path, UNDECODABLE)
            stream = container.streams.video[0]
            if stream.codec_context is None:  # of a codec that nobody knows
                raise UnreadableVideo(path, UNDECODABLE)
            yield container, stream
    except av.error.FFmpegError as error:
        _identity(path, whole=True)  # a disk that does not answer is no defect of the video
        raise UnreadableVideo(path, UNDECODABLE) from error


def _identity(path: Path, whole: bool = False) -> str:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest = hashlib.sha256(f"{_VERSION} {size} ".encode())
            digest.update(stream.read(_ENDS))
            while whole and stream.read(1 << 24):
                pass
            stream.seek(max(0, size - _ENDS))
            digest.update(stream.read(_ENDS))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadableVideo(path, MISSING_VIDEO) from error
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; make it readable and run again") from error
    return digest.hexdigest()[:16]
