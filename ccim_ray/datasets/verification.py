"""Is a download whole? Every picture is decoded to its last byte, which a header alone cannot vouch for.

Suffixes: N images that decode, W words of a perceptual hash; H, W, C a picture's height, width and channels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from ccim_ray.console import stage
from ccim_ray.datasets.dataset import UNLOCATED, Dataset, Defects
from ccim_ray.datasets.images import ImageArray, UnreadableImage, read_rgb

HASH_WORDS = 4
"""64-bit words of a perceptual hash: its 16 x 16 bits, the 8 x 8 of the lowest frequencies first."""

UNIFORM_DEVIATION = 2.0
"""Standard deviation in grey levels (of 255) below which a picture, such as a black frame, shows nothing."""

_UNIFORM_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What decoding every picture of a dataset's subjects showed.

    Attributes:
        images: the N images that decode, relative to the data root, each once.
        sha256: of the bytes of each, hexadecimal.
        hashes_NW: perceptual hashes (N, HASH_WORDS), uint64.
        uniform_N: whether a picture is too uniform for its perceptual hash to mean anything, bool.
        damaged: the images that do not decode.
        defects: the loader's defects and those found here, each once: what the loader left out has no subject
            and is not decoded again.
    """

    images: tuple[str, ...]
    sha256: tuple[str, ...]
    hashes_NW: npt.NDArray[np.uint64]
    uniform_N: npt.NDArray[np.bool_]
    damaged: frozenset[str]
    defects: Defects


@dataclass(frozen=True, slots=True)
class _Contents:
    sha256: str
    hash_W: npt.NDArray[np.uint64]
    uniform: bool


def verify_images(dataset: Dataset, known: Collection[str] = ()) -> Verification:
    """Decode each image of the dataset once, however many subjects share it, in one thread a core.

    A subject whose box is still to be found (UNLOCATED) counts as the defect "no box", unless its image is damaged.

    Args:
        known: damaged images that the dataset's defects count already, such as frames that a video does not have.

    Raises:
        RequestError: the disk does not answer.
    """
    split_of = {subject.image: subject.split for subject in reversed(dataset.subjects)}
    images = tuple(dict.fromkeys(subject.image for subject in dataset.subjects))
    defects = deepcopy(dataset.defects)
    contents: dict[str, _Contents] = {}
    damaged = set()
    with stage("decode", "images", len(images)) as progress:
        for image, result in zip(images, _decoded([dataset.root / image for image in images]), strict=True):
            if isinstance(result, UnreadableImage):
                damaged.add(image)
                if image not in known:
                    defects.add(result.reason, image, split_of[image])
            else:
                contents[image] = result
            progress.advance(1)
    for subject in dataset.subjects:
        if subject.box_source == UNLOCATED and subject.image not in damaged:
            defects.add("no box", subject.subject_id, subject.split)
    return Verification(
        images=tuple(contents),
        sha256=tuple(content.sha256 for content in contents.values()),
        hashes_NW=np.array([content.hash_W for content in contents.values()], np.uint64).reshape(-1, HASH_WORDS),
        uniform_N=np.array([content.uniform for content in contents.values()], bool),
        damaged=frozenset(damaged),
        defects=defects,
    )


def _decoded(paths: Sequence[Path]) -> Iterator[_Contents | UnreadableImage]:
    # Threads are enough: Pillow and hashlib let others run while they work.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        yield from pool.map(_contents_or_failure, paths)
    finally:
        pool.shutdown(cancel_futures=True)


def _contents_or_failure(path: Path) -> _Contents | UnreadableImage:
    try:
        image_HWC = read_rgb(path)
    except UnreadableImage as failure:
        return failure
    grey = Image.fromarray(image_HWC).convert("L")
    thumbnail = np.asarray(grey.resize((_UNIFORM_SIDE, _UNIFORM_SIDE), Image.Resampling.BOX))
    return _Contents(
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        hash_W=_hash_words(grey),
        uniform=bool(thumbnail.std() < UNIFORM_DEVIATION),
    )


def perceptual_hash(image_HWC: ImageArray) -> npt.NDArray[np.uint64]:
    """pHash of a picture: the signs, about their median, of the lowest 16 x 16 frequencies of its cosine transform.

    Returns:
        (HASH_WORDS,) uint64; the first word holds the lowest 8 x 8 frequencies.
    """
    return _hash_words(Image.fromarray(image_HWC).convert("L"))


def _hash_words(grey: Image.Image) -> npt.NDArray[np.uint64]:
    bits_VU = imagehash.phash(grey, hash_size=16).hash
    quarters = (bits_VU[:8, :8], bits_VU[:8, 8:], bits_VU[8:, :8], bits_VU[8:, 8:])
    return np.packbits([quarter.ravel() for quarter in quarters], axis=1).view(np.uint64)[:, 0]
