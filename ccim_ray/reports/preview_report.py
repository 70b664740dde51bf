"""What a preview of many heads prints: the best, the spread, and how well it ranks what training end to end gives."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from ccim_ray.end_to_end_results import EndToEnd
from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.printed_table import printed_tables
from ccim_ray.reports.sweep_report import SweepReport
from ccim_ray.reports.tables import ResultRow, Results, in_percent, metric_of
from ccim_ray.space import Space
from ccim_ray.statistics import RankAgreement, rank_agreement
from ccim_ray.storage import atomic_path

SHOWN = 5
"""Best settings that are printed; results.csv has all."""


def preview_report(
    report: SweepReport,
    space: Space,
    results: Results,
    rows: Sequence[ResultRow],
    constants: Sequence[ResultRow],
    end_to_end: Sequence[EndToEnd],
    notes: Sequence[str] = (),
) -> SweepReport:
    """The sweep's report with a table of the best settings only, and remarks on all of them.

    Writes ``ranking.csv`` where settings were also trained end to end.

    Args:
        results: of the preview, setting -> seed -> metric -> value.
        rows, constants: of the sweep's table.
        end_to_end: the same settings trained end to end.
    """
    rows = [row for row in rows if metric_of(row) not in SECONDARY_METRICS]
    varied = [setting for setting, change in space.changes.items() if change.get("deconfounder") == "ccim"]
    best = _best_by_validation({setting: results[setting] for setting in varied if results[setting]})[:SHOWN]
    shown = [row for row in rows if row.setting not in varied or row.setting in best]
    shown += [row for row in constants if row.metric in {row.metric for row in rows}]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    shown = [row for metric in metrics for row in shown if row.metric == metric]
    title = f"{space.question} The best {len(best)} of {len(varied)} by validation"
    remarks = [
        *(_spread([row for row in rows if row.metric == metric and row.setting in varied]) for metric in metrics),
        _between_seeds(results, metrics),
        *_ranking(results, metrics, end_to_end),
    ]
    files = report.files
    if end_to_end:
        files = (*files, report.folder / "ranking.csv")
        _write_pairs(results, metrics, end_to_end, files[-1])
    return replace(report, table=printed_tables(shown, title, notes), remarks=tuple(filter(None, remarks)), files=files)


def _best_by_validation(results: Results) -> list[str]:
    """Settings by their mean validation metric, the best first: the test splits choose nothing."""
    of_val = {
        setting: _mean_of(results, setting, name)
        for setting in results
        for name in ("val/accuracy", "val/mAP")
        if any(name in values for values in results[setting].values())
    }
    return sorted(of_val, key=lambda setting: -of_val[setting])


def _mean_of(results: Results, setting: str, metric: str) -> float:
    return statistics.fmean(values[metric] for values in results[setting].values() if metric in values)


def _spread(rows: Sequence[ResultRow]) -> str:
    """From which setting to which a metric goes, beside what a seed changes."""
    measured = [row for row in rows if row.mean is not None]
    if len(measured) < 2:
        return ""
    low, high = (choose(measured, key=lambda row: row.mean or 0.0) for choose in (min, max))
    spreads = [row.sd for row in measured if row.sd is not None]
    factor, unit = (100, " %") if in_percent(rows, rows[0].metric) else (1, "")
    within = f"{factor * statistics.fmean(spreads):.2f} between the seeds of one" if spreads else "one seed each"
    means = [row.mean or 0.0 for row in measured]
    return (
        f"{rows[0].metric} of {len(measured)} settings: {factor * means[measured.index(low)]:.2f}{unit} "
        f"({low.setting}) to {factor * means[measured.index(high)]:.2f}{unit} ({high.setting}); sd "
        f"{factor * statistics.stdev(means):.2f} between them, {within}"
    )


def _between_seeds(results: Results, metrics: Sequence[str]) -> str:
    """How alike two seeds rank the settings: the preview can rank nothing better than itself."""
    told = []
    for metric in metrics:
        found = []
        for one, other in combinations(sorted({seed for seeds in results.values() for seed in seeds}), 2):
            both = [
                (seeds[one][metric], seeds[other][metric])
                for seeds in results.values()
                if all(metric in seeds.get(seed, {}) for seed in (one, other))
            ]
            agreement = rank_agreement([first for first, _ in both], [second for _, second in both])
            found += [agreement.spearman] if agreement else []
        told += [f"{metric} {statistics.fmean(found):.2f}"] if found else []
    return f"How alike two seeds rank the settings (mean Spearman): {', '.join(told)}" if told else ""


def _ranking(results: Results, metrics: Sequence[str], end_to_end: Sequence[EndToEnd]) -> Iterator[str]:
    if not end_to_end:
        yield (
            "How well this ranks what training end to end gives cannot be said: of these settings none has been "
            "trained end to end on this data. jobs/sweep_dict_size.py --trainable all does it, in the same storage."
        )
    for trained in end_to_end:
        settings = [setting for setting in results if results[setting] and setting in trained.results]
        told = []
        for metric in metrics:
            pairs = [pair[1:] for pair in _pairs(results, metric, trained)]
            agreement = rank_agreement([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
            told.append(f"{metric} {_in_words(agreement)}")
        trials = sum(len(trained.results[setting]) for setting in settings)
        yield (
            f"How well this ranks what training end to end gives ({len(settings)} settings, {trials} trials of "
            f"{trained.title}): {'; '.join(told)}"
        )


def _in_words(agreement: RankAgreement | None) -> str:
    if agreement is None:
        return "too few settings to rank, or all equal"
    has_interval = agreement.ci_low is not None
    interval = f" (95 % CI {agreement.ci_low:.2f} to {agreement.ci_high:.2f})" if has_interval else ""
    return f"Spearman {agreement.spearman:.2f}{interval}, Kendall {agreement.kendall:.2f} (p {agreement.p:.2f})"


def _pairs(results: Results, metric: str, trained: EndToEnd) -> Iterator[tuple[str, float, float]]:
    """Setting, its mean in the preview, its mean end to end."""
    for setting, seeds in results.items():
        theirs = trained.results.get(setting, {})
        if all(any(metric in values for values in of.values()) for of in (seeds, theirs)):
            yield setting, _mean_of(results, setting, metric), _mean_of(trained.results, setting, metric)


def _write_pairs(results: Results, metrics: Sequence[str], end_to_end: Sequence[EndToEnd], path: Path) -> None:
    """Every setting's means over seeds that a ranking rests on."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["end_to_end_training", "setting", "metric", "preview_mean", "end_to_end_mean"])
        for trained in end_to_end:
            for metric in metrics:
                writer.writerows(
                    [trained.title, setting, metric, ours, theirs]
                    for setting, ours, theirs in _pairs(results, metric, trained)
                )
