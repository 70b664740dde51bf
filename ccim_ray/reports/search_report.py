"""The files and the printed table that a hyper-parameter search ends with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ccim_ray.hyperparameters import dotted, in_words
from ccim_ray.reports.search_figures import draw_history, draw_importances
from ccim_ray.search_request import SearchRequest
from ccim_ray.storage import atomic_path, write_json
from ccim_ray.study import Attempt, Study

SHOWN = 5

FEW = 20
"""Below so many trials importances are hardly more than chance."""


@dataclass(frozen=True)
class Chosen:
    """The best trial by validation.

    Attributes:
        best_epoch: counted from 0.
        standard_error: of its validation metric, over the draw of the validation subjects.
        signature: of the trial.
        rerun: the command that trains its values with fresh seeds.
    """

    attempt: Attempt
    best_epoch: int
    standard_error: float
    signature: str
    rerun: str


@dataclass(frozen=True)
class SearchReport:
    """Where the report lies, its files, and what to print: the table, and what is said below it."""

    folder: Path
    files: tuple[Path, ...]
    table: Table
    remarks: tuple[str, ...]


def write_search_report(
    folder: Path, request: SearchRequest, study: Study, metric: str, chosen: Chosen | None
) -> SearchReport:
    """Write ``trials.csv``, ``best.json``, and the history and importances as pictures and pages.

    What cannot be made of so few trials is left out, and said.

    Args:
        metric: as told of trials, ``val/...``.
    """
    attempts = study.attempts()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "trials.csv"]
    _write_trials(attempts, metric, files[0])
    remarks: list[str] = []
    if chosen is None:
        (folder / "best.json").unlink(missing_ok=True)
        remarks.append("No trial is done: nothing to choose from; give more --num-samples")
    else:
        files.append(folder / "best.json")
        write_json(files[-1], _best(request, attempts, metric, chosen))
        remarks.append(_expectation(attempts, metric, chosen))
    if any(attempt.value is not None for attempt in attempts):
        files += [folder / "history.png", folder / "history.html"]
        draw_history(attempts, request.space.question, metric, *files[-2:])
    shares = study.importances()
    if shares:
        files += [folder / "importances.png", folder / "importances.html"]
        done = sum(attempt.state == "done" for attempt in attempts)
        caution = ", too few to rely on" if done < FEW else ""
        title = f"Share of the spread of {metric} over {done} trials trained in full{caution} (fANOVA)"
        draw_importances({dotted(key): share for key, share in shares.items()}, title, *files[-2:])
        told = ", ".join(f"{dotted(key)} {share:.0%}" for key, share in list(shares.items())[:3])
        remarks.append(f"Importance over {done} trials trained in full{caution}: {told}")
    else:
        remarks.append("No importances: they need two trials trained in full that differ in score")
    return SearchReport(folder, tuple(files), _table(request, attempts, metric), tuple(remarks))


def ranked(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Trials that are done, best first; of equal ones the earlier."""
    done = [attempt for attempt in attempts if attempt.state == "done" and attempt.value is not None]
    return sorted(done, key=lambda attempt: (-(attempt.value or 0), attempt.number))


def _write_trials(attempts: Sequence[Attempt], metric: str, path: Path) -> None:
    keys = list(attempts[0].values) if attempts else []
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "state", metric, "epochs", *map(dotted, keys)])
        for attempt in attempts:
            value = "" if attempt.value is None else attempt.value
            values = [attempt.values[key] for key in keys]
            writer.writerow([attempt.number, attempt.state, value, attempt.epochs, *values])


def _best(request: SearchRequest, attempts: Sequence[Attempt], metric: str, chosen: Chosen) -> dict[str, object]:
    first = attempts[0]
    return {
        "values": {dotted(key): value for key, value in chosen.attempt.values.items()},
        "metric": metric,
        "score": chosen.attempt.value,
        "standard_error": chosen.standard_error,
        "expected": _expectation(attempts, metric, chosen),
        "best_epoch": chosen.best_epoch,
        "seed": request.base.seed,
        "trial": chosen.attempt.number,
        "signature": chosen.signature,
        "score_of_first_trial": first.value if first.state == "done" else None,
        "trials": {state: sum(each.state == state for each in attempts) for state in {a.state for a in attempts}},
        "search_command": request.sweep.command,
        "rerun_command": chosen.rerun,
    }


def _expectation(attempts: Sequence[Attempt], metric: str, chosen: Chosen) -> str:
    tried = sum(attempt.counts for attempt in attempts)
    luck = f"; as the best of {tried} trials it is flattered by luck, so rather less" if tried > 1 else ""
    return (
        f"Expected: {metric} {100 * (chosen.attempt.value or 0):.2f} ± {100 * chosen.standard_error:.2f} % (standard "
        f"error over the validation subjects, one seed){luck}"
    )


def _table(request: SearchRequest, attempts: Sequence[Attempt], metric: str) -> Table:
    table = Table(title=f"{request.space.question} Best {SHOWN} trials, seed {request.base.seed}", title_justify="left")
    for heading, justify in (("trial", "right"), (f"{metric} (%)", "right"), ("values", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    best = ranked(attempts)
    shown = best[:SHOWN] + [attempt for attempt in best[SHOWN:] if attempt.number == 0]
    for place, attempt in enumerate(shown):
        if place == SHOWN:
            table.add_section()
        table.add_row(str(attempt.number), f"{100 * (attempt.value or 0):.2f}", in_words(attempt.values))
    ended = {state: sum(attempt.state == state for attempt in attempts) for state in ("done", "stopped", "diverged")}
    table.caption = (
        f"{ended['done']} trained in full, {ended['stopped']} stopped early, {ended['diverged']} diverged; "
        "trial 0: the settings as they were"
    )
    return table
