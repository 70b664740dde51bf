"""The subjects who are painted once more in another scene, kept beside the files of the imitated dataset.

No real dataset has such pictures, so its own annotation names none: whoever reads the folder as CAER-S, EMOTIC or
GroupWalk sees the same subjects as without them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ccim_ray.arrow_files import read_parquet
from ccim_ray.datasets.confounded_scenes.truth import BOX, TRUTH_SCHEMA
from ccim_ray.datasets.confounded_scenes.writers import PictureName, PictureRow, write_atomically
from ccim_ray.datasets.subject import COUNTERFACTUAL, Subject, clip_box
from ccim_ray.errors import RequestError

COUNTERFACTUALS_FILE = "counterfactuals.parquet"

COUNTERFACTUALS_SCHEMA = pa.schema(
    [
        *TRUTH_SCHEMA,
        pa.field("counterfactual_of", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("body_box", BOX, nullable=False),
    ]
)
"""The columns of the truth, and what is otherwise in the files of the imitated dataset; ``size`` in pixels."""


def name_counterfactuals(factual: Sequence[PictureName]) -> list[PictureName]:
    """Names of the counterfactual pictures, in the file format of the originals."""
    names = (f"{COUNTERFACTUAL}/{place:05d}{PurePosixPath(name.image).suffix}" for place, name in enumerate(factual))
    return [PictureName(name, name) for name in names]


def write_counterfactuals(rows: Sequence[PictureRow], factual: Sequence[PictureRow], root: Path) -> None:
    """Write the table of the counterfactuals; ``factual`` are the rows of the same people in their own scenes."""
    listed = [
        {name: row[name] for name in COUNTERFACTUALS_SCHEMA.names if name != "counterfactual_of"}  # type: ignore[literal-required]
        | {"counterfactual_of": own["subject_id"]}
        for row, own in zip(rows, factual, strict=True)
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(listed, schema=COUNTERFACTUALS_SCHEMA), stream)
    write_atomically(root / COUNTERFACTUALS_FILE, stream.getvalue())


def load_counterfactuals(root: Path) -> pa.Table:
    """The table of COUNTERFACTUALS_SCHEMA. Raises RequestError where it is missing or damaged."""
    path = Path(root) / COUNTERFACTUALS_FILE
    try:
        return read_parquet(path, COUNTERFACTUALS_SCHEMA)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read ({error}); make the world again") from error


def counterfactual_subject(row: Mapping[str, Any], box_source: str) -> Subject:
    """The subject of one row of the table, without what the truth adds; ``box_source`` is that of its original."""
    body_box = clip_box(row["body_box"], row["size"], row["size"])
    if body_box is None:
        raise AssertionError("the subject stands in the picture by construction")
    return Subject(
        subject_id=row["subject_id"],
        image=row["image"],
        width=row["size"],
        height=row["size"],
        split=row["split"],
        body_box=body_box,
        labels=tuple(row["labels"]),
        box_source=box_source,
        counterfactual_of=row["counterfactual_of"],
    )
