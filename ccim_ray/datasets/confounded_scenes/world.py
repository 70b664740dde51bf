"""Write the embedded world to disk and read its truth back.

A world is a pure function of its settings and of the rate of defects planted in it (``defects``, by default none),
down to the bytes of every file, however the work is shared out: plan the chunks, write each anywhere, then finish
with all their rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ccim_ray.arrow_files import read_parquet
from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel, Floats, Latents
from ccim_ray.datasets.confounded_scenes.counterfactuals import (
    COUNTERFACTUALS_FILE,
    name_counterfactuals,
    write_counterfactuals,
)
from ccim_ray.datasets.confounded_scenes.defects import PLANTED_FILE, DefectPlan, plan_defects
from ccim_ray.datasets.confounded_scenes.oracle import oracle_probabilities
from ccim_ray.datasets.confounded_scenes.render import render
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.truth import TRUTH_SCHEMA
from ccim_ray.datasets.confounded_scenes.writers import (
    PictureName,
    PictureRow,
    encode_picture,
    name_pictures,
    write_annotations,
    write_atomically,
)
from ccim_ray.datasets.subject import COUNTERFACTUAL
from ccim_ray.errors import RequestError

CHUNK_SIZE = 128
"""Most pictures of one chunk."""

_COMPLETE, _UNFINISHED = "world.json", "world.unfinished.json"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pictures ``start`` to ``stop`` (exclusive) of a split."""

    split: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Draw:
    model: CausalModel
    latents: dict[str, Latents]
    names: dict[str, list[PictureName]]
    dataset: dict[str, list[PictureName]]
    """The names in the files of the imitated dataset: without the counterfactuals."""


@lru_cache(maxsize=1)
def _draw(settings: WorldSettings) -> _Draw:
    model = CausalModel(settings)
    latents = {split: model.draw(split, count) for split, count in settings.split_sizes().items()}
    names = name_pictures(model, latents)
    again = settings.counterfactuals
    others = {COUNTERFACTUAL: model.counterfactuals(again, len(names["test_do"]))}
    their_names = {COUNTERFACTUAL: name_counterfactuals(names["test_do"][:again])}
    return _Draw(model, latents | others, names | their_names, names)


def world_plan(settings: WorldSettings) -> list[Chunk]:
    """Chunks that together hold every picture once; the same for the same settings."""
    return [
        Chunk(split, start, min(start + CHUNK_SIZE, count))
        for split, count in _sizes(settings).items()
        for start in range(0, count, CHUNK_SIZE)
    ]


def _sizes(settings: WorldSettings) -> dict[str, int]:
    """Pictures of each split, the counterfactuals last."""
    return settings.split_sizes() | {COUNTERFACTUAL: settings.counterfactuals}


@lru_cache(maxsize=1)
def planned_defects(settings: WorldSettings, defect_rate: float) -> DefectPlan:
    """The defects of the world of these settings. Raises RequestError for a rate that it cannot hold."""
    return plan_defects(settings, _draw(settings).dataset if defect_rate else {}, defect_rate)


def claim_folder(settings: WorldSettings, root: Path, defect_rate: float = 0.0) -> DefectPlan:
    """Make sure that only pictures of one world come to lie under ``root``; safe from several processes.

    Returns the world's defects. Raises RequestError where ``root`` holds something else.
    """
    defects = planned_defects(settings, defect_rate)
    if root.exists() and not root.is_dir():
        raise RequestError(f"{root} is a file: name a folder to write the embedded world to")
    # Listed before the markers are read: whatever another process wrote came after its own marker.
    found = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")] if root.is_dir() else []
    markers = [name for name in (_COMPLETE, _UNFINISHED) if (root / name).is_file()]
    for name in markers:
        if (root / name).read_bytes() != _settings_bytes(settings):
            raise RequestError(
                f"{root / name} says that the folder holds an embedded world of other settings: name an empty"
                " folder or remove this one"
            )
    planted = _content(root / PLANTED_FILE)
    if planted != defects.record and (markers or planted is not None):
        raise RequestError(
            f"{root} holds an embedded world with {'other' if planted else 'no'} planted defects: name an empty folder,"
            " remove this one, or give the --defects that it was made with"
        )
    if not markers:
        others = sorted(set(found) - {PLANTED_FILE})
        if others:
            raise RequestError(f"{root} already holds {others[0]} and no embedded world: name an empty folder")
        if defects.record is not None:
            write_atomically(root / PLANTED_FILE, defects.record)  # first: who sees the other marker finds this one
        write_atomically(root / _UNFINISHED, _settings_bytes(settings))
    return defects


def write_chunk(settings: WorldSettings, chunk: Chunk, root: Path, defect_rate: float = 0.0) -> list[PictureRow]:
    """Draw and write the pictures and depth maps of one chunk; returns the rows that finish_world needs.

    Raises RequestError where ``root`` already holds something else.
    """
    root = Path(root)
    defects = claim_folder(settings, root, defect_rate)
    draw = _draw(settings)
    latents = draw.latents[chunk.split].rows(chunk.start, chunk.stop)
    oracle = oracle_probabilities(draw.model, latents)
    rows: list[PictureRow] = []
    for row in range(len(latents)):
        index = chunk.start + row
        name = draw.names[chunk.split][index]
        depth = f"depth/{chunk.split}/{index:05d}.png"
        drawn_split, drawn_index = defects.drawn_as(chunk.split, index, name.image)
        picture = render(draw.latents[drawn_split].scenario(drawn_index), settings.image_size)
        encoded = encode_picture(picture.image_HWC, Path(name.image).suffix)
        for path, content in defects.files(name.image, encoded).items():
            write_atomically(root / path, content)
        write_atomically(root / depth, encode_picture(picture.depth_HW, ".png"))
        rows.append(
            {
                "split": chunk.split,
                "index": index,
                "image": name.image,
                "subject_id": name.subject_id,
                "depth": depth,
                "size": settings.image_size,
                "scene": latents.scene_name(row),
                "emotion": draw.model.categories[latents.emotion_N[row]],
                "ambiguous": bool(latents.ambiguous_N[row]),
                "labels": [draw.model.categories[k] for k in latents.targets_NE[row].nonzero()[0]],
                "person_seed": int(latents.person_seed_N[row]),
                "body_box": _sixteenths(picture.body_box),
                "face_box": _sixteenths(picture.face_box),
                "keypoints": [_sixteenths(point) for point in picture.keypoints],
                "other_boxes": [_sixteenths(box) for box in picture.other_boxes],
                "oracle_observational": _rounded(oracle.observational_NE[row]),
                "oracle_do": _rounded(oracle.do_NE[row]),
                "oracle_subject": _rounded(oracle.subject_NE[row]),
            }
        )
    return rows


def finish_world(settings: WorldSettings, rows: Iterable[PictureRow], root: Path, defect_rate: float = 0.0) -> None:
    """Write annotations, truth, counterfactuals and, last, world.json, from the rows of all chunks in any order.

    Raises ValueError where rows are missing or doubled, RequestError where ``root`` holds something else.
    """
    root = Path(root)
    defects = claim_folder(settings, root, defect_rate)
    sizes = _sizes(settings)
    splits = list(sizes)
    ordered = sorted(rows, key=lambda row: (splits.index(row["split"]), row["index"]))
    expected = [(split, index) for split, count in sizes.items() for index in range(count)]
    if [(row["split"], row["index"]) for row in ordered] != expected:
        raise ValueError(f"finish_world needs each of {len(expected)} pictures once, got {len(ordered)} rows")
    drawn, counterfactual = ordered[: settings.images], ordered[settings.images :]
    write_annotations(settings.like, list(defects.rows(drawn)), root)
    factual = [row for row in drawn if row["split"] == "test_do"][: len(counterfactual)]
    write_counterfactuals(counterfactual, factual, root)
    truth = [{name: row[name] for name in TRUTH_SCHEMA.names} for row in drawn]  # type: ignore[literal-required]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(truth, schema=TRUTH_SCHEMA), stream)
    write_atomically(root / "truth.parquet", stream.getvalue())
    write_atomically(root / _COMPLETE, _settings_bytes(settings))
    (root / _UNFINISHED).unlink(missing_ok=True)


def write_world(settings: WorldSettings, root: Path, defect_rate: float = 0.0) -> None:
    """Write a whole world in this process."""
    rows = [row for chunk in world_plan(settings) for row in write_chunk(settings, chunk, root, defect_rate)]
    finish_world(settings, rows, root, defect_rate)


def is_complete(settings: WorldSettings, root: Path, defect_rate: float = 0.0) -> bool:
    """Whether ``root`` holds the finished world of these settings, with these defects."""
    path = Path(root) / _COMPLETE
    if not path.is_file() or path.read_bytes() != _settings_bytes(settings):
        return False
    if not path.with_name(COUNTERFACTUALS_FILE).is_file():
        return False  # written by a version that had none
    return _content(path.with_name(PLANTED_FILE)) == planned_defects(settings, defect_rate).record


def load_truth(root: Path) -> pa.Table:
    """What only the causal model knows, a table of TRUTH_SCHEMA, one row a picture.

    Raises RequestError where ``root`` holds no finished world.
    """
    root = Path(root)
    if not (root / _COMPLETE).is_file():
        raise RequestError(
            f"{root} holds no finished embedded world ({_COMPLETE} is missing): write it again with"
            " jobs/make_confounded_scenes.py"
        )
    return read_parquet(root / "truth.parquet", TRUTH_SCHEMA)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _settings_bytes(settings: WorldSettings) -> bytes:
    return (json.dumps(settings.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def _rounded(probability_E: Floats) -> list[float]:
    # The last digits of exp and of a matrix product differ between processors.
    return [round(value, 9) for value in probability_E.tolist()]


def _sixteenths(values: Iterable[float]) -> list[float]:
    # Such fractions survive text and the 1-based form of EMOTIC without any rounding.
    return [round(16 * float(value)) / 16 for value in values]
