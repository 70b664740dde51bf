"""Figures of a hyper-parameter search: how it went, and which parameters mattered. Pictures, and pages of their own."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ccim_ray.hyperparameters import in_words
from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.figures import CURVE_COLOUR, DOTS_PER_INCH, GRID_COLOUR, LINE_COLOURS, PAGE_SETTINGS
from ccim_ray.storage import atomic_path
from ccim_ray.study import Attempt, AttemptState

_KINDS: dict[AttemptState, tuple[str, str, str, str]] = {
    "done": ("trained in full", CURVE_COLOUR, "o", "circle"),
    "stopped": ("stopped early", LINE_COLOURS[3], "v", "triangle-down"),
    "diverged": ("diverged", LINE_COLOURS[0], "X", "x"),
}
"""State of a trial -> its name, colour, and marker in pictures and pages."""


def draw_history(attempts: Sequence[Attempt], title: str, metric: str, png: Path, html: Path) -> None:
    """Draw every trial's best validation metric (in %) by number, and the best of those trained in full so far."""
    numbers, best = _best_so_far(attempts)
    _history_picture(attempts, numbers, best, title, metric, png)
    _history_page(attempts, numbers, best, title, metric, html)


def draw_importances(shares: Mapping[str, float], title: str, png: Path, html: Path) -> None:
    """Draw each parameter's share, a fraction, as a bar, the largest on top."""
    from matplotlib.figure import Figure
    from plotly.graph_objects import Bar
    from plotly.graph_objects import Figure as Page

    ordered = sorted(shares.items(), key=lambda item: item[1])
    names, percent = [name for name, _ in ordered], [100 * share for _, share in ordered]
    figure = Figure((7.2, 1.3 + 0.35 * len(names)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.barh(names, percent, height=0.6, color=CURVE_COLOUR)
    for place, value in enumerate(percent):
        axes.annotate(f"{value:.0f}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xlabel("importance (%)")
    axes.set_title(textwrap.fill(title, 80), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, png)
    page = Page(Bar(x=percent, y=names, orientation="h", marker_color=CURVE_COLOUR, texttemplate="%{x:.0f}"))
    page.update_layout(title=title, template="plotly_white", font={"size": 14}, xaxis_title="importance (%)")
    with atomic_path(html) as temporary:
        page.write_html(temporary, include_plotlyjs=True, config=PAGE_SETTINGS)


def _best_so_far(attempts: Sequence[Attempt]) -> tuple[list[int], list[float]]:
    """Corners of the line: trials that are done with the best value until then, and the last trial."""
    done = _points(attempts, "done")
    numbers = [attempt.number for attempt in done]
    best = [float(value) for value in np.maximum.accumulate([100 * (attempt.value or 0) for attempt in done])]
    return [*numbers, attempts[-1].number], [*best, best[-1]] if best else []


def _points(attempts: Sequence[Attempt], state: AttemptState) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.state == state and attempt.value is not None]


def _history_picture(
    attempts: Sequence[Attempt], numbers: list[int], best: list[float], title: str, metric: str, path: Path
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure((8, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    if best:
        axes.step(numbers, best, where="post", color=LINE_COLOURS[1], linewidth=1.8, label="best so far")
    for state, (name, colour, marker, _) in _KINDS.items():
        points = _points(attempts, state)
        if points:
            values = [100 * (point.value or 0) for point in points]
            axes.scatter([point.number for point in points], values, c=colour, marker=marker, label=name, zorder=3)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"best {metric} (%)")
    axes.set_title(textwrap.fill(title, 80), loc="left", fontsize=10)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    write_png(figure, path)


def _history_page(
    attempts: Sequence[Attempt], numbers: list[int], best: list[float], title: str, metric: str, path: Path
) -> None:
    from plotly.graph_objects import Figure as Page
    from plotly.graph_objects import Scatter

    page = Page()
    if best:
        line = {"shape": "hv", "color": LINE_COLOURS[1]}
        page.add_trace(Scatter(x=numbers, y=best, mode="lines", line=line, name="best so far", hoverinfo="skip"))
    for state, (name, colour, _, symbol) in _KINDS.items():
        points = _points(attempts, state)
        if points:
            page.add_trace(
                Scatter(
                    x=[point.number for point in points],
                    y=[100 * (point.value or 0) for point in points],
                    mode="markers",
                    marker={"color": colour, "symbol": symbol, "size": 10},
                    name=name,
                    customdata=[in_words(point.values).replace(", ", "<br>") for point in points],
                    hovertemplate="trial %{x}: %{y:.2f}<br>%{customdata}<extra></extra>",
                )
            )
    page.update_layout(title=title, template="plotly_white", font={"size": 14}, height=560)
    page.update_layout(xaxis_title="trial", yaxis_title=f"best {metric} (%)", legend={"orientation": "h", "y": -0.2})
    with atomic_path(path) as temporary:
        page.write_html(temporary, include_plotlyjs=True, config=PAGE_SETTINGS)
