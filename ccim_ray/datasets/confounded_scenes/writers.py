"""The embedded world on disk, each kind in the format of the real dataset that it is like.

``caer_s``     CAER-S/{train,test}/<Emotion>/<NNNN>.png, faces in train.txt and test.txt, body_boxes.csv
``emotic``     emotic/<folder>/<file>.jpg and Annotations/Annotations.mat
``groupwalk``  frames/<video>/<frame>.jpg and manifest.jsonl

The first two add splits.csv, for splits that the real datasets do not have (the manifest names them itself).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel, Latents
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES, affects
from ccim_ray.storage import atomic_path

JPEG_QUALITY = 92
"""JPEG quality of the worlds like EMOTIC and GroupWalk."""
PNG_COMPRESSION = 1
"""zlib level of every PNG: the default is several times slower than the drawing."""
EMOTIC_FOLDERS = ("mscoco/images", "framesdb/images", "emodb_small/images", "ade20k/images")
"""Folders of the EMOTIC release; pictures take turns."""
EMOTIC_ANNOTATORS = 3
"""Annotators of each person outside train, as in EMOTIC."""
GROUPWALK_VIDEOS = {"train": 13, "val": 8, "test_id": 8, "test_do": 8, "test_anti": 8}
"""Videos of each split, 45 in all; a video stays in one scene, as a fixed camera does."""
MAT_HEADER = b"MATLAB 5.0 MAT-file, EMOTIC annotations of the embedded world"
"""Descriptive text of Annotations.mat; the usual one holds the date and would change the bytes."""


class PictureName(NamedTuple):
    """Where a picture lies, relative to the root, and what the dataset's loader calls its subject."""

    image: str
    subject_id: str


class PictureRow(TypedDict):
    """What is known about one picture once it is drawn; boxes are xyxy, 0-based, half-open, in pixels.

    Rows to annotate may say less, or something wrong (``corruptions``): an empty box, split or list of labels is not
    written. ``combined_labels`` are EMOTIC's combined categories where they are not the union of the votes; of a person
    who is not ``rated``, EMOTIC's valence, arousal and dominance are not-a-number.
    """

    split: str
    index: int
    image: str
    subject_id: str
    depth: str
    size: int
    scene: str
    emotion: str
    ambiguous: bool
    labels: list[str]
    combined_labels: NotRequired[list[str]]
    rated: NotRequired[bool]
    person_seed: int
    body_box: list[float]
    face_box: list[float]
    keypoints: list[list[float]]
    other_boxes: list[list[float]]
    oracle_observational: list[float]
    oracle_do: list[float]
    oracle_subject: list[float]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file under a temporary name beside it and move it into place."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def encode_picture(pixels: npt.NDArray[np.uint8], suffix: str) -> bytes:
    """Bytes of a PNG or JPEG file of an image (H, W, 3) or depth map (H, W), uint8, by the name's suffix."""
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    if suffix == ".png":
        picture.save(stream, "PNG", compress_level=PNG_COMPRESSION)
    else:
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def name_pictures(model: CausalModel, latents: dict[str, Latents]) -> dict[str, list[PictureName]]:
    """Names of all pictures of a world by split; numbering may run over several splits."""
    if model.settings.like == "caer_s":
        return _name_caer_s(model, latents)
    if model.settings.like == "emotic":
        return {split: [_name_emotic(split, i) for i in range(len(draw))] for split, draw in latents.items()}
    return _name_groupwalk(model, latents)


def write_annotations(like: str, rows: Sequence[PictureRow], root: Path) -> None:
    """Write the annotation files of a whole world; ``rows`` in their final order, those of one picture together."""
    if like == "caer_s":
        _write_caer_s(rows, root)
    elif like == "emotic":
        _write_emotic(rows, root)
    else:
        _write_groupwalk(rows, root)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _write_splits(rows: Sequence[PictureRow], below: str, root: Path) -> None:
    split_of = {row["image"].removeprefix(below): row["split"] for row in rows if row["split"]}
    _write_lines(root / "splits.csv", ["image,split", *(f"{image},{split}" for image, split in split_of.items())])


# CAER-S: the category is the folder, and anger is spelt differently in its two halves.


def _name_caer_s(model: CausalModel, latents: dict[str, Latents]) -> dict[str, list[PictureName]]:
    used: dict[str, int] = {}
    names: dict[str, list[PictureName]] = {}
    for split, draw in latents.items():
        half = "train" if split == "train" else "test"
        names[split] = []
        for label in draw.targets_NE.argmax(axis=1):
            category = model.categories[label]
            spelt = "Angry" if (half, category) == ("train", "Anger") else category
            folder = f"{half}/{spelt}"
            used[folder] = used.get(folder, 0) + 1
            subject_id = f"{folder}/{used[folder]:04d}.png"
            names[split].append(PictureName(f"CAER-S/{subject_id}", subject_id))
    return names


def _write_caer_s(rows: Sequence[PictureRow], root: Path) -> None:
    halves: dict[str, list[str]] = {"train": [], "test": []}
    body_boxes = ["image,x1,y1,x2,y2"]
    for row in rows:
        if row["face_box"]:
            x1, y1, x2, y2 = row["face_box"]
            # The right and bottom pixel belong to a dlib box.
            face = (math.floor(x1), math.floor(y1), math.ceil(x2) - 1, math.ceil(y2) - 1)
            label = CATEGORIES["caer_s"].index(row["labels"][0])
            half = row["subject_id"].split("/")[0]
            halves[half].append(",".join(map(str, (row["subject_id"], label, *face))))
        if row["body_box"]:
            body_boxes.append(",".join(map(str, (row["subject_id"], *row["body_box"]))))
    for half, lines in halves.items():
        _write_lines(root / f"{half}.txt", lines)
    _write_lines(root / "body_boxes.csv", body_boxes)
    _write_splits(rows, "CAER-S/", root)


# EMOTIC: nested MATLAB structs whose fields and their order differ between train and the rest.


def _name_emotic(split: str, index: int) -> PictureName:
    path = f"{EMOTIC_FOLDERS[index % len(EMOTIC_FOLDERS)]}/{split}_{index:06d}.jpg"
    return PictureName(f"emotic/{path}", f"{path}#0")


def _write_emotic(rows: Sequence[PictureRow], root: Path) -> None:
    images: dict[str, list[npt.NDArray[Any]]] = {"train": [], "val": [], "test": []}
    for (_, split), persons in groupby(rows, key=lambda row: (row["image"], row["split"])):
        images["test" if split.startswith("test") else split].append(_emotic_image(list(persons)))
    stream = io.BytesIO()
    structs = {key: np.concatenate(parts, axis=1) for key, parts in images.items()}
    from scipy.io import savemat  # a tenth of a second of every --help, for the one format that needs it

    savemat(stream, structs, format="5", do_compression=True, oned_as="row")
    content = stream.getvalue()
    write_atomically(root / "Annotations" / "Annotations.mat", MAT_HEADER.ljust(116) + content[116:])
    _write_splits(rows, "emotic/", root)


def _struct(**fields: object) -> npt.NDArray[Any]:
    """A 1 x 1 MATLAB struct with its fields in the order given."""
    struct = np.empty((1, 1), dtype=[(name, object) for name in fields])
    for name, value in fields.items():
        struct[name][0, 0] = value
    return struct


def _cell(names: Sequence[str]) -> npt.NDArray[np.object_]:
    cell = np.empty((1, len(names)), dtype=object)
    cell[0] = list(names)
    return cell


def _emotic_image(persons: Sequence[PictureRow]) -> npt.NDArray[Any]:
    row = persons[0]
    folder, _, filename = row["image"].removeprefix("emotic/").rpartition("/")
    return _struct(
        filename=filename,
        folder=folder,
        image_size=_struct(n_col=float(row["size"]), n_row=float(row["size"])),
        original_database=_struct(name="confounded_scenes"),
        person=np.concatenate([_emotic_person(person) for person in persons], axis=1),
    )


def _emotic_person(row: PictureRow) -> npt.NDArray[Any]:
    generator = np.random.default_rng(row["person_seed"])
    gender = ("Female", "Male")[generator.integers(2)]
    age = ("Adult", "Teenager", "Kid")[generator.choice(3, p=(0.78, 0.11, 0.11))]
    one_based_inclusive = [value + 1 if side < 2 else value for side, value in enumerate(row["body_box"])]
    body_bbox = np.array([one_based_inclusive])
    felt = row["labels"] or [row["emotion"]]
    unless_rated = 1.0 if row.get("rated", True) else math.nan
    if row["split"] == "train":
        return _struct(
            body_bbox=body_bbox,
            annotations_categories=_struct(categories=_cell(row["labels"])),
            annotations_continuous=_continuous(_rating(felt) * unless_rated),
            gender=gender,
            age=age,
        )
    votes = _votes(row["labels"], generator)
    ratings = [_rating(vote or felt) * unless_rated for vote in votes]
    return _struct(
        body_bbox=body_bbox,
        annotations_categories=np.concatenate([_struct(categories=_cell(v)) for v in votes], axis=1),
        combined_categories=_cell(row.get("combined_labels", row["labels"])),
        annotations_continuous=np.concatenate([_continuous(rating) for rating in ratings], axis=1),
        combined_continuous=_continuous(np.rint(np.mean(ratings, axis=0))),
        gender=gender,
        age=age,
    )


def _votes(labels: Sequence[str], generator: np.random.Generator) -> list[list[str]]:
    """Choices of EMOTIC_ANNOTATORS people whose union is ``labels``, none of them empty unless that is."""
    if not labels:
        return [[] for _ in range(EMOTIC_ANNOTATORS)]
    first = int(generator.integers(EMOTIC_ANNOTATORS))
    agrees = generator.random((EMOTIC_ANNOTATORS, len(labels))) < 0.5
    votes = []
    for annotator in range(EMOTIC_ANNOTATORS):
        turns = [(position + first) % EMOTIC_ANNOTATORS == annotator for position in range(len(labels))]
        vote = [name for name, turn, also in zip(labels, turns, agrees[annotator], strict=True) if turn or also]
        votes.append(vote or [labels[annotator % len(labels)]])
    return votes


def _rating(labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Valence, arousal and dominance of categories on EMOTIC's scale, whole numbers 1..10."""
    mean: npt.NDArray[np.float64] = affects(tuple(labels)).mean(axis=0)
    return np.clip(np.rint(5.5 + 4.5 * mean), 1, 10)


def _continuous(rating: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    valence, arousal, dominance = rating.tolist()
    return _struct(valence=valence, arousal=arousal, dominance=dominance)


# GroupWalk: a JSON Lines manifest; every person is seen in one frame.


def _name_groupwalk(model: CausalModel, latents: dict[str, Latents]) -> dict[str, list[PictureName]]:
    names: dict[str, list[PictureName]] = {}
    scenes = len(model.scene_names)
    frequent = np.argsort(-model.scene_prior_Z)
    first_video = 0
    for split, draw in latents.items():
        second = {int(z): scenes + k for k, z in enumerate(frequent[: GROUPWALK_VIDEOS[split] - scenes])}
        frames = [0] * GROUPWALK_VIDEOS[split]
        names[split] = []
        for row, scene in enumerate(draw.scene_N.tolist()):
            taken = second.get(scene, scene) if row % 2 else scene
            video, frame = f"video_{first_video + taken:02d}", frames[taken]
            frames[taken] += 1
            names[split].append(PictureName(f"frames/{video}/{frame:06d}.jpg", f"{video}/person_{frame:06d}/{frame}"))
        first_video += GROUPWALK_VIDEOS[split]
    return names


def _write_groupwalk(rows: Sequence[PictureRow], root: Path) -> None:
    lines = []
    for row in rows:
        video, agent, frame = row["subject_id"].split("/")[:3]
        sample = {
            "sample_id": row["subject_id"],
            "video_id": video,
            "agent_id": agent,
            "frame_index": int(frame),
            "image": row["image"],
            "bbox": [None if math.isnan(value) else value for value in row["body_box"]],  # JSON has no NaN
            "bbox_format": "xyxy_0based_halfopen",
            "labels": row["labels"],
            "split": row["split"],
            "setting": row["scene"],
            "box_source": "annotation",
        }
        lines.append(json.dumps(sample))
    _write_lines(root / "manifest.jsonl", lines)
