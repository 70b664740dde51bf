"""The chart of Fig. 2: one bar a scene, as high as its conditional entropy, over what chance alone gives."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccim_ray.context_bias import EmotionBias
from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.figures import CURVE_COLOUR, DOTS_PER_INCH, GRID_COLOUR, LINE_COLOURS, NOTE_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_SCENES = 40
"""Up to here there is room for the name of each scene."""

LEAST_BAR = 0.015
"""Height of the bar of a scene with H = 0, which could not be seen otherwise."""


@dataclass(frozen=True)
class BiasTitle:
    """What stands above the chart: the data, the choices, and from which count on a scene is drawn."""

    data: str
    options: str
    min_count: int


def context_bias_figure(
    found: Mapping[str, EmotionBias], scene_names: Sequence[str], title: BiasTitle, path: Path
) -> None:
    """Draw one panel an emotion: scenes by ascending H, coloured by the set in which they are more frequent.

    Where negatives are sampled the bars are of the first sample. The band is the 95 % interval of the bar of the same
    rank where scenes are dealt to images at random.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    named = max(len(bias.profile.scene_Q) for bias in found.values()) <= NAMED_SCENES
    figure = Figure(
        (4.6 * columns + 0.4, (3.9 if named else 2.9) * rows + 1.2), dpi=DOTS_PER_INCH, layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, bias) in zip(grid, found.items(), strict=False):
        _draw_panel(axes, name, bias, scene_names if named else None, title.min_count)
    for axes in grid[::columns]:
        axes.set_ylabel("normalised conditional entropy H")
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    entries = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower left",
        ncols=2 * columns - 1,
        frameon=False,
        fontsize=9,
    )
    width = 56 * columns
    lines = [textwrap.fill(title.data, width), textwrap.fill(title.options, width)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)
    write_png(figure, path)


def _draw_panel(axes: Axes, name: str, bias: EmotionBias, scene_names: Sequence[str] | None, min_count: int) -> None:
    profile = bias.profile
    place_Q = np.arange(len(profile.scene_Q))
    edges = np.arange(len(place_Q) + 1) - 0.5
    label = "by chance: 95 % interval"
    axes.stairs(
        profile.null_high_Q, edges, baseline=profile.null_low_Q, fill=True, color="#BBBBBB", alpha=0.7, label=label
    )
    label = "by chance: mean"
    axes.stairs(profile.null_mean_Q, edges, baseline=None, color="#555555", linewidth=1.2, linestyle="--", label=label)
    height_Q = np.maximum(profile.entropy_Q, LEAST_BAR)
    tilt_Q = np.sign(profile.positives_Q * bias.negatives_used - profile.negatives_Q * bias.positives)
    for sign, colour, where in (
        (1, LINE_COLOURS[0], "more frequent with the emotion"),
        (-1, CURVE_COLOUR, "more frequent without it"),
        (0, "#777777", "as frequent"),
    ):
        chosen_Q = tilt_Q == sign
        width = 0.8 if scene_names else 1.0
        if chosen_Q.any():
            axes.bar(place_Q[chosen_Q], height_Q[chosen_Q], width, color=colour, alpha=0.8, label=f"scene {where}")
    zeros = int((profile.entropy_Q == 0).sum())
    if zeros:
        axes.axvline(zeros - 0.5, color=NOTE_COLOUR, linewidth=1, linestyle=":")
        # To the left of the line there may be no room, to its right neither.
        side, note = ("right", "H = 0 ← ") if zeros > 0.8 * len(place_Q) else ("left", " ← H = 0")
        axes.text(zeros - 0.5, 1.01, note, color=NOTE_COLOUR, fontsize=8, ha=side)
    axes.set_title(_headline(name, bias, min_count), loc="left", fontsize=9)
    axes.set_ylim(0, 1.08)
    axes.set_xlim(-0.5, max(1, len(place_Q)) - 0.5)
    if scene_names is not None:
        names = [scene_names[number] for number in profile.scene_Q]
        axes.set_xticks(place_Q, names, rotation=90, fontsize=6.5)
    else:
        axes.set_xlabel(f"{len(place_Q)} scenes by ascending H")
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _headline(name: str, bias: EmotionBias, min_count: int) -> str:
    zero = bias.by_min_count[0].zero_fraction
    used = f"{bias.negatives_used}" + (f" of {bias.negatives}" if bias.negatives_used < bias.negatives else "")
    count = f", scenes seen {min_count} times or more" if min_count > 1 else ""
    lines = [f"{name}: N+ {bias.positives}, N- {used}{count}"]
    if zero.value is None or zero.null_low is None or zero.null_high is None:
        return f"{lines[0]}\nno scene takes part"
    spread = "" if zero.sd is None else f" ± {100 * zero.sd:.1f}"
    chance = f"by chance {100 * zero.null_low:.1f} to {100 * zero.null_high:.1f} %"
    return f"{lines[0]}\nH = 0: {100 * zero.value:.1f}{spread} % of scenes; {chance}"
