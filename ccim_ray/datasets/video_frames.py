"""Frames decoded from a dataset's videos, each written once as a picture: what is there, and what is still to do.

A frame is a JPEG file of quality 95 with full colour resolution. The video has lost more than that already, and
lossless PNG takes several times the disk and the time.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.videos import BEYOND_THE_END, UnreadableVideo, VideoHeader, decode_frames
from ccim_ray.storage import atomic_path, only_process, read_json, write_json

JPEG_QUALITY = 95
LOST_FRAMES_FILE = "lost_frames.json"
"""In a video's folder, once it was decoded: number -> why that frame could not be had."""


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """The frames that a dataset needs of one video.

    Attributes:
        video: the file, relative to the dataset's root.
        folder: where its frames lie, relative to the frames' root.
        numbers: frames, ascending from 0 in presentation order.
    """

    video: str
    folder: str
    numbers: tuple[int, ...]


def frames_folder(video: str, header: VideoHeader) -> str:
    """Folder of a video's frames. It names the content: a file that is replaced is another video."""
    return f"{video}/{header.identity}"


def frame_path(folder: str, number: int) -> str:
    """A frame as ``Subject.image`` names it."""
    return f"{folder}/{number:06d}.jpg"


def needed_frames(dataset: Dataset) -> list[VideoFrames]:
    """The frames of each video that some subject is seen in."""
    numbers: dict[str, set[int]] = {folder: set() for folder in dataset.videos}
    for subject in dataset.subjects if numbers else ():
        path = PurePosixPath(subject.image)
        numbers[str(path.parent)].add(int(path.stem))
    return [VideoFrames(dataset.videos[name], name, tuple(sorted(found))) for name, found in numbers.items() if found]


def open_frames(dataset: Dataset, root: Path) -> list[VideoFrames]:
    """Of the needed frames those that are neither under ``root`` nor known to be lost."""
    found = []
    for needed in needed_frames(dataset):
        settled = _written(root / needed.folder) | lost_frames(root / needed.folder).keys()
        numbers = tuple(number for number in needed.numbers if number not in settled)
        if numbers:
            found.append(VideoFrames(needed.video, needed.folder, numbers))
    return found


def write_frames(video: Path, folder: Path, numbers: Collection[int]) -> None:
    """Decode a video and write the frames asked for; those that cannot be had go to LOST_FRAMES_FILE.

    Raises RequestError where a file cannot be read or written.
    """
    from PIL import Image

    left, reason = set(numbers), BEYOND_THE_END
    try:
        for number, picture_HWC in decode_frames(video, left.copy()):
            with atomic_path(folder / Path(frame_path("", number)).name) as temporary:
                Image.fromarray(picture_HWC).save(temporary, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            left.remove(number)
    except UnreadableVideo as failure:
        reason = failure.reason
    if left:
        with only_process(folder / f".{LOST_FRAMES_FILE}.lock"):  # a run that needs other frames adds its own
            lost = lost_frames(folder) | dict.fromkeys(left, reason)
            write_json(folder / LOST_FRAMES_FILE, {str(number): lost[number] for number in lost})


def lost_frames(folder: Path) -> dict[int, str]:
    """Why a frame could not be had, by its number. Raises RequestError where the file is damaged."""
    path = folder / LOST_FRAMES_FILE
    return {int(number): str(reason) for number, reason in read_json(path).items()} if path.exists() else {}


def count_lost(dataset: Dataset, root: Path, defects: Defects) -> int:
    """Add what was lost of each video to ``defects``; returns the number of needed frames that are there.

    A frame beyond the end counts by itself, a video that cannot be decoded once, however many frames that costs.
    """
    there = 0
    split_of = {str(PurePosixPath(subject.image).parent): subject.split for subject in dataset.subjects}
    for needed in needed_frames(dataset):
        split = split_of[needed.folder]
        lost = lost_frames(root / needed.folder)
        missing = [number for number in needed.numbers if number in lost]
        there += len(needed.numbers) - len(missing)
        undecodable = [number for number in missing if lost[number] != BEYOND_THE_END]
        if undecodable:
            defects.add(lost[undecodable[0]], f"{needed.video} from frame {undecodable[0]} on", split)
        for number in missing:
            if lost[number] == BEYOND_THE_END:
                defects.add(BEYOND_THE_END, f"{needed.video} frame {number}", split)
    return there


def _written(folder: Path) -> set[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, not a path object for each of a hundred thousand
    except FileNotFoundError:
        return set()
    return {int(name[:-4]) for name in names if name.endswith(".jpg") and name[:-4].isdigit()}
