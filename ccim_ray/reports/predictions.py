"""The table of a prediction: a row a person, or a picture in which nothing could be predicted and why.

Shape suffixes: K categories.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ccim_ray.datasets.dataset import Defects
from ccim_ray.datasets.subject import Box
from ccim_ray.storage import atomic_path

DONE = "ok"
COLUMNS = ("image", "person", "x1", "y1", "x2", "y2", "box_source", "box_score", "status", "top")
"""Then come the categories."""


@dataclass(frozen=True, eq=False)
class PredictedRow:
    """A row of the table.

    Attributes:
        person: number within the picture, from 0; None where nobody is known there.
        box_score: the detector's, 0 to 1; None for a box that was given.
        status: DONE, or why there are no probabilities.
        probabilities_K: (K,) float32, 0 to 1; None where there are none.
    """

    image: str
    person: int | None
    box: Box | None
    box_source: str | None
    box_score: float | None
    status: str
    probabilities_K: npt.NDArray[np.float32] | None

    def top(self, categories: Sequence[str], count: int) -> list[tuple[str, float]]:
        """The most probable categories, the first of equal ones first."""
        if self.probabilities_K is None:
            return []
        order = np.argsort(-self.probabilities_K, kind="stable")[:count]
        return [(categories[k], float(self.probabilities_K[k])) for k in order]


def write_predictions(
    rows: Sequence[PredictedRow], categories: Sequence[str], facts: dict[str, str], folder: Path
) -> None:
    """Write ``predictions.parquet``, whose metadata hold ``facts``, and the same as ``predictions.csv``.

    Raises RequestError where the folder cannot be written.
    """
    boxes: list[Sequence[float | None]] = [row.box or (None,) * 4 for row in rows]
    tops = [row.top(categories, 1) for row in rows]
    columns: dict[str, pa.Array] = {
        "image": pa.array([row.image for row in rows], pa.string()),
        "person": pa.array([row.person for row in rows], pa.int32()),
        **{name: pa.array([box[k] for box in boxes], pa.float64()) for k, name in enumerate(COLUMNS[2:6])},
        "box_source": pa.array([row.box_source for row in rows], pa.string()),
        "box_score": pa.array([row.box_score for row in rows], pa.float32()),
        "status": pa.array([row.status for row in rows], pa.string()),
        "top": pa.array([top[0][0] if top else None for top in tops], pa.string()),
    }
    for k, category in enumerate(categories):
        values = [None if row.probabilities_K is None else row.probabilities_K[k] for row in rows]
        columns[category] = pa.array(values, pa.float32())
    table = pa.table(columns).replace_schema_metadata({"ccim_ray": json.dumps(facts)})
    with atomic_path(folder / "predictions.parquet") as temporary:
        pq.write_table(table, temporary)
    with (
        atomic_path(folder / "predictions.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(table.column_names)
        for cells in zip(*(column.to_pylist() for column in table.columns), strict=True):
            writer.writerow([_written(cell) for cell in cells])


def failures(rows: Sequence[PredictedRow]) -> Defects:
    """What could not be predicted, by its status."""
    defects = Defects()
    for row in rows:
        if row.status != DONE:
            defects.add(row.status, row.image if row.person is None else f"{row.image} person {row.person}")
    return defects


def _written(value: object) -> object:
    """Seven digits are all that a float32 has; what is unknown is blank."""
    return f"{value:.7g}" if isinstance(value, float) else value
