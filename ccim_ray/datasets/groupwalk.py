"""GroupWalk: people walking before fixed cameras, with four emotions (paper 4.1). Format unverified.

No file of the published dataset was at hand, so its own format is not read. What is read is a manifest in JSON
Lines, which a short script can make from any annotation, beside the videos or frames extracted from them::

    <root>/manifest.jsonl      one line for each agent in each frame
    <root>/<video_file>        a video, where the manifest says; or
    <root>/<image>             a frame

A line is an object with these fields; others are passed over::

    sample_id    unique text, such as "<video>/<agent>/<frame>"
    video_id     text; a video is in one split
    agent_id     text, unique within the video
    frame_index  whole number from 0, in presentation order
    image        path relative to the root, with forward slashes; null or left out where video_file is given
    video_file   path likewise, the same on all lines of a video; null or left out where image is given
    bbox         [x1, y1, x2, y2] in pixels, as coded: no rotation is applied
    bbox_format  "xyxy_0based_halfopen"
    labels       list of Angry, Happy, Neutral, Sad; several may hold
    split        "train", "val" or "test", or the embedded world's "test_id", "test_do", "test_anti"; without it,
                 or where all is train, 15 % of the videos are drawn for test
    setting      text or null
    box_source   "annotation", or "detector:<name>@<version>"

Frames of videos are decoded while preparing, and lie under the storage (``video_frames``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ccim_ray.datasets.annotation_files import digest_files, require_all_inside
from ccim_ray.datasets.dataset import AS_PUBLISHED, Dataset, Defects, LoadOptions
from ccim_ray.datasets.groupwalk_manifest import CATEGORIES, ManifestRow, read_manifest, split_of_videos
from ccim_ray.datasets.images import UnreadableImage, read_sizes
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.datasets.video_frames import frame_path, frames_folder
from ccim_ray.datasets.videos import BEYOND_THE_END, UnreadableVideo, VideoHeader, read_header
from ccim_ray.errors import RequestError

MANIFEST_FILE = "manifest.jsonl"
NOTE = "format unverified"

Picture = tuple[str, int, int]
"""Path relative to the dataset's root, width and height."""


def load_groupwalk(root: Path, options: LoadOptions = AS_PUBLISHED) -> Dataset:
    """Read the manifest, one subject a line: ``subject_id`` is its sample_id, ``agent`` its video and agent.

    Split: the manifest's. Where it has no test or no val, whole videos of train, drawn with a seed, take their
    place. Of videos the headers are read; ``Dataset.videos`` says where their frames will lie.

    Raises:
        RequestError: the manifest is missing, empty, malformed or contradicts itself, a file lies outside the data
            root, or no subject can be used.
    """
    root = root.resolve()
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise RequestError(f"{path}: no such file; --data-root must name the folder that holds {MANIFEST_FILE}")
    rows = read_manifest(path)
    defects = Defects()
    split_of = split_of_videos(rows, path, defects)
    used, rows = _sampled(rows, options.frame_step)
    headers = _headers(root, rows, path, split_of, defects)
    if rows[0].video_file:
        pictures = _frames(rows, headers, split_of, defects)
    else:
        pictures = _images(root, rows, path, split_of, defects)
    subjects = _subjects(rows, used, split_of, pictures, defects)
    if not subjects:
        found = ", ".join(f"{count} x {kind}" for kind, count in defects.counts.items())
        raise RequestError(f"{path}: no usable subject on its {len(rows)} lines ({found}); check the files it names")
    _count_differing_labels(subjects, defects)
    return Dataset(
        name="groupwalk",
        root=root,
        categories=CATEGORIES,
        multi_label=True,
        subjects=subjects,
        defects=defects,
        annotation_digest=digest_files(root, [path]),
        note=NOTE,
        videos={frames_folder(video, header): video for video, header in headers.items()},
    )


def _sampled(rows: Sequence[ManifestRow], step: int) -> tuple[set[str], list[ManifestRow]]:
    """Ids of the rows to use, every ``step``-th labelled one of each agent; and all rows in their frames."""
    if step == 1:
        return {row.sample_id for row in rows}, list(rows)
    of_agent: dict[tuple[str, str], list[ManifestRow]] = {}
    for row in rows:
        if row.labels:
            of_agent.setdefault((row.video, row.agent), []).append(row)
    used = [row for of_one in of_agent.values() for row in sorted(of_one, key=lambda row: row.frame)[::step]]
    frames = {_frame_of(row) for row in used}
    return {row.sample_id for row in used}, [row for row in rows if _frame_of(row) in frames]


def _frame_of(row: ManifestRow) -> tuple[str, int]:
    """What two agents share who are seen together."""
    return (row.image, 0) if row.image else (row.video, row.frame)


def _headers(
    root: Path, rows: Sequence[ManifestRow], path: Path, split_of: dict[str, str], defects: Defects
) -> dict[str, VideoHeader]:
    """Header of each video file that can be read; the others are counted."""
    videos = {row.video_file: split_of[row.video] for row in rows if row.video_file}
    require_all_inside(root, [root / video for video in videos], str(path))
    headers = {}
    for video, split in videos.items():
        try:
            headers[video] = read_header(root / video)
        except UnreadableVideo as failure:
            defects.add(failure.reason, video, split)
    return headers


def _frames(
    rows: Sequence[ManifestRow], headers: dict[str, VideoHeader], split_of: dict[str, str], defects: Defects
) -> dict[str, Picture]:
    """By sample_id the frame that each row is seen in, as far as the headers know."""
    pictures = {}
    beyond = set()
    for row in rows:
        header = headers.get(row.video_file or "")
        if header is None:
            continue
        if header.frames is not None and row.frame >= header.frames:
            beyond.add((f"{row.video_file} frame {row.frame}", split_of[row.video]))
        else:
            name = frame_path(frames_folder(str(row.video_file), header), row.frame)
            pictures[row.sample_id] = (name, header.width, header.height)
    for where in sorted(beyond):
        defects.add(BEYOND_THE_END, *where)
    return pictures


def _images(
    root: Path, rows: Sequence[ManifestRow], path: Path, split_of: dict[str, str], defects: Defects
) -> dict[str, Picture]:
    """By sample_id the image that each row is seen in; those that cannot be read are counted once each."""
    images = {row.image: split_of[row.video] for row in rows if row.image}
    files = [root / image for image in images]
    require_all_inside(root, files, str(path))
    size_of = {}
    for (image, split), size in zip(images.items(), read_sizes(files), strict=True):
        if isinstance(size, UnreadableImage):
            defects.add(size.reason, image, split)
        else:
            size_of[image] = size
    return {row.sample_id: (row.image, *size_of[row.image]) for row in rows if row.image in size_of}


def _subjects(
    rows: Sequence[ManifestRow],
    used: set[str],
    split_of: dict[str, str],
    pictures: dict[str, Picture],
    defects: Defects,
) -> tuple[Subject, ...]:
    readable = [row for row in rows if row.sample_id in pictures]
    boxes = [_clipped(row, pictures[row.sample_id], split_of[row.video], defects) for row in readable]
    people_of: dict[str, list[tuple[str, Box | None]]] = {}
    for row, box in zip(readable, boxes, strict=True):
        people = people_of.setdefault(pictures[row.sample_id][0], [])
        if any(agent == row.agent for agent, _ in people):
            defects.add("agent twice in an image: both kept", row.sample_id, split_of[row.video])
        people.append((row.agent, box))
    for row in rows:
        if not row.labels:
            defects.add("agent without labels", row.sample_id, split_of[row.video])
    found = []
    for row, box in zip(readable, boxes, strict=True):
        if box is None or not row.labels or row.sample_id not in used:
            continue
        image, width, height = pictures[row.sample_id]
        others = (other for agent, other in people_of[image] if agent != row.agent and other is not None)
        subject = Subject(
            subject_id=row.sample_id,
            image=image,
            width=width,
            height=height,
            split=split_of[row.video],
            body_box=box,
            other_boxes=tuple(others),
            labels=row.labels,
            scene=row.scene,
            video=row.video,
            frame=row.frame,
            agent=f"{row.video}/{row.agent}",
            box_source=row.box_source,
        )
        found.append(subject)
    return tuple(found)


def _clipped(row: ManifestRow, picture: Picture, split: str, defects: Defects) -> Box | None:
    clipped = clip_box(row.box, *picture[1:])
    if clipped is None:
        defects.add("body box that holds no pixel of the image", row.sample_id, split)
    elif clipped != row.box:
        defects.add("body box that leaves the image: clipped", row.sample_id, split)
    return clipped


def _count_differing_labels(subjects: Sequence[Subject], defects: Defects) -> None:
    """An agent is scored for every label that one of its frames has; where frames differ, that must be known."""
    labels_of: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for subject in subjects:
        labels_of.setdefault((subject.agent or "", subject.split), set()).add(subject.labels)
    for agent, found in labels_of.items():
        if len(found) > 1:
            defects.add("agent whose labels differ between frames: united where agents are scored", *agent)
