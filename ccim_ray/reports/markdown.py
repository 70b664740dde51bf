"""Results tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ccim_ray.reports.latex import best_means
from ccim_ray.reports.tables import (
    BOOTSTRAP_INTERVAL,
    T_INTERVAL,
    ResultRow,
    blocks_of,
    cells,
    groups_of,
    legend,
    shown_columns,
    subject_of,
)
from ccim_ray.storage import atomic_path


def write_markdown(rows: Sequence[ResultRow], path: Path, notes: Sequence[str] = ()) -> None:
    """One table a metric, in percent, the notes above and the legend below; several baselines are rows in bold.

    The best measured mean of each metric and baseline is bold. The only place with room for the bootstrap interval,
    which it has where there are seeds enough.
    """
    parts = [f"# {escape_markdown(subject_of(rows))}", *notes_in_markdown(notes), *markdown_tables(rows, "##")]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join([*parts, legend(rows)]) + "\n", encoding="utf-8")


def notes_in_markdown(notes: Sequence[str]) -> list[str]:
    """A paragraph for each note."""
    return [f"**Note:** {escape_markdown(note)}" for note in notes]


def markdown_tables(rows: Sequence[ResultRow], heading_marks: str) -> list[str]:
    """Heading and table of each metric."""
    parts = []
    for heading, group in groups_of(rows):
        names = shown_columns(group)
        if any(row.bootstrap_low is not None for row in group):
            names.insert(names.index(T_INTERVAL) + 1, BOOTSTRAP_INTERVAL)
        best = best_means(group)
        lines = []
        for baseline, block in blocks_of(group):
            if baseline:
                lines.append([f"**{escape_markdown(baseline)}**", *[""] * (len(names) - 1)])
            lines += [_line(row, group, names, best.get(row.baseline)) for row in block]
        align = ["---" if name == "setting" else "---:" for name in names]
        table = [names, align, *lines]
        text = "\n".join("| " + " | ".join(line) + " |" for line in table)
        parts.append(f"{heading_marks} {escape_markdown(heading)}\n\n{text}")
    return parts


def _line(row: ResultRow, group: Sequence[ResultRow], names: Sequence[str], best: str | None) -> list[str]:
    line = [escape_markdown(value) for value in cells(row, group, names)]
    place = names.index("mean ± sd")
    mean, separator, sd = line[place].partition(" ± ")
    if row.n_seeds and mean and mean == best:
        line[place] = f"**{mean}**{separator}{sd}"
    return line


def escape_markdown(text: str) -> str:
    """``text`` as text in a cell: no column of its own, no HTML."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))
    return " ".join(text.replace("|", r"\|").split())
