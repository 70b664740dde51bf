"""Fig. 5 of the paper: every category's recall, or its average precision, under each setting of a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.figures import DOTS_PER_INCH, GRID_COLOUR, PAGE_SETTINGS
from ccim_ray.reports.tables import ResultRow
from ccim_ray.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Bar

SETTING_COLOURS = ("#8C8C8C", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito's, which people with any colour vision can tell apart, and grey for the first: the baseline alone."""

ABREAST_BARS = 36
"""Up to so many bars in a panel, the panels of a baseline's test splits stand side by side, else below each other."""

_KINDS = {"recall": "recall, the accuracy within the category (%)", "AP": "average precision (%)"}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One baseline on one test split: categories in the dataset's order, and each setting's row of them."""

    baseline: str
    split: str
    categories: tuple[str, ...]
    rows: dict[str, dict[str, ResultRow]]


def per_category_figure(rows: Sequence[ResultRow], title: str, png: Path, html: Path) -> None:
    """Draw one panel for each baseline and test split: a group of bars for each category, a bar for each setting.

    Whiskers are the standard deviation over seeds. A star stands over what differs from the reference setting beyond
    noise. Where there are more settings than colours the first are drawn, and the figure says so.

    Args:
        rows: named ``<split>/recall/<category>`` or ``<split>/AP/<category>``; those without a value are left out.
        title: printed.
        png, html: files to write; the page asks the network for nothing and gives every interval where one points.

    Raises ValueError where no row has a value.
    """
    measured = [row for row in rows if row.mean is not None]
    if not measured:
        raise ValueError(f"no value to draw for {title}")
    settings = list(dict.fromkeys(row.setting for row in measured))
    shown = settings[: len(SETTING_COLOURS)]
    panels = _panels([row for row in measured if row.setting in shown])
    kind = _KINDS[measured[0].metric.split("/")[1]]
    legend = _legend(measured, len(shown), len(settings))
    _write_picture(panels, shown, kind, title, legend, png)
    _write_page(panels, shown, kind, f"{title}<br><sup>{legend}</sup>", html)


def _panels(rows: Sequence[ResultRow]) -> list[_Panel]:
    """Baseline by baseline, the test splits of each in the order of the rows."""
    splits = list(dict.fromkeys(row.metric.split("/")[0] for row in rows))
    categories = tuple(dict.fromkeys(row.metric.split("/", 2)[2] for row in rows))
    panels = []
    for baseline in dict.fromkeys(row.baseline for row in rows):
        for split in splits:
            found: dict[str, dict[str, ResultRow]] = {}
            for row in rows:
                if row.baseline == baseline and row.metric.split("/")[0] == split:
                    found.setdefault(row.setting, {})[row.metric.split("/", 2)[2]] = row
            panels.append(_Panel(baseline, split, categories, found))
    return panels


def _legend(rows: Sequence[ResultRow], shown: int, settings: int) -> str:
    seeds = sorted({row.n_seeds for row in rows if row.n_seeds})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    spread = "one seed, so no whiskers" if seeds == [1] else f"whiskers: sd over {count} seeds"
    reference = next((row.reference_setting for row in rows if row.reference_setting), None)
    star = (
        f"; *: differs from {reference} beyond noise (p < 0.05, Holm over the comparisons of one category)"
        if reference
        else ""
    )
    left_out = f"; {shown} of {settings} settings drawn, all are in categories.csv" if shown < settings else ""
    return f"{spread}{star}{left_out}"


def _differs(row: ResultRow) -> bool:
    return row.delta is not None and row.mark == ""


def _write_picture(
    panels: Sequence[_Panel], settings: Sequence[str], kind: str, title: str, legend: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    baselines = len({panel.baseline for panel in panels})
    bars = len(panels[0].categories) * (len(settings) + 1)
    columns = len(panels) // baselines if bars <= ABREAST_BARS else 1
    rows = len(panels) // columns
    width = columns * max(3.0, 0.7 + 0.14 * bars)
    figure = Figure((max(6.4, width), 2.3 * rows + 1.6), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, panel in zip(grid.ravel(), panels, strict=True):
        _draw_panel(axes, panel, settings)
    for axes in grid[:, 0]:
        axes.set_ylabel(kind.partition(",")[0].removesuffix(" (%)") + " (%)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    letters = int(13 * figure.get_figwidth())
    heading = textwrap.fill(f"{title} By category (Fig. 5): {kind}", letters)
    figure.suptitle(f"{heading}\n{textwrap.fill(legend, letters)}", x=0.01, ha="left", fontsize=10)
    write_png(figure, path)


def _draw_panel(axes: Axes, panel: _Panel, settings: Sequence[str]) -> None:
    width = 0.84 / len(settings)
    for number, setting in enumerate(settings):
        rows = panel.rows.get(setting, {})
        names = [name for name in panel.categories if name in rows]
        left = -0.42 + (number + 0.5) * width
        places = np.array([panel.categories.index(name) + left for name in names])
        means = [100 * (rows[name].mean or 0) for name in names]
        spread = [100 * (rows[name].sd or 0) for name in names]
        axes.bar(places, means, 0.92 * width, color=SETTING_COLOURS[number], label=setting)
        axes.errorbar(places, means, spread, fmt="none", ecolor="#222222", elinewidth=1.0)
        for place, mean, sd, name in zip(places, means, spread, names, strict=True):
            if _differs(rows[name]):
                axes.annotate("*", (place, mean + sd), (0, -2), textcoords="offset points", ha="center", fontsize=12)
    axes.set_title(f"{panel.baseline}, {panel.split}" if panel.baseline else panel.split, loc="left", fontsize=10)
    axes.set_xticks(range(len(panel.categories)), panel.categories, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set_xlim(-0.6, len(panel.categories) - 0.4)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _write_page(panels: Sequence[_Panel], settings: Sequence[str], kind: str, title: str, path: Path) -> None:
    from plotly.graph_objects import Figure as Page
    from plotly.subplots import make_subplots

    names = [f"{panel.baseline}, {panel.split}" if panel.baseline else panel.split for panel in panels]
    height = 140 + 280 * len(panels)
    page: Page = make_subplots(len(panels), 1, subplot_titles=names, vertical_spacing=80 / height)
    for row, panel in enumerate(panels, 1):
        for number, setting in enumerate(settings):
            page.add_trace(_bars(panel, setting, SETTING_COLOURS[number], in_legend=row == 1), row=row, col=1)
        page.update_yaxes(title=kind.partition(",")[0], range=[0, 105], row=row, col=1)
    page.update_layout(title=title, barmode="group", template="plotly_white", font={"size": 13})
    page.update_layout(height=height, margin={"t": 140})
    page.update_layout(legend={"orientation": "h", "y": 1 + 20 / height, "yanchor": "bottom"})
    with atomic_path(path) as temporary:
        page.write_html(temporary, include_plotlyjs=True, config=PAGE_SETTINGS)


def _bars(panel: _Panel, setting: str, colour: str, in_legend: bool) -> Bar:
    from plotly.graph_objects import Bar

    rows = panel.rows.get(setting, {})
    names = [name for name in panel.categories if name in rows]
    spread = [100 * (rows[name].sd or 0) for name in names]
    return Bar(
        x=names,
        y=[100 * (rows[name].mean or 0) for name in names],
        error_y={"type": "data", "array": spread, "thickness": 1, "visible": any(spread)},
        name=setting,
        legendgroup=setting,
        showlegend=in_legend,
        marker={"color": colour},
        customdata=[_hover(rows[name]) for name in names],
        hovertemplate="%{x}<br>%{customdata}<extra></extra>",
    )


def _hover(row: ResultRow) -> str:
    parts = [f"{row.setting}: {100 * (row.mean or 0):.2f}"]
    if row.ci_low is not None and row.ci_high is not None:
        parts.append(f"95 % interval {100 * row.ci_low:.2f} to {100 * row.ci_high:.2f} over {row.n_seeds} seeds")
    if row.delta is not None:
        parts.append(f"{100 * row.delta:+.2f} {row.mark} to {row.reference_setting}")
    return "<br>".join(parts)
