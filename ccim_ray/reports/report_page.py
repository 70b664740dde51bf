"""The report as one HTML page that asks the network for nothing.

Everything that comes from MLflow is text of others: Jinja escapes it in the page, ``report_plots`` in the plots, and
the page's own policy lets a browser run the page's own two scripts and no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from ccim_ray.logged_sweeps import LoggedSweep, LoggedTrial
from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.latex import best_means
from ccim_ray.reports.leave_one_out import in_words
from ccim_ray.reports.report_plots import Plot, category_changes, constants_in_words, intervals, learning_curves
from ccim_ray.reports.report_words import (
    HOW_TO_READ,
    badges,
    cells_with_baseline,
    left_out_in_words,
    provenance,
    splits_in_words,
    states,
    subjects_of,
    summary_of,
    title_of,
    verdicts,
)
from ccim_ray.reports.tables import ResultRow, groups_of, in_percent, legend, metric_of, shown_columns
from ccim_ray.tracking import LoggedRun

Histories = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the numbers were read.

    Attributes:
        tracking_uri: as shown, without password.
        mlflow_url: where links to runs go, without a slash at its end.
        mlflow_command: what starts MLflow there; empty where it runs.
        made: when, unix seconds.
    """

    tracking_uri: str
    mlflow_url: str
    mlflow_command: str
    made: float


@dataclass
class _Plots:
    """The plots of a page, by the name that its boxes ask for."""

    by_name: dict[str, Plot] = field(default_factory=dict)

    def add(self, plot: Plot | None) -> str:
        """Name of the plot; empty for none."""
        if plot is None:
            return ""
        name = f"plot-{len(self.by_name)}"
        self.by_name[name] = plot
        return name


def report_page(sweeps: Sequence[LoggedSweep], histories: Histories, source: Source) -> str:
    """The page as HTML.

    Args:
        histories: by run id, epoch -> validation metric; runs without one have no learning curve.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    folder = files("ccim_ray.reports") / "page"
    style, script, template = ((folder / f"report.{end}").read_text("utf-8") for end in ("css", "js", "html.j2"))
    plotly = get_plotlyjs()
    plots = _Plots()
    shown = [
        {**_sweep(sweep, place, histories, source, plots), "subject": subject}
        for place, (sweep, subject) in enumerate(zip(sweeps, subjects_of(sweeps), strict=True))
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=title_of(sweeps),
        summary=summary_of(sweeps),
        made=_when(source.made),
        tracking_uri=source.tracking_uri,
        mlflow_url=source.mlflow_url,
        mlflow_command=source.mlflow_command,
        policy=_policy([plotly, script]),
        sweeps=shown,
        left_out=left_out_in_words(sweeps),
        problems=[problem for sweep in sweeps for problem in _problems(sweep, source)],
        how_to_read=HOW_TO_READ,
        style=Markup(style),
        script=Markup(script),
        plotly=Markup(plotly),
        plots=Markup(_json_in_html(plots.by_name)),
    )


def _policy(scripts: Sequence[str]) -> str:
    """Content-Security-Policy: these scripts, the page's style, no address."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _json_in_html(value: Any) -> str:
    """JSON in which no text can end the element that it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sweep(sweep: LoggedSweep, place: int, histories: Histories, source: Source, plots: _Plots) -> dict[str, Any]:
    compared = any(row.delta is not None for row in sweep.category_rows)
    started = min((run.started for run in sweep.runs if run.started), default=None)
    what = {"AP": "average precision", "recall": "recall"}[sweep.category_metric]
    return {
        "anchor": f"sweep-{place + 1}",
        "question": sweep.question,
        "states": states(sweep),
        "when": _when(started) if started else "",
        "url": run_url(sweep.parent, source) if sweep.parent else "",
        "badges": badges(sweep),
        "notes": sweep.notes,
        "splits": splits_in_words(sweep),
        "verdicts": [(heading, text, "beyond noise" in text) for heading, text in verdicts(sweep)],
        "metrics": [_metric(heading, group, sweep, source, plots) for heading, group in groups_of(sweep.rows)],
        "legend": legend([row for row in sweep.rows if metric_of(row) in SECONDARY_METRICS]),
        "category_title": f"Each category: Δ in {what}, in points" if compared else f"Each category: {what}",
        "category_plot": plots.add(category_changes(sweep)),
        "gains": list(in_words(sweep.gains)),
        "curve_plot": plots.add(learning_curves(sweep, histories)),
        "provenance": provenance(sweep),
        "trial_columns": [
            "trial",
            "state",
            *(f"{split}/{sweep.metric}" for split in sweep.splits),
            "minutes",
            "reason",
        ],
        "trials": [_trial(trial, sweep, source) for trial in sweep.trials],
    }


def _metric(
    heading: str, group: Sequence[ResultRow], sweep: LoggedSweep, source: Source, plots: _Plots
) -> dict[str, Any]:
    names = shown_columns(group)
    best = best_means(group)
    return {
        "heading": heading,
        "secondary": metric_of(group[0]) in SECONDARY_METRICS,
        "columns": names,
        "rows": [_row(row, group, names, best.get(row.baseline), sweep, source) for row in group],
        "plot": plots.add(intervals(group, sweep)),
        "constants": constants_in_words(group),
    }


def _row(
    row: ResultRow,
    group: Sequence[ResultRow],
    names: Sequence[str],
    best: str | None,
    sweep: LoggedSweep,
    source: Source,
) -> dict[str, Any]:
    order: dict[str, float | None] = {
        "n": row.n_seeds,
        "mean ± sd": row.mean,
        "95 % CI": row.ci_low,
        "Δ": row.delta,
        "p": row.p_holm,
        "paper": row.published,
        "paper Δ": row.published_delta,
    }
    shown = []
    constant = row.n_seeds is None
    for name, text in zip(names, cells_with_baseline(row, group, names), strict=True):
        mean, separator, sd = text.partition(" ± ")
        is_best = name == "mean ± sd" and bool(row.n_seeds) and bool(mean) and mean == best
        value = order.get(name)
        cell = {"text": mean if is_best else text, "rest": f"{separator}{sd}", "best": is_best}
        cell |= {"is_reference": name == "Δ" and row.setting == sweep.reference and not constant}
        shown.append(cell | {"sort": "" if value is None else repr(float(value))})
    return {
        "kind": "constant" if constant else "measured",
        "cells": shown,
        "seeds": [] if constant else list(_seeds(row, group, names, sweep, source)),
    }


def _seeds(
    row: ResultRow, group: Sequence[ResultRow], names: Sequence[str], sweep: LoggedSweep, source: Source
) -> Iterator[dict[str, Any]]:
    """A row for each seed: its value, its difference to the reference of the same seed, and its run."""
    percent = in_percent(group, row.metric)
    reference = sweep.results[row.baseline].get(sweep.reference, {})

    def number(value: float | None, sign: str = "") -> str:
        if value is None:
            return ""
        return f"{100 * value:{sign}.2f}" if percent else f"{value:{sign}.4g}"

    for seed, trial in sorted(sweep.done[row.baseline, row.setting].items()):
        value = trial.run.metrics.get(row.metric)
        other = reference.get(seed, {}).get(row.metric) if row.reference_setting else None
        delta = value - other if value is not None and other is not None else None
        texts = {"mean ± sd": number(value), "Δ": number(delta, "+")}
        yield {"seed": seed, "url": run_url(trial.run, source), "cells": [texts.get(name, "") for name in names[1:]]}


def _trial(trial: LoggedTrial, sweep: LoggedSweep, source: Source) -> dict[str, Any]:
    run = trial.run
    values = [run.metrics.get(f"{split}/{sweep.metric}") if trial.state == "done" else None for split in sweep.splits]
    minutes = (run.ended - run.started) / 60 if run.ended and run.started else None
    numbers = [(None if value is None else 100 * value, ".2f") for value in values] + [(minutes, ".1f")]
    shown = [{"text": text, "sort": text} for text in (run.name, trial.state)]
    for value, form in numbers:
        shown.append({"text": "", "sort": ""} if value is None else {"text": f"{value:{form}}", "sort": repr(value)})
    return {"url": run_url(run, source), "cells": [*shown, {"text": trial.reason, "sort": trial.reason}]}


def _problems(sweep: LoggedSweep, source: Source) -> Iterator[dict[str, str]]:
    for trial in sweep.unfinished:
        url = run_url(trial.run, source)
        reason = trial.reason.removeprefix(f"{trial.state}: ")
        yield {"name": trial.run.name, "state": trial.state, "reason": reason, "url": url, "sweep": sweep.question}
    for name in sweep.not_started:
        yield {"name": name, "state": "not started", "reason": "", "url": "", "sweep": sweep.question}


def run_url(run: LoggedRun, source: Source) -> str:
    """The run's page in MLflow."""
    place = f"experiments/{quote(run.experiment_id, safe='')}/runs/{quote(run.run_id, safe='')}"
    return f"{source.mlflow_url}/#/{place}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
