"""Fig. 8 of the paper: pictures that one model gets wrong and the other right, in both directions, drawn at random."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccim_ray.datasets.images import UnreadableImage, read_rgb
from ccim_ray.datasets.subject import Box
from ccim_ray.errors import RequestError
from ccim_ray.reports.chart_files import write_png
from ccim_ray.reports.figures import DOTS_PER_INCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

COLUMNS = 6
TOP_OF_ONE, TOP_OF_SEVERAL = 3, 5
"""Most probable categories shown of a model where subjects have one label, and where they may have several."""
PICTURE_SIDE = 480
"""Longest side in pixels at which a picture is drawn."""

BOX_COLOUR = "#E69F00"
MODEL_COLOURS = ("#8C8C8C", "#0072B2")

# Inches.
_PICTURE, _GAP, _BAR, _LINE, _HEADING, _TITLE, _LEGEND = 2.1, 0.09, 0.19, 0.15, 0.3, 0.5, 0.35
_EXTRA_LINES = 2
"""Lines of a caption beyond two, where a subject may have several labels."""
_LETTERS = 27


@dataclass(frozen=True)
class Case:
    """One subject: its picture and box, its categories, what is known of its context, and both models' probabilities.

    Attributes:
        probabilities: of every category, a row a model, (2, K).
    """

    image: Path
    box: Box
    truth: tuple[str, ...]
    context: str
    probabilities: npt.NDArray[np.float32]


def cases_figure(
    sections: Mapping[str, Sequence[Case]],
    models: tuple[str, str],
    categories: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw every case: the picture with the subject's box, the truth, and the most probable categories of both models.

    Args:
        sections: by what stands above them, such as "vanilla wrong, CCIM right: 6 of 31 drawn at random".
        models: names of the two, in the order of the probabilities.

    Raises RequestError where a picture cannot be read, ValueError where there is no case.
    """
    from matplotlib.figure import Figure

    if not any(sections.values()):
        raise ValueError(f"no case to draw for {title}")
    several_labels = any(len(case.truth) > 1 for cases in sections.values() for case in cases)
    shown = min(TOP_OF_SEVERAL if several_labels else TOP_OF_ONE, len(categories))
    columns = min(COLUMNS, max(map(len, sections.values())))
    answers = _BAR * (2 * shown + 1)
    caption = _LINE * (2 + (_EXTRA_LINES if several_labels else 0)) + _GAP
    tile_height = caption + _PICTURE + _GAP + answers + 2 * _GAP
    rows = sum(-(-len(cases) // columns) for cases in sections.values())
    width = max(9.0, columns * (_PICTURE + 2 * _GAP) + 2 * _GAP)
    height = _TITLE + len(sections) * _HEADING + rows * tile_height + _LEGEND
    # Places are computed, so that pictures have one size whatever stands above them.
    figure = Figure((width, height), dpi=DOTS_PER_INCH)

    def axes_at(left: float, top: float, axes_height: float) -> Axes:
        bottom = height - top - axes_height
        axes = figure.add_axes((left / width, bottom / height, _PICTURE / width, axes_height / height))
        axes.set_axis_off()
        return axes

    def write(text: str, top: float, **style: Any) -> None:
        figure.text(2 * _GAP / width, 1 - top / height, text, va="top", ha="left", **style)

    write(textwrap.fill(title, int(13 * width)), _GAP, fontsize=10)
    top = _TITLE
    for heading, cases in sections.items():
        write(heading, top, fontsize=11, fontweight="bold")
        top += _HEADING
        for place, case in enumerate(cases):
            row, column = divmod(place, columns)
            left, above = 2 * _GAP + column * (_PICTURE + 2 * _GAP), top + row * tile_height + caption
            _draw_picture(axes_at(left, above, _PICTURE), case)
            _draw_answers(axes_at(left, above + _PICTURE + _GAP, answers), case, categories, shown)
        top += -(-len(cases) // columns) * tile_height
    figure.legend(handles=_legend(models), loc="lower left", ncols=4, frameon=False, fontsize=10)
    write_png(figure, path)


def _legend(models: tuple[str, str]) -> list[Patch]:
    from matplotlib.patches import Patch

    return [
        *(Patch(color=colour, alpha=0.55, label=name) for name, colour in zip(models, MODEL_COLOURS, strict=True)),
        Patch(facecolor="none", edgecolor=BOX_COLOUR, linewidth=2, label="the subject"),
        Patch(color="none", label="✓ is a category of the subject"),
    ]


def _draw_picture(axes: Axes, case: Case) -> None:
    from matplotlib.patches import Rectangle

    try:
        picture = Image.fromarray(read_rgb(case.image))
    except UnreadableImage as error:
        raise RequestError(f"{error}; put the picture back where it was when the models were trained") from error
    scale = min(1.0, PICTURE_SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    axes.imshow(np.asarray(picture.resize(size, Image.Resampling.BILINEAR)), extent=(0, size[0], size[1], 0))
    x1, y1, x2, y2 = (scale * value for value in case.box)
    # A dark rim keeps the line visible on a picture of its own colour.
    for colour, line in (("#000000", 3.6), (BOX_COLOUR, 2.0)):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line))
    truth = textwrap.fill(f"truth: {', '.join(case.truth)}", _LETTERS, max_lines=1 + _EXTRA_LINES, placeholder=" ...")
    context = textwrap.shorten(case.context, _LETTERS, placeholder="...")
    axes.set_title(f"{truth}\n{context}" if context else truth, loc="left", fontsize=9)


def _draw_answers(axes: Axes, case: Case, categories: Sequence[str], shown: int) -> None:
    """The ``shown`` most probable categories of both models, below each other."""
    for model, (probabilities_K, colour) in enumerate(zip(case.probabilities, MODEL_COLOURS, strict=True)):
        top = np.argsort(-probabilities_K, kind="stable")[:shown]
        for rank, category in enumerate(top):
            place = model * (shown + 0.5) + rank
            probability = float(probabilities_K[category])
            axes.barh(place, 1.0, height=0.86, color="#F3F3F3")
            axes.barh(place, probability, height=0.86, color=colour, alpha=0.55)
            is_true = categories[category] in case.truth
            name = f"✓ {categories[category]}" if is_true else categories[category]
            weight = "bold" if is_true else "normal"
            axes.text(0.03, place, name, va="center", ha="left", fontsize=8.5, fontweight=weight, color="#111111")
            axes.text(0.98, place, f"{100 * probability:.0f} %", va="center", ha="right", fontsize=8.5, color="#111111")
    axes.set_xlim(0, 1)
    axes.set_ylim(2 * shown + 0.5, -0.5)
