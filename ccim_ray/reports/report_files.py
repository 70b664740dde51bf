"""The report's files: the page, and the same numbers as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ccim_ray.logged_sweeps import LoggedSweep
from ccim_ray.reports.latex import latex_table
from ccim_ray.reports.leave_one_out import in_words
from ccim_ray.reports.markdown import escape_markdown, markdown_tables, notes_in_markdown
from ccim_ray.reports.report_page import Histories, Source, report_page, run_url
from ccim_ray.reports.report_words import (
    provenance,
    splits_in_words,
    states,
    subjects_of,
    summary_of,
    title_of,
    verdicts,
)
from ccim_ray.reports.tables import legend
from ccim_ray.storage import atomic_path


def write_report(folder: Path, sweeps: Sequence[LoggedSweep], histories: Histories, source: Source) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``report.tex``; returns them. RequestError where it cannot be written.

    Args:
        histories: as for ``report_page``.
    """
    texts = {
        "report.html": report_page(sweeps, histories, source),
        "report.md": "\n\n".join(_markdown(sweeps, source)) + "\n",
        "report.tex": "\n\n".join(_latex(sweeps)) + "\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _markdown(sweeps: Sequence[LoggedSweep], source: Source) -> Iterator[str]:
    yield f"# {escape_markdown(title_of(sweeps))}"
    yield f"{summary_of(sweeps)} Read from MLflow at {escape_markdown(source.tracking_uri)}."
    for sweep, subject in zip(sweeps, subjects_of(sweeps), strict=True):
        yield f"## {escape_markdown(sweep.question)}"
        yield escape_markdown(f"{subject}: {states(sweep)}.")
        yield from notes_in_markdown(sweep.notes)
        yield "\n".join(escape_markdown(f"- {heading}: {text}") for heading, text in verdicts(sweep))
        if explained := splits_in_words(sweep):
            yield "; ".join(f"{split}: {text}" for split, text in explained) + "."
        yield from markdown_tables(sweep.rows, "###")
        yield from (escape_markdown(text) for text in in_words(sweep.gains))
        if sweep.rows:
            yield escape_markdown(legend(sweep.rows))
        yield from _left_out(sweep, source)
        yield "\n".join(escape_markdown(f"- {name}: {value}") for name, value in provenance(sweep))
        if sweep.category_rows:
            yield "### Each category"
            yield from markdown_tables(sweep.category_rows, "####")


def _left_out(sweep: LoggedSweep, source: Source) -> Iterator[str]:
    links = [
        (trial, f"[{escape_markdown(trial.run.name)}]({run_url(trial.run, source)})") for trial in sweep.unfinished
    ]
    named = [f"- {link}: {escape_markdown(_why(trial.state, trial.reason))}" for trial, link in links]
    named += [f"- {escape_markdown(name)}: not started" for name in sweep.not_started]
    if named:
        yield "Not in these numbers:"
        yield "\n".join(named)


def _why(state: str, reason: str) -> str:
    return reason if reason.startswith(state) else ": ".join(filter(None, (state, reason)))


def _latex(sweeps: Sequence[LoggedSweep]) -> Iterator[str]:
    for sweep in sweeps:
        left_out = len(sweep.unfinished) + len(sweep.not_started)
        comment = " ".join(f"{sweep.question} ({states(sweep)})".split())
        yield f"% {comment}"
        if sweep.rows:
            more = (f"{left_out} trials are not in the numbers",) if left_out else ()
            yield latex_table(sweep.rows, (*sweep.notes, *more))
