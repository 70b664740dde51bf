"""The table, the files and the chart that a measurement of context bias ends with."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ccim_ray.context_bias import EmotionBias, Estimate, mean_excess_information
from ccim_ray.context_bias_request import BiasRequest
from ccim_ray.reports.context_bias_figure import BiasTitle, context_bias_figure
from ccim_ray.storage import atomic_path, write_json

ESTIMATES = ("zero_fraction", "mean_entropy", "weighted_entropy")
COLUMNS = (
    *("dataset", "splits", "category", "positives", "negatives", "negatives_used", "min_count", "scenes"),
    *(
        f"{name}{end}"
        for name in (*ESTIMATES, "information")
        for end in ("", "_sd", "_null_mean", "_null_low", "_null_high")
    ),
)
"""Columns of context_bias.csv; shares and entropies in bits are from 0 to 1."""

LEGEND = (
    "{options}. N+, N-: with and without the emotion. count: scenes with at least so many of both. H: normalised "
    "conditional entropy of a scene, 0 where it has only positives or only negatives; ±: sd over the samples of the "
    "negatives. I: share of the emotion's entropy that the scene removes. by chance: 95 % interval where scenes are "
    "dealt to the images at random. ≈: within it, no bias can be told from sampling noise."
)


@dataclass(frozen=True)
class BiasReport:
    """Files, the table to print, and the line below it."""

    files: tuple[Path, ...]
    table: Table
    summary: str


def write_context_bias(
    request: BiasRequest, found: Mapping[str, EmotionBias], scene_names: tuple[str, ...]
) -> BiasReport:
    """Write ``context_bias.csv``, ``.json`` and ``.png`` to the request's folder."""
    folder = request.folder
    files = tuple(folder / f"context_bias.{suffix}" for suffix in ("csv", "json", "png"))
    with atomic_path(files[0]) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_csv_rows(request, found))
    write_json(files[1], _values(request, found, scene_names))
    context_bias_figure(found, scene_names, _title(request), files[2])
    return BiasReport(files, _table(request, found), _summary(found))


def describe_options(request: BiasRequest) -> str:
    """Every choice, in words."""
    options = request.options
    negatives = (
        f"negatives sampled to N+, {options.samples} times" if options.negatives == "sampled" else "all negatives"
    )
    ranking = {"union": "positives and negatives used", "positives": "the positives", "all": "all images"}
    return (
        f"{options.weighting} weighting, unit {options.unit}, {negatives}, the {options.scenes} most frequent scenes "
        f"of {ranking[options.ranking]}, {options.permutations} permutations, seed {options.seed}"
    )


def _data(request: BiasRequest) -> str:
    world = request.source.world
    data = f"embedded world like {world.like}, bias {world.bias:g}" if world else request.source.name
    if note := request.source.dataset.note:
        data += f" ({note})"
    scenes = "/".join(request.backbone) if request.scenes == "backbone" else "annotation"
    return f"{data}, {' + '.join(request.splits)}; scenes: {scenes}"


def _title(request: BiasRequest) -> BiasTitle:
    return BiasTitle(f"Context bias of {_data(request)}", describe_options(request), request.options.min_counts[0])


def _csv_rows(request: BiasRequest, found: Mapping[str, EmotionBias]) -> Iterator[dict[str, Any]]:
    for name, bias in found.items():
        for part in bias.by_min_count:
            row: dict[str, Any] = {
                "dataset": request.source.name,
                "splits": " ".join(request.splits),
                "category": name,
                "positives": bias.positives,
                "negatives": bias.negatives,
                "negatives_used": bias.negatives_used,
                "min_count": part.min_count,
                "scenes": part.scenes,
            }
            for key in ESTIMATES:
                row |= _columns(key, getattr(part, key))
            yield row | _columns("information", bias.information)


def _columns(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {
        name: estimate.value,
        f"{name}_sd": estimate.sd,
        f"{name}_null_mean": estimate.null_mean,
        f"{name}_null_low": estimate.null_low,
        f"{name}_null_high": estimate.null_high,
    }


def _values(request: BiasRequest, found: Mapping[str, EmotionBias], scene_names: tuple[str, ...]) -> dict[str, Any]:
    world = request.source.world
    emotions = {}
    for name, bias in found.items():
        values = asdict(bias)
        profile = values.pop("profile")
        values["first_sample"] = {
            "scene": [scene_names[number] for number in profile.pop("scene_Q")],
            **{key.removesuffix("_Q"): _plain(array) for key, array in profile.items()},
        }
        emotions[name] = values
    return {
        "dataset": request.source.name,
        "data_fingerprint": request.source.fingerprint,
        "note": request.source.dataset.note,
        "world": world.model_dump(mode="json") if world else None,
        "splits": request.splits,
        "scenes": "/".join(request.backbone) if request.scenes == "backbone" else "annotation",
        "options": asdict(request.options),
        "mean_excess_information": mean_excess_information(found.values()),
        "emotions": emotions,
    }


def _plain(array: np.ndarray[Any, Any]) -> list[Any]:
    """NaN, which JSON does not have, becomes null."""
    return [None if value != value else value for value in array.tolist()]


def _table(request: BiasRequest, found: Mapping[str, EmotionBias]) -> Table:
    table = Table(title=f"Context bias (Fig. 2): {_data(request)}", box=SIMPLE, title_justify="left")
    table.add_column("category", no_wrap=True)
    for heading in ("N+ / N-", "count", "scenes", "H=0 (%)", "by chance", "mean H", "by chance", "I (%)", "by chance"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, bias in found.items():
        for part in bias.by_min_count:
            first = part is bias.by_min_count[0]
            table.add_row(
                *((name, f"{bias.positives} / {bias.negatives}") if first else ("", "")),
                f"≥ {part.min_count}",
                f"{part.scenes:.4g}",
                *_cells(part.zero_fraction, 100, 1, spread=True),
                *_cells(part.mean_entropy, 1, 2),
                *(_cells(bias.information, 100, 1) if first else ("", "")),
            )
        table.add_section()
    # A fixed width, so that a console that takes itself to be narrow, such as a log, cuts no number short.
    console = Console(width=200)
    table.width = Measurement.get(console, console.options, table).maximum
    table.caption = textwrap.fill(LEGEND.format(options=describe_options(request)), table.width)
    table.caption_justify = "left"
    return table


def _cells(estimate: Estimate, scale: float, digits: int, spread: bool = False) -> tuple[str, str]:
    """The value, with its sd where there is one and it is asked for, and the interval that chance gives."""
    low, high = estimate.null_low, estimate.null_high
    if estimate.value is None or low is None or high is None:
        return "", ""
    sd = f" ± {scale * estimate.sd:.{digits}f}" if spread and estimate.sd is not None else ""
    mark = " ≈" if low <= estimate.value <= high else "  "
    return f"{scale * estimate.value:.{digits}f}{sd}{mark}", f"{scale * low:.{digits}f}-{scale * high:.{digits}f}"


def _summary(found: Mapping[str, EmotionBias]) -> str:
    return (
        f"Beyond chance, the scene tells {100 * mean_excess_information(found.values()):.1f} % of an emotion's entropy "
        f"(mean over {', '.join(found)})"
    )
