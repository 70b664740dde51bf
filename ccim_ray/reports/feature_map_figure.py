"""Fig. 7 of the paper: features of test subjects in the plane, coloured by scene and by emotion, model beside model."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.figures import CURVE_COLOUR, DOTS_PER_INCH, LINE_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALUE_COLOURS = (CURVE_COLOUR, *LINE_COLOURS, "#F0E442")
"""Okabe and Ito's eight: as many values have a colour of their own."""

OTHER_COLOUR = "#DADADA"


@dataclass(frozen=True)
class FeatureMap:
    """One column: a model's features in the plane (S, 2), and below which numbers each colouring stands."""

    title: str
    map_S2: npt.NDArray[np.float32]
    numbers: Sequence[str]


@dataclass(frozen=True)
class Colouring:
    """One row: what the points are coloured by, such as "scene", and its value for each subject."""

    name: str
    values: Sequence[str]


def feature_map_figure(maps: Sequence[FeatureMap], colourings: Sequence[Colouring], title: str, path: Path) -> None:
    """Draw every map in every colouring. The most frequent values have a colour, all others are grey.

    Distances between far points of a t-SNE say nothing, and its axes have no unit, so they have no ticks.
    """
    from matplotlib.figure import Figure

    width = 3.5 * len(maps) + 2.1
    figure = Figure((width, 3.7 * len(colourings) + 1.0), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(len(colourings), len(maps), squeeze=False)
    for row, colouring in enumerate(colourings):
        for column, shown in enumerate(maps):
            _draw(grid[row, column], shown, colouring)
            heading = f"{shown.title}\n{shown.numbers[row]}" if row == 0 else shown.numbers[row]
            grid[row, column].set_title(heading, loc="left", fontsize=9.5)
        grid[row, 0].set_ylabel(f"coloured by {colouring.name}", fontsize=10)
        legend = grid[row, -1].legend(
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            fontsize=9,
            title=colouring.name,
            markerscale=2,
        )
        legend.set_alignment("left")
    figure.suptitle(textwrap.fill(title, int(13 * width)), x=0.01, ha="left", fontsize=10)
    write_png(figure, path)


def _draw(axes: Axes, shown: FeatureMap, colouring: Colouring) -> None:
    values = np.array(colouring.values)
    counts = Counter(colouring.values)
    named = sorted(name for name, _ in counts.most_common(len(VALUE_COLOURS)))
    others = ~np.isin(values, named)
    if others.any():
        axes.scatter(
            shown.map_S2[others, 0], shown.map_S2[others, 1], s=7, color=OTHER_COLOUR, linewidths=0, label="_others"
        )
    for name, colour in zip(named, VALUE_COLOURS, strict=False):
        chosen = values == name
        axes.scatter(
            shown.map_S2[chosen, 0], shown.map_S2[chosen, 1], s=12, color=colour, linewidths=0, alpha=0.85, label=name
        )
    if others.any():
        axes.scatter([], [], s=12, color=OTHER_COLOUR, label=f"{len(counts) - len(named)} others")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#BBBBBB")
