"""The results table as a job prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

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

SECONDARY_COLUMNS = 5
"""Means and standard deviations that fit beside a setting's name in TABLE_WIDTH."""

SETTING_WIDTH = 30


def printed_tables(rows: Sequence[ResultRow], title: str, notes: Sequence[str] = ()) -> Group:
    """What a job prints, at most TABLE_WIDTH columns wide: percent, the notes in the title, the legend last.

    One section a metric, in it a heading for each of several baselines; SECONDARY_METRICS follow in a table of their
    own, a column each.
    """
    primary = [row for row in rows if metric_of(row) not in SECONDARY_METRICS]
    secondary = dict(groups_of([row for row in rows if metric_of(row) in SECONDARY_METRICS]))
    heading = Text(textwrap.fill(with_notes(title, notes), TABLE_WIDTH), style="italic")
    tables = [_with_fixed_width(_main_table(primary, bool(secondary)))] if primary else []
    headings = list(secondary)
    for start in range(0, len(headings), SECONDARY_COLUMNS):
        some = {heading: secondary[heading] for heading in headings[start : start + SECONDARY_COLUMNS]}
        tables.append(_with_fixed_width(_side_table(some)))
    width = max(table.width or 0 for table in tables) if tables else TABLE_WIDTH
    return Group(heading, *tables, Text(textwrap.fill(legend(rows), width), style="dim italic"))


def _main_table(rows: Sequence[ResultRow], has_heading: bool) -> Table:
    names = shown_columns(rows)
    table = _empty_table(names)
    groups = list(groups_of(rows))
    for heading, group in groups:
        if len(groups) > 1 or has_heading:
            table.add_row(f"[bold]{escape(heading)}[/bold]")
        for baseline, block in blocks_of(group):
            if baseline:
                table.add_row(escape(baseline))
            for row in block:
                setting, *values = (escape(value) for value in cells(row, group, names))
                table.add_row(Padding(setting, (0, 0, 0, 2)) if baseline else setting, *values)
        table.add_section()
    return table


def _side_table(groups: Mapping[str, Sequence[ResultRow]]) -> Table:
    """Mean and standard deviation of several metrics, one a column."""
    table = _empty_table(["setting", *(heading.replace("/", "/\n") for heading in groups)])
    texts = {
        (row.baseline, row.setting, heading): cells(row, group, ["mean ± sd"])[0]
        for heading, group in groups.items()
        for row in group
    }
    every = list({(row.baseline, row.setting): row for group in groups.values() for row in group}.values())
    for baseline, block in blocks_of(every):
        if baseline:
            table.add_row(escape(baseline))
        for row in block:
            values = (texts.get((row.baseline, row.setting, heading), "") for heading in groups)
            setting = escape(row.setting)
            table.add_row(Padding(setting, (0, 0, 0, 2)) if baseline else setting, *values)
    return table


def _empty_table(names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column(names[0], overflow="fold", max_width=SETTING_WIDTH, vertical="bottom")
    for name in names[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _with_fixed_width(table: Table) -> Table:
    """The table at the width that it needs: a console that takes itself to be narrow, as for a log, cuts no number."""
    console = Console(width=TABLE_WIDTH)
    table.width = Measurement.get(console, console.options, table).maximum
    return table
