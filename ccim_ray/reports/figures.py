"""Figures: a metric against what a sweep varies, a confusion matrix, the average precision of each category.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; line styles differ as well.
Array suffixes: K categories.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.tables import ResultRow, in_percent
from ccim_ray.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotly.graph_objects import Scatter

CURVE_COLOUR = "#0072B2"
LINE_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRID_COLOUR = "#DDDDDD"
NOTE_COLOUR = "#444444"
DOTS_PER_INCH = 150

TITLE_POINTS, TITLE_LETTERS_AN_INCH = 10, 13

PAGE_SETTINGS = {"displaylogo": False, "showSendToCloud": False}
"""Without these the page offers to send the results to a company."""

FULL_ANNOTATION_CATEGORIES = 12
"""Up to here a confusion matrix has room for a number in each cell."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One metric: the curve over the axis, and the settings that are lines across it; drawn times scale."""

    metric: str
    unit: str
    sizes: list[int]
    curve: list[ResultRow]
    lines: list[ResultRow]
    reference: str
    scale: float


def sweep_curve(
    rows: Sequence[ResultRow],
    axis: Mapping[str, int],
    reference_setting: str,
    title: str,
    axis_label: str,
    png: Path,
    html: Path,
) -> None:
    """Draw mean and 95 % interval against the axis, one panel a metric, as a picture and as a page.

    Settings that are not on the axis are lines across it: dashed where measured, the reference with its
    interval, dotted where they are constants, such as chance. What lies beyond the measured range is noted
    at the edge. The page holds all it needs and asks the network for nothing.

    Args:
        rows: rows of one dataset and baseline; settings without a value are left out.
        axis: setting -> its number on the axis, which is drawn in powers of two.
        reference_setting: what the curve is compared with.
        title, axis_label: printed.
        png, html: files to write.

    Raises:
        ValueError: no row has a value.
    """
    panels = _panels(rows, axis, reference_setting)
    if not panels:
        raise ValueError(f"no value to draw for {title}")
    _write_picture(panels, axis_label, title, png)
    _write_page(panels, axis_label, title, html)


def confusion_matrix(counts_KK: npt.NDArray[np.int64], categories: Sequence[str], path: Path, title: str = "") -> None:
    """Draw counts (K, K), true category by row and recognised category by column, shaded by share of the row.

    A category that no subject has is left blank.
    """
    size = len(categories)
    totals_K = counts_KK.sum(1)
    shares_KK = np.divide(
        counts_KK, totals_K[:, None], out=np.full(counts_KK.shape, np.nan), where=totals_K[:, None] > 0
    )
    annotated = size <= FULL_ANNOTATION_CATEGORIES
    figure = _figure((2.2 if annotated else 3.2) + 0.62 * size, 2.0 + 0.55 * size)
    axes = figure.subplots()
    # Cells with white edges: ticks and grid lines between pixels take as long to draw as all the rest.
    cells = axes.pcolormesh(100 * shares_KK, cmap="Blues", vmin=0, vmax=100, edgecolors="white", linewidth=1.5)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    places = np.arange(size) + 0.5
    axes.set_xticks(places, categories, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, [f"{name}  ({total})" for name, total in zip(categories, totals_K, strict=True)])
    _head(figure, title)
    axes.set_xlabel("recognised (% of the true category)" if annotated else "recognised")
    axes.set_ylabel("true (subjects)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if annotated:
        for (row, column), share in np.ndenumerate(shares_KK):
            if np.isfinite(share):
                colour = "white" if share > 0.5 else "#222222"
                axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    else:
        bar = figure.colorbar(cells, shrink=0.8, pad=0.03)
        bar.set_label("share of the true category (%)")
        bar.outline.set_visible(False)
    write_png(figure, path)


def per_category_chart(values: Mapping[str, float], path: Path, title: str = "") -> None:
    """Draw the average precision of each category, a fraction, best first, and their mean as a dashed line.

    Raises ValueError where there is no category.
    """
    if not values:
        raise ValueError(f"no category to draw in {path}")
    ordered = sorted(values.items(), key=lambda item: item[1])
    names, percent = [name for name, _ in ordered], [100 * value for _, value in ordered]
    mean = sum(percent) / len(percent)
    figure = _figure(7.2, 1.3 + 0.27 * len(ordered))
    axes = figure.subplots()
    axes.barh(names, percent, height=0.7, color=CURVE_COLOUR)
    for place, value in enumerate(percent):
        # On white, so that the line of the mean does not run through the number.
        label = axes.annotate(f"{value:.1f}", (value, place), (4, 0), textcoords="offset points", va="center")
        label.set(fontsize=9, color="#222222", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.axvline(mean, color=LINE_COLOURS[0], linestyle="--", linewidth=1.5, zorder=2.5)
    axes.set_title(f"mean {mean:.2f} %", loc="right", color=LINE_COLOURS[0], fontsize=10)
    _head(figure, title)
    axes.set_xlabel("average precision (%)")
    axes.set_xlim(0, min(108, max(percent) * 1.12 + 1))
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    write_png(figure, path)


def _panels(rows: Sequence[ResultRow], axis: Mapping[str, int], reference_setting: str) -> list[_Panel]:
    panels = []
    for metric in dict.fromkeys(row.metric for row in rows):
        measured = [row for row in rows if row.metric == metric and row.mean is not None]
        curve = sorted((row for row in measured if row.setting in axis), key=lambda row: axis[row.setting])
        lines = sorted(
            (row for row in measured if row.setting not in axis),
            key=lambda row: (row.setting != reference_setting, row.n_seeds is None),
        )
        if curve or lines:
            percent = in_percent(rows, metric)
            unit = f"{metric} (%)" if percent else metric
            sizes = [axis[row.setting] for row in curve]
            panels.append(_Panel(metric, unit, sizes, curve, lines, reference_setting, 100 if percent else 1))
    return panels


def _style(panels: Sequence[_Panel], setting: str) -> tuple[str, str]:
    """Colour and line style of a line across the axis: the same in every panel."""
    order = list(dict.fromkeys(row.setting for panel in panels for row in panel.lines))
    constant = all(row.n_seeds is None for panel in panels for row in panel.lines if row.setting == setting)
    colour = LINE_COLOURS[order.index(setting) % len(LINE_COLOURS)]
    return colour, "dotted" if constant else "dashed"


def _interval(rows: Sequence[ResultRow], scale: float) -> tuple[list[float], list[float]]:
    """Ends of the 95 % intervals; NaN where a single seed has none."""
    ends = [(row.ci_low, row.ci_high) for row in rows]
    low = [scale * end[0] if end[0] is not None else float("nan") for end in ends]
    high = [scale * end[1] if end[1] is not None else float("nan") for end in ends]
    return low, high


def _limits(panel: _Panel) -> tuple[float, float]:
    """Range of the vertical axis: what was measured. Constants are often far off and would flatten it."""
    rows = [*panel.curve, *(line for line in panel.lines if line.n_seeds)] or panel.lines
    values = [value for row in rows for value in (row.mean, row.ci_low, row.ci_high) if value is not None]
    low, high = panel.scale * min(values), panel.scale * max(values)
    margin = 0.12 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin


def _inside(panel: _Panel) -> list[ResultRow]:
    """Lines within the limits: the others are noted at the edge, and need no place in the legend."""
    low, high = _limits(panel)
    return [line for line in panel.lines if low <= panel.scale * (line.mean or 0) <= high]


def _beyond(panel: _Panel) -> Iterator[tuple[str, bool, int]]:
    """Lines outside the limits: what to note, whether they are above, and the place in the stack of notes."""
    low, high = _limits(panel)
    stacked = {True: 0, False: 0}
    for line in panel.lines:
        value = panel.scale * (line.mean or 0)
        if not low <= value <= high:
            above = value > high
            yield f"{'↑' if above else '↓'} {line.setting} {value:.1f}", above, stacked[above]
            stacked[above] += 1


def _write_picture(panels: Sequence[_Panel], axis_label: str, title: str, path: Path) -> None:
    columns = min(3, len(panels))
    grid_rows = -(-len(panels) // columns)
    figure = _figure(1.8 + 4.0 * columns, 1.4 + 3.2 * grid_rows)
    grid = figure.subplots(grid_rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, panels, axis_label)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    legend = {
        textwrap.fill(label, 40): handle
        for axes in grid
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    style = {"ncols": min(4, columns + 1), "frameon": False, "fontsize": 9}
    figure.legend(list(legend.values()), list(legend), loc="outside lower left", **style)
    shown = textwrap.fill(title, int(9 * figure.get_figwidth()))  # nine bold characters an inch
    figure.suptitle(shown, x=0.01, ha="left", fontsize=12, fontweight="bold")
    write_png(figure, path)


def _draw_panel(axes: Axes, panel: _Panel, panels: Sequence[_Panel], axis_label: str) -> None:
    low, high = _interval(panel.curve, panel.scale)
    means = [panel.scale * (row.mean or 0) for row in panel.curve]
    axes.fill_between(panel.sizes, low, high, color=CURVE_COLOUR, alpha=0.15, linewidth=0)
    axes.vlines(panel.sizes, low, high, color=CURVE_COLOUR, linewidth=1.2)
    name = _curve_name(panels)
    axes.plot(panel.sizes, means, color=CURVE_COLOUR, marker="o", linewidth=2, label=name, zorder=3)
    for line in _inside(panel):
        colour, style = _style(panels, line.setting)
        mean = panel.scale * (line.mean or 0)
        axes.axhline(mean, color=colour, linestyle=style, label=line.setting, linewidth=1.6)
        if line.setting == panel.reference and line.ci_low is not None and line.ci_high is not None:
            axes.axhspan(panel.scale * line.ci_low, panel.scale * line.ci_high, color=colour, alpha=0.12, lw=0)
    for note, above, place in _beyond(panel):
        at = (0.99, 0.99 - 0.06 * place if above else 0.01 + 0.06 * place)
        text = axes.annotate(note, at, xycoords="axes fraction", ha="right", va="top" if above else "bottom")
        text.set(color=NOTE_COLOUR, fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axes.set_xscale("log", base=2)
    axes.set_xticks(panel.sizes, [str(size) for size in panel.sizes])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08)
    axes.set_ylim(*_limits(panel))
    axes.set_xlabel(axis_label)
    axes.set_title(panel.unit, loc="left", fontsize=10)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve_name(panels: Sequence[_Panel]) -> str:
    seeds = sorted({row.n_seeds for panel in panels for row in panel.curve if row.n_seeds})
    if not seeds:
        return "mean"
    if seeds == [1]:
        return "one seed"
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"mean and 95 % interval over {count} seeds"


def _write_page(panels: Sequence[_Panel], axis_label: str, title: str, path: Path) -> None:
    from plotly.graph_objects import Figure as Page
    from plotly.subplots import make_subplots

    page: Page = make_subplots(1, len(panels), horizontal_spacing=0.24 / len(panels))
    for column, panel in enumerate(panels, 1):
        place = {"row": 1, "col": column}
        for trace in (*_page_lines(panel, panels), *_page_curve(panel, panels)):
            trace.showlegend = trace.showlegend is not False and column == 1
            page.add_trace(trace, **place)
        labels = [str(size) for size in panel.sizes]
        page.update_xaxes(type="log", tickvals=panel.sizes, ticktext=labels, title=axis_label, **place)
        page.update_yaxes(title=panel.unit, range=_limits(panel), **place)
        for note, above, stacked in _beyond(panel):
            height = 1 - 0.06 * stacked if above else 0.06 * stacked
            anchor = {"xanchor": "right", "yanchor": "top" if above else "bottom", "showarrow": False}
            place_in_panel = {"x": 1, "y": height, "xref": "x domain", "yref": "y domain", **place}
            page.add_annotation(text=note, font={"color": NOTE_COLOUR}, **anchor, **place_in_panel)
    page.update_layout(title=title, template="plotly_white", font={"size": 14}, height=560)
    page.update_layout(legend={"orientation": "h", "y": -0.2})
    with atomic_path(path) as temporary:
        page.write_html(temporary, include_plotlyjs=True, config=PAGE_SETTINGS)


def _page_lines(panel: _Panel, panels: Sequence[_Panel]) -> Iterator[Scatter]:
    from plotly.graph_objects import Scatter

    ends = [panel.sizes[0] / 1.2, panel.sizes[-1] * 1.2] if panel.sizes else [1, 2]
    for line in _inside(panel):
        colour, style = _style(panels, line.setting)
        mean = panel.scale * (line.mean or 0)
        shared = {"x": ends, "mode": "lines", "name": line.setting, "legendgroup": line.setting}
        low, high = _interval([line], panel.scale)
        if line.setting == panel.reference and np.isfinite(low + high).all():
            corners = {"x": [*ends, *reversed(ends)], "y": [*high * 2, *low * 2], "legendgroup": line.setting}
            filled = {"fill": "toself", "fillcolor": colour, "opacity": 0.12, "line": {"width": 0}}
            yield Scatter(mode="lines", hoverinfo="skip", showlegend=False, **corners, **filled)
        drawn = {"color": colour, "dash": "dot" if style == "dotted" else "dash"}
        yield Scatter(y=[mean, mean], line=drawn, hovertemplate=_hover(line, panel), **shared)


def _page_curve(panel: _Panel, panels: Sequence[_Panel]) -> Iterator[Scatter]:
    from plotly.graph_objects import Scatter

    means = [panel.scale * (row.mean or 0) for row in panel.curve]
    low, high = _interval(panel.curve, panel.scale)
    bars = {
        "type": "data",
        "array": [end - mean for end, mean in zip(high, means, strict=True)],
        "arrayminus": [mean - end for end, mean in zip(low, means, strict=True)],
        "color": CURVE_COLOUR,
    }
    yield Scatter(
        x=panel.sizes,
        y=means,
        error_y=bars,
        mode="lines+markers",
        line={"color": CURVE_COLOUR, "width": 3},
        marker={"size": 9},
        name=_curve_name(panels),
        legendgroup="curve",
        customdata=[_hover(row, panel) for row in panel.curve],
        hovertemplate="%{customdata}",
    )


def _hover(row: ResultRow, panel: _Panel) -> str:
    text = f"{row.setting}<br>{panel.scale * (row.mean or 0):.2f}"
    if row.ci_low is not None and row.ci_high is not None:
        text += f" ({panel.scale * row.ci_low:.2f} to {panel.scale * row.ci_high:.2f})"
    return f"{text}<br>{row.n_seeds} seeds<extra></extra>" if row.n_seeds else f"{text}<extra></extra>"


def _figure(width: float, height: float) -> Figure:
    """A figure of ``width`` x ``height`` inches, apart from matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")


def _head(figure: Figure, title: str) -> None:
    """Write the title over the whole figure, in as many lines as it needs, and make the figure higher by these."""
    if not title:
        return
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, int(width * TITLE_LETTERS_AN_INCH))
    figure.set_size_inches(width, height + 0.18 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=TITLE_POINTS)
