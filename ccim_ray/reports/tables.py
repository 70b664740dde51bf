"""Result tables: what was measured over seeds, what it is compared with, and what the paper printed.

Rows hold fractions where a metric is one; people read percent. A number that was not measured is empty.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ccim_ray.metrics import MIN_GROUP_SUBJECTS
from ccim_ray.statistics import PairedDelta, bootstrap_ci, holm, paired_delta, summarise
from ccim_ray.storage import atomic_path

COLUMNS = (
    "dataset",
    "baseline",
    "setting",
    "metric",
    "n_seeds",
    "mean",
    "sd",
    "ci_low",
    "ci_high",
    "reference_setting",
    "delta",
    "p_holm",
    "published",
    "published_delta",
)
"""Columns of results.csv."""

SIGNIFICANCE_LEVEL = 0.05
BOOTSTRAP_SEEDS = 5
"""Fewest seeds whose mean gets a bootstrap interval: of three values there are ten resamples."""
TABLE_WIDTH = 100
OF_NO_BASELINE = "for comparison"
"""Heading of constants, such as chance, in a table of several baselines."""

T_INTERVAL = "95 % CI"
BOOTSTRAP_INTERVAL = "bootstrap 95 % CI"

_MEANINGS = {
    "mAP_11_point": "AP as the mean of the best precision at 11 recalls; its chance is simulated",
    "mAP_agent": "over agents, each scored by the mean probability of its frames; its chance is that of all orders",
    "worst_group": f"within the worst scene or context cluster of {MIN_GROUP_SUBJECTS} subjects or more",
    "flip_rate": "share of subjects whose most probable category another scene changes; lower is better",
    "scene_tv": "how far another scene moves the probabilities (mean total variation); lower is better",
}

Results = Mapping[str, Mapping[int, Mapping[str, float]]]
"""setting -> seed -> metric -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One metric of one setting. None is what was not measured or is not defined.

    Attributes:
        n_seeds: seeds that the mean is over; None for a constant, such as chance.
        sd: standard deviation (ddof=1).
        ci_low, ci_high: 95 % t interval of the mean.
        bootstrap_low, bootstrap_high: its 95 % bootstrap interval, from BOOTSTRAP_SEEDS seeds on.
        delta: mean paired difference to ``reference_setting`` over the seeds that both have.
        delta_ci_low, delta_ci_high: its 95 % t interval.
        p: its paired t test.
        p_holm: the same, corrected over all comparisons of one metric (``with_corrected_p``).
        published: the paper's value, as a fraction.
        published_delta: the paper's value less its value for ``reference_setting``.
    """

    dataset: str
    baseline: str
    setting: str
    metric: str
    n_seeds: int | None = None
    mean: float | None = None
    sd: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    reference_setting: str | None = None
    delta: float | None = None
    delta_ci_low: float | None = None
    delta_ci_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    published: float | None = None
    published_delta: float | None = None

    @property
    def mark(self) -> str:
        """Reads "≈" where Δ cannot be told from noise, "?" where there is nothing to test that with."""
        if self.delta is None:
            return ""
        if self.delta_ci_low is not None and self.delta_ci_high is not None:
            if self.delta_ci_low <= 0 <= self.delta_ci_high:
                return "≈"
            if self.p_holm is not None:
                return "≈" if self.p_holm >= SIGNIFICANCE_LEVEL else ""
        return "?"


def build_rows(
    dataset: str,
    baseline: str,
    results: Results,
    metrics: Sequence[str],
    reference_setting: str,
    published: Mapping[tuple[str, str], float],
) -> list[ResultRow]:
    """One row per metric and setting, metric by metric, settings in the order of ``results``.

    Args:
        dataset, baseline: named in every row.
        results: what was measured; a value that is missing or not finite counts as not measured.
        metrics: the metrics to show.
        reference_setting: what deltas are taken from; its own row has none. Empty for no deltas.
        published: the paper's value, a fraction, for (setting, metric) where it has one.
    """
    rows: list[ResultRow] = []
    for metric in metrics:
        measured = {setting: _finite_values(seeds, metric) for setting, seeds in results.items()}
        reference = measured.get(reference_setting, {})
        deltas = {
            setting: _paired(values, reference)
            for setting, values in measured.items()
            if reference_setting and setting != reference_setting
        }
        for setting, values in measured.items():
            summary = summarise(list(values.values())) if values else None
            delta = deltas.get(setting)
            enough = len(values) >= BOOTSTRAP_SEEDS
            resampled = bootstrap_ci(list(values.values())) if enough else None
            row = ResultRow(
                dataset=dataset,
                baseline=baseline,
                setting=setting,
                metric=metric,
                n_seeds=len(values),
                mean=summary.mean if summary else None,
                sd=summary.sd if summary else None,
                ci_low=summary.ci_low if summary else None,
                ci_high=summary.ci_high if summary else None,
                bootstrap_low=resampled[0] if resampled else None,
                bootstrap_high=resampled[1] if resampled else None,
                reference_setting=reference_setting if setting in deltas else None,
                delta=delta.delta if delta else None,
                delta_ci_low=delta.ci_low if delta else None,
                delta_ci_high=delta.ci_high if delta else None,
                p=delta.p if delta else None,
                published=published.get((setting, metric)),
                published_delta=_published_delta(published, setting, reference_setting, metric),
            )
            rows.append(row)
    return with_corrected_p(rows)


def with_corrected_p(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows with Holm's correction over all comparisons of one metric, whatever their baseline."""
    corrected: dict[int, float | None] = {}
    for metric in dict.fromkeys(row.metric for row in rows):
        places = [place for place, row in enumerate(rows) if row.metric == metric and row.delta is not None]
        compared = sum(rows[place].delta_ci_low is not None for place in places)
        corrected |= zip(places, holm([rows[place].p for place in places], family=compared), strict=True)
    return [replace(row, p_holm=corrected.get(place)) for place, row in enumerate(rows)]


def constant_row(dataset: str, baseline: str, setting: str, metric: str, value: float) -> ResultRow:
    """A number that no seed changes, such as chance or the best that the known world allows."""
    return ResultRow(dataset=dataset, baseline=baseline, setting=setting, metric=metric, mean=value)


def write_csv(rows: Iterable[ResultRow], path: Path) -> None:
    """The columns of COLUMNS, fractions in full precision; empty where nothing was measured."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(["" if (value := getattr(row, name)) is None else value for name in COLUMNS])


def with_notes(title: str, notes: Sequence[str]) -> str:
    """A title of results with what must be known of them, so that no number is shown without it."""
    return f"{title} ({'; '.join(notes)})" if notes else title


def legend(rows: Sequence[ResultRow]) -> str:
    """What the columns and marks of a table mean."""
    spread = "n: seeds of training, on one draw of the data; sd and intervals are over them."
    spread += "".join(
        f" {name}: {text}." for name, text in _MEANINGS.items() if any(metric_of(row) == name for row in rows)
    )
    if all(row.reference_setting is None for row in rows):
        return spread
    return (
        f"{spread} Δ: mean difference to {reference_of(rows)}{_of_the_same(rows)}, paired by seed. p: its paired t "
        "test, with Holm's correction over the comparisons of one metric. ≈: no difference can be told from noise "
        "(the 95 % interval of Δ holds 0, or p ≥ 0.05). ?: too few seeds, or all differences equal: nothing to test "
        "with."
    )


def _of_the_same(rows: Sequence[ResultRow]) -> str:
    return " of the same baseline" if len({row.baseline for row in rows if row.baseline}) > 1 else ""


def in_percent(rows: Iterable[ResultRow], metric: str) -> bool:
    """Whether ``metric`` is a share, to be read in percent: no loss, and every value lies in [0, 1]."""
    values = [value for row in rows if row.metric == metric for value in (row.mean, row.published)]
    return "loss" not in metric and all(0 <= value <= 1 for value in values if value is not None)


def _finite_values(seeds: Mapping[int, Mapping[str, float]], metric: str) -> dict[int, float]:
    found = {seed: seeds[seed][metric] for seed in sorted(seeds) if metric in seeds[seed]}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def _paired(values: Mapping[int, float], reference: Mapping[int, float]) -> PairedDelta | None:
    shared = [seed for seed in values if seed in reference]
    if not shared:
        return None
    return paired_delta([values[seed] for seed in shared], [reference[seed] for seed in shared])


def _published_delta(
    published: Mapping[tuple[str, str], float], setting: str, reference_setting: str, metric: str
) -> float | None:
    value, reference = published.get((setting, metric)), published.get((reference_setting, metric))
    if value is None or reference is None or setting == reference_setting:
        return None
    return value - reference


def reference_of(rows: Iterable[ResultRow]) -> str:
    """The settings that deltas are taken from."""
    return " or ".join(dict.fromkeys(row.reference_setting for row in rows if row.reference_setting))


def subject_of(rows: Iterable[ResultRow]) -> str:
    """What all rows are about, such as "EMOT-Net on emotic"."""
    rows = list(rows)
    named = [
        ", ".join(filter(None, dict.fromkeys(getattr(row, name) for row in rows))) for name in ("baseline", "dataset")
    ]
    return " on ".join(named)


def groups_of(rows: Sequence[ResultRow]) -> Iterator[tuple[str, list[ResultRow]]]:
    """Rows of one dataset and metric, under a heading that leaves out a dataset that all rows share."""
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.metric), []).append(row)
    for (dataset, metric), group in groups.items():
        yield metric if len({row.dataset for row in rows}) == 1 else f"{dataset}, {metric}", group


def blocks_of(group: Sequence[ResultRow]) -> Iterator[tuple[str, list[ResultRow]]]:
    """A group's rows by baseline, each block under its heading, rows of none last; a single baseline has no heading."""
    blocks: dict[str, list[ResultRow]] = {}
    for row in group:
        blocks.setdefault(row.baseline, []).append(row)
    several = len([baseline for baseline in blocks if baseline]) > 1
    for baseline in sorted(blocks, key=lambda name: not name):
        yield (baseline or OF_NO_BASELINE) if several else "", blocks[baseline]


def shown_columns(rows: Iterable[ResultRow]) -> list[str]:
    """The columns that have something to show."""
    rows = list(rows)
    names = ["setting", "n", "mean ± sd", T_INTERVAL]
    if any(row.reference_setting is not None for row in rows):
        names += ["Δ", "p"]
    if any(row.published is not None for row in rows):
        names += ["paper", "paper Δ"]
    return names


def cells(row: ResultRow, group: Sequence[ResultRow], names: Sequence[str]) -> list[str]:
    """The row of a metric's ``group`` as text, one cell a column of ``names``."""
    percent = in_percent(group, row.metric)

    def number(value: float | None, signed: bool = False) -> str:
        if value is None:
            return ""
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.2f}" if percent else f"{value:{sign}.4g}"

    low, high, sd = number(row.ci_low), number(row.ci_high), number(row.sd)
    resampled_low, resampled_high = number(row.bootstrap_low), number(row.bootstrap_high)
    texts = {
        "setting": row.setting,
        "n": "" if row.n_seeds is None else str(row.n_seeds),
        "mean ± sd": number(row.mean) + (f" ± {sd}" if sd else ""),
        T_INTERVAL: f"{low} to {high}" if low else "",
        BOOTSTRAP_INTERVAL: f"{resampled_low} to {resampled_high}" if resampled_low else "",
        "Δ": f"{number(row.delta, signed=True)} {row.mark}".strip(),
        "p": _p_value(row.p_holm),
        "paper": number(row.published),
        "paper Δ": number(row.published_delta, signed=True),
    }
    return [texts[name] for name in names]


def metric_of(row: ResultRow) -> str:
    """The row's metric without its split."""
    return row.metric.rpartition("/")[2]


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
