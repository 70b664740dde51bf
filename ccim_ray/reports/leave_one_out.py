"""How much of a gain in mAP is one category's: the gain without each single category."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ccim_ray.reports.tables import TABLE_WIDTH, Results
from ccim_ray.statistics import paired_delta
from ccim_ray.storage import atomic_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A setting's gain in mAP over its reference, as a fraction; None is what is not known.

    Attributes:
        metric: such as "test/mAP".
        left_out: the category without which the mAP is taken; "" for none.
        n_seeds: seeds that the setting and its reference share.
        delta: mean over them of the paired difference.
        delta_ci_low, delta_ci_high: its 95 % t interval.
        published_delta: the same difference of the paper's numbers.
    """

    dataset: str
    baseline: str
    setting: str
    reference_setting: str
    metric: str
    left_out: str
    n_seeds: int
    delta: float
    delta_ci_low: float | None
    delta_ci_high: float | None
    published_delta: float | None


def leave_one_out(
    dataset: str,
    baseline: str,
    results: Results,
    split: str,
    categories: Sequence[str],
    reference: str,
    published: Mapping[tuple[str, str], float],
) -> list[Gain]:
    """For every setting but the reference: its gain with all categories, then without each one.

    Args:
        dataset, baseline: named in every row.
        results: holds "<split>/AP/<category>"; a category that any of the shared seeds lacks does not count.
        published: the paper's value, a fraction, for (setting, metric).

    A setting that shares no seed with the reference, or has fewer than two categories, has no rows.
    """
    gains = []
    for setting, seeds in results.items():
        shared = sorted(set(seeds) & set(results.get(reference, {})))
        if setting == reference or not shared:
            continue
        measured = [of_seed for seed in shared for of_seed in (seeds[seed], results[reference][seed])]
        counted = [name for name in categories if _have(measured, f"{split}/AP/{name}")]
        for left_out in ("", *counted) if len(counted) > 1 else ():
            kept = [f"{split}/AP/{name}" for name in counted if name != left_out]
            values, of_reference = (
                [float(np.mean([of_setting[seed][metric] for metric in kept])) for seed in shared]
                for of_setting in (seeds, results[reference])
            )
            delta = paired_delta(values, of_reference)
            gain = Gain(
                dataset=dataset,
                baseline=baseline,
                setting=setting,
                reference_setting=reference,
                metric=f"{split}/mAP",
                left_out=left_out,
                n_seeds=len(shared),
                delta=delta.delta,
                delta_ci_low=delta.ci_low,
                delta_ci_high=delta.ci_high,
                published_delta=_published_gain(published, setting, reference, kept),
            )
            gains.append(gain)
    return gains


def write_gains(gains: Sequence[Gain], path: Path) -> None:
    """One line a row, fractions in full precision; empty where nothing is known."""
    names = [field.name for field in fields(Gain)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for gain in gains:
            writer.writerow(["" if (value := getattr(gain, name)) is None else value for name in names])


def in_words(gains: Sequence[Gain]) -> Iterator[str]:
    """A paragraph for each baseline and metric: every setting's gain without the category that carries most of it."""
    groups: dict[tuple[str, str, str], dict[str, list[Gain]]] = {}
    for gain in gains:
        key = (gain.baseline, gain.metric, gain.reference_setting)
        groups.setdefault(key, {}).setdefault(gain.setting, []).append(gain)
    for (baseline, metric, reference), settings in groups.items():
        said = [f"{setting} {_of_setting(of_setting)}" for setting, of_setting in settings.items()]
        text = f"{baseline}, {metric}: gain over {reference} without the category that carries most of it: "
        yield textwrap.fill(text + "; ".join(said), TABLE_WIDTH, subsequent_indent="  ")


def _of_setting(gains: Sequence[Gain]) -> str:
    """Ours and, where there is one, the paper's, whose category may be another."""
    whole, *others = gains
    least = min(others, key=lambda gain: gain.delta)
    text = f"{_points(least.delta)} without {least.left_out} (with it {_points(whole.delta)}"
    printed = [(gain.published_delta, gain.left_out) for gain in others if gain.published_delta is not None]
    if printed and whole.published_delta is not None:
        value, left_out = min(printed)
        text += f"; paper {_points(value)} without {left_out}, with it {_points(whole.published_delta)}"
    return text + ")"


def _points(delta: float) -> str:
    return f"{100 * delta:+.2f}"


def _have(measured: Sequence[Mapping[str, float]], metric: str) -> bool:
    return all(math.isfinite(of_seed.get(metric, math.nan)) for of_seed in measured)


def _published_gain(
    published: Mapping[tuple[str, str], float], setting: str, reference: str, metrics: Sequence[str]
) -> float | None:
    pairs = [(published.get((setting, metric)), published.get((reference, metric))) for metric in metrics]
    differences = [of_setting - other for of_setting, other in pairs if of_setting is not None and other is not None]
    return float(np.mean(differences)) if len(differences) == len(metrics) else None
