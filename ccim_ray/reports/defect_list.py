"""Every defect of a dataset by name, where the console shows a few."""

from __future__ import annotations

import csv
from pathlib import Path

from ccim_ray.datasets.dataset import Defects
from ccim_ray.storage import atomic_path


def write_defects(defects: Defects, path: Path) -> None:
    """Write a line for each defect as CSV: kind, where, split; a blank split is none.

    Raises RequestError where the folder cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("kind", "where", "split"))
        writer.writerows((kind, where, split) for kind, found in defects.found.items() for where, split in found)
