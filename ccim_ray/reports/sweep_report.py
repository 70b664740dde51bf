"""The files and the printed table that a sweep ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ccim_ray.reports.figures import sweep_curve
from ccim_ray.reports.tables import ResultRow, rich_table, write_csv, write_latex, write_markdown
from ccim_ray.space import Space


@dataclass(frozen=True)
class SweepReport:
    """Where the report lies, its files, and the table to print."""

    folder: Path
    files: tuple[Path, ...]
    table: Table


def write_sweep_report(
    folder: Path,
    space: Space,
    measured: Sequence[ResultRow],
    constants: Sequence[ResultRow],
    axis: Mapping[str, int],
) -> SweepReport:
    """Write ``results.csv``, ``.md``, ``.tex`` and, where the space has an axis, the curve as picture and page.

    ``axis`` holds every setting that the sweep has ever had on its axis.
    """
    rows = [
        row
        for metric in dict.fromkeys(row.metric for row in measured)
        for row in (*measured, *constants)
        if row.metric == metric
    ]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "results.csv", folder / "results.md", folder / "results.tex"]
    for path, write in zip(files, (write_csv, write_markdown, write_latex), strict=True):
        write(rows, path)
    if any(row.setting in axis for row in measured if row.mean is not None):
        curve = (folder / f"{space.name}.png", folder / f"{space.name}.html")
        sweep_curve(rows, axis, space.reference, space.question, space.axis_label, *curve)
        files += curve
    return SweepReport(folder, tuple(files), rich_table(rows, space.question))
