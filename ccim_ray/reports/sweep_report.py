"""The files and the printed table that a sweep ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group

from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.figures import sweep_curve
from ccim_ray.reports.latex import write_latex
from ccim_ray.reports.leave_one_out import Gain, in_words, write_gains
from ccim_ray.reports.markdown import write_markdown
from ccim_ray.reports.per_category_figure import per_category_figure
from ccim_ray.reports.printed_table import printed_tables
from ccim_ray.reports.tables import ResultRow, with_notes, write_csv
from ccim_ray.space import Space


@dataclass(frozen=True)
class SweepReport:
    """Where the report lies, its files, and what to print: the tables, and what is said below it."""

    folder: Path
    files: tuple[Path, ...]
    table: Group
    remarks: tuple[str, ...]


def write_sweep_report(
    folder: Path,
    space: Space,
    measured: Sequence[ResultRow],
    constants: Sequence[ResultRow],
    by_category: Sequence[ResultRow],
    axis: Mapping[str, int],
    notes: Sequence[str] = (),
    gains: Sequence[Gain] = (),
) -> SweepReport:
    """Write ``results.csv``, ``.md``, ``.tex`` and, where the space has an axis, the curve as picture and page.

    Args:
        measured, constants: rows in the order of the table; the curve leaves SECONDARY_METRICS out.
        by_category: rows for ``categories.csv``, ``.md`` and, as bars (Fig. 5), ``.png`` and ``.html``; empty for no
            such files.
        axis: every setting that the sweep has ever had on its axis.
        notes: what must be known of the numbers. They stand in every title and caption; ``results.csv`` has the
            columns that are promised and no place for them.
        gains: without each single category, for ``leave_one_out.csv``; empty for no such file.
    """
    rows = [
        row
        for metric in dict.fromkeys(row.metric for row in measured)
        for row in (*measured, *constants)
        if row.metric == metric
    ]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "results.csv", folder / "results.md", folder / "results.tex"]
    write_csv(rows, files[0])
    write_markdown(rows, files[1], notes)
    write_latex(rows, files[2], notes)
    if by_category:
        files += [folder / "categories.csv", folder / "categories.md"]
        write_csv(by_category, folder / "categories.csv")
        write_markdown(by_category, folder / "categories.md", notes)
    if any(row.mean is not None for row in by_category):
        bars = (folder / "categories.png", folder / "categories.html")
        per_category_figure(by_category, with_notes(space.question, notes), *bars)
        files += bars
    if gains:
        files.append(folder / "leave_one_out.csv")
        write_gains(gains, files[-1])
    drawn = [row for row in rows if row.metric.rpartition("/")[2] not in SECONDARY_METRICS]
    if any(row.setting in axis for row in drawn if row.mean is not None):
        curve = (folder / f"{space.name}.png", folder / f"{space.name}.html")
        title = with_notes(space.question, notes)
        sweep_curve(drawn, axis, space.reference, title, space.axis_label, *curve)
        files += curve
    return SweepReport(folder, tuple(files), printed_tables(rows, space.question, notes), tuple(in_words(gains)))
