"""The results table as a job prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.tables import (
    TABLE_WIDTH,
    ResultRow,
    blocks_of,
    cells,
    groups_of,
    legend,
    metric_of,
    shown_columns,
    with_notes,
)


def rich_table(rows: Sequence[ResultRow], title: str, notes: Sequence[str] = ()) -> Table:
    """The table that a job prints: at most TABLE_WIDTH columns wide, percent, the notes in its title.

    One section a metric, in it a heading for each of several baselines; SECONDARY_METRICS follow below, a line each.
    """
    secondary = [row for row in rows if metric_of(row) in SECONDARY_METRICS]
    primary = [row for row in rows if metric_of(row) not in SECONDARY_METRICS]
    names = shown_columns(primary)
    table = Table(
        title=escape(with_notes(title, notes)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for name in names:
        if name == "setting":
            table.add_column(name, overflow="fold", max_width=30)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    groups = list(groups_of(primary))
    for heading, group in groups:
        if len(groups) > 1 or secondary:
            table.add_row(f"[bold]{escape(heading)}[/bold]")
        for baseline, block in blocks_of(group):
            if baseline:
                table.add_row(escape(baseline))
            for row in block:
                setting, *values = (escape(value) for value in cells(row, group, names))
                table.add_row(Padding(setting, (0, 0, 0, 2)) if baseline else setting, *values)
        table.add_section()
    # A fixed width, so that a console that takes itself to be narrow, such as a log, cuts no number short.
    console = Console(width=TABLE_WIDTH)
    table.width = Measurement.get(console, console.options, table).maximum
    lines = [line for group in groups_of(secondary) for line in _in_lines(*group)]
    below = [textwrap.fill(line, table.width, subsequent_indent="  ") for line in lines]
    table.caption = escape("\n".join([*below, textwrap.fill(legend(rows), table.width)]))
    return table


def _in_lines(heading: str, group: Sequence[ResultRow]) -> Iterator[str]:
    """A metric's means, each with its standard deviation: a line for each baseline."""
    for baseline, block in blocks_of(group):
        shown = [tuple(cells(row, group, ["setting", "mean ± sd"])) for row in block]
        named = f"{heading}, {baseline}: " if baseline else f"{heading}: "
        yield named + "; ".join(f"{setting} {text or '-'}" for setting, text in shown)
