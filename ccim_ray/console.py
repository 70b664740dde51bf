"""What a person or a program sees while a job runs.

A live view in a terminal, plain lines elsewhere, only tables and errors with ``--quiet``, one JSON object a line with
``--log json``. A process has one output, so its form is chosen once, by the command line.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ccim_ray.errors import RequestError, printable
from ccim_ray.progress_view import ProgressView, StageProgress
from ccim_ray.trial_folder import read_result
from ccim_ray.trial_progress import TrialsProgress

if TYPE_CHECKING:
    from ccim_ray.plan import PlannedTrial

console = Console(highlight=False, soft_wrap=True)

Form = Literal["text", "quiet", "json"]

FOLLOW_SECONDS = 0.5


@dataclass
class _Output:
    form: Form = "text"
    view: ProgressView | None = None


_output = _Output()


def choose_output(quiet: bool, log: str) -> None:
    """Choose the form of everything that follows. Raises RequestError for flags that do not go together."""
    if log not in ("text", "json"):
        raise RequestError(f"--log {log}: choose text or json")
    if quiet and log == "json":
        raise RequestError("--quiet: --log json is for programs, which leave out what they like; leave one flag out")
    _output.form = "quiet" if quiet else "json" if log == "json" else "text"


def event(name: str, **facts: Any) -> None:
    """One JSON object on a line of its own, where that is the form; facts that are None are left out."""
    if _output.form != "json":
        return
    record = {"event": name, "time": round(time.time(), 3), **facts}
    text = json.dumps({key: _plain(value) for key, value in record.items() if value is not None}, ensure_ascii=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """One plain line that a person may want to read."""
    event("message", text=message.strip())
    if _output.form == "text":
        console.print(_shown(message), markup=False)


def _shown(message: str) -> str:
    return "\n".join(map(printable, message.split("\n")))


def complain(message: str) -> None:
    """One plain line on what went wrong while the job goes on."""
    event("problem", text=message.strip())
    if _output.form != "json":
        console.print(_shown(message), markup=False)


def show(shown: Table | Group) -> None:
    """Tables of results or of a plan, with the text between them."""
    if _output.form != "json":
        console.print(shown)
        return
    for part in shown.renderables if isinstance(shown, Group) else (shown,):
        if isinstance(part, Table):
            columns = [_unmarked(column.header) for column in part.columns]
            cells = zip(*([_unmarked(cell) for cell in column.cells] for column in part.columns), strict=True)
            event("table", title=_unmarked(part.title or ""), columns=columns, rows=[list(row) for row in cells])
        else:
            event("message", text=str(part))


@contextmanager
def live_view() -> Iterator[None]:
    """Within the block, stages and trials are drawn in one view, where stdout is a terminal; it stays in the end."""
    if _output.view or _output.form != "text" or not sys.stdout.isatty():
        yield
        return
    view = ProgressView()
    with Live(view, console=console, refresh_per_second=4):
        _output.view = view
        try:
            yield
        finally:
            _output.view = None
            view.close()


@contextmanager
def stage(name: str, unit: str, total: int) -> Iterator[StageProgress]:
    """Show a stage that handles ``total`` units; its summary line stays."""
    progress = StageProgress(name, unit, total, on_quarter=_tell_of_stage)
    event("stage", state="started", **progress.facts())
    with live_view():
        if _output.view:
            _output.view.add(progress)
        yield progress
        progress.end()
        seen = _output.view is not None
    event("stage", state="done", **progress.facts())
    if _output.form == "text" and not seen:
        console.print(f"  {name}: {progress.done} {unit} in {progress.seconds:.1f} s ({progress.rate_text}/s)")


@contextmanager
def follow_trials(trials: TrialsProgress) -> Iterator[None]:
    """Within the block, the journals of the running trials are read, and told of in the view or as events."""
    if _output.view:
        _output.view.trials = trials
    over = threading.Event()

    def follow() -> None:
        while not over.wait(FOLLOW_SECONDS):
            for planned, epoch, metrics in trials.poll():
                event("trial", state="epoch", **trial_facts(planned), epoch=epoch + 1, metrics=metrics)

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    if _output.view or _output.form == "json":
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def trial_facts(planned: PlannedTrial) -> dict[str, Any]:
    """Which trial an event is about."""
    names = {"trial": planned.trial.signature, "setting": planned.setting, "baseline": planned.baseline}
    return names | {"seed": planned.seed, "epochs": planned.trial.experiment.epochs}


def tell_start(planned: PlannedTrial) -> None:
    """An event on a trial that starts."""
    event("trial", state="started", **trial_facts(planned))


def tell_end(trials: TrialsProgress, planned: PlannedTrial, state: str, reason: str | None) -> None:
    """Events on a trial that ended, and on where all of them are now."""
    result = read_result(Path(planned.trial.paths.folder))
    measured = {"metrics": result.metrics, "seconds": round(result.seconds, 3)} if result else {}
    event("trial", state=state, **trial_facts(planned), reason=reason, **measured)
    _tell_counts(trials)


def _tell_counts(trials: TrialsProgress) -> None:
    """An event on where all trials are."""
    best, left, rate = trials.best, trials.seconds_left, trials.images_per_second
    facts = asdict(trials.counts) | {"seconds": round(trials.seconds, 3)}
    facts["seconds_left"] = None if left is None else round(left, 1)
    facts["images_per_second"] = None if rate is None else round(rate, 1)
    found = best and {"trial": best.signature, "title": best.title, "metrics": {f"val/{trials.metric}": best.value}}
    event("trials", **facts, best=found)


def _tell_of_stage(progress: StageProgress) -> None:
    event("stage", state="running", **progress.facts())
    if _output.form == "text" and not _output.view:
        line = f"  {progress.name}: {progress.done} of {progress.total} {progress.unit}, {progress.rate_text}/s"
        console.print(line)


def _unmarked(cell: Any) -> str:
    if isinstance(cell, Padding):
        return _unmarked(cell.renderable)
    return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for both."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
