"""From the flags of a report to its files."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import tyro

from ccim_ray.command_line import default_storage
from ccim_ray.console import say
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.logged_sweeps import LoggedSweep

MLFLOW_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` opens unless told otherwise."""

_Text = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """What is reported, and where it goes."""

    tracking_uri: _Text = None
    """MLflow tracking server or database to read. Default: MLFLOW_TRACKING_URI, else SQLite under the storage."""
    storage: _Text = None
    """Folder of the database where no --tracking-uri is given. Default: CCIM_RAY_STORAGE, else ./runs. Nothing else in
    it is read."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder to write. Default: report in the storage."""
    experiment: _Text = None
    """Only this MLflow experiment, such as emotic/dict_size."""
    sweep: _Text = None
    """Only the sweep with this id (the name of its folder under sweeps, its tag ccim.sweep) or run id."""
    mlflow_url: _Text = None
    """Address that links to runs begin with. Default: the tracking server; for a database http://127.0.0.1:5000, where
    `mlflow ui` opens."""


def report(flags: ReportFlags) -> int:
    """Read MLflow, write the report, and say where it lies; returns the exit status.

    Raises RequestError where MLflow cannot be reached or holds nothing, or the folder cannot be written.
    """
    started = time.monotonic()
    from ccim_ray.logged_sweeps import collect_sweeps
    from ccim_ray.reports.report_files import write_report
    from ccim_ray.reports.report_page import Source
    from ccim_ray.reports.report_words import summary_of
    from ccim_ray.tracking import default_tracking_uri, read_experiments, without_password

    storage = Path(flags.storage or os.environ.get("CCIM_RAY_STORAGE") or default_storage()).expanduser().absolute()
    uri = flags.tracking_uri or default_tracking_uri(storage)
    url, served = _address(flags.mlflow_url, uri)
    sweeps = collect_sweeps(read_experiments(uri, flags.experiment))
    if flags.sweep:
        sweeps = _only(sweeps, flags.sweep)
    shown = without_password(uri)
    command = "" if served else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"
    source = Source(tracking_uri=shown, mlflow_url=url, mlflow_command=command, made=time.time())
    folder = (flags.out or storage / "report").expanduser().absolute()
    written = write_report(folder, sweeps, _histories(uri, sweeps), source)
    many = "1 sweep" if len(sweeps) == 1 else f"{len(sweeps)} sweeps"
    say(f"{many} from MLflow at {shown}. {summary_of(sweeps)}")
    for sweep in sweeps:
        _say_left_out(sweep)
    for path in written:
        say(f"Wrote {path}")
    if command:
        say(f"Its links to runs need MLflow at {url}: {command}")
    say(f"Done in {time.monotonic() - started:.1f} s")
    return 0


def _address(asked: str | None, uri: str) -> tuple[str, bool]:
    """Where links to runs begin, and whether MLflow is known to be there."""
    if asked is not None and not re.match(r"https?://[^/\s]", asked):
        raise RequestError(f"--mlflow-url {asked}: give an address such as {MLFLOW_ADDRESS}")
    served = uri.startswith(("http://", "https://"))
    parts = urlsplit(asked or (uri if served else MLFLOW_ADDRESS))
    # A link carries no name and no password.
    without_user = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return urlunsplit(without_user).rstrip("/"), served or asked is not None


def _only(sweeps: Sequence[LoggedSweep], name: str) -> list[LoggedSweep]:
    ids = {sweep.parent.tags.get("ccim.sweep", ""): sweep for sweep in sweeps if sweep.parent}
    ids |= {sweep.parent.run_id: sweep for sweep in sweeps if sweep.parent}
    if name not in ids:
        known = ", ".join(key for sweep in sweeps if sweep.parent and (key := sweep.parent.tags.get("ccim.sweep")))
        raise RequestError(f"--sweep {name}: there is no such sweep; choose one of {known or 'none'}")
    return [ids[name]]


def _histories(uri: str, sweeps: Sequence[LoggedSweep]) -> dict[str, dict[int, float]]:
    from ccim_ray.tracking import read_histories

    found: dict[str, dict[int, float]] = {}
    for sweep in sweeps:
        runs = [trial.run.run_id for trial in sweep.trials if trial.state == "done"]
        found |= read_histories(uri, runs, f"val/{sweep.metric}")
    return found


def _say_left_out(sweep: LoggedSweep) -> None:
    for trial in sweep.unfinished:
        reason = trial.reason.removeprefix(f"{trial.state}: ")
        say(f"  not in the numbers: {trial.run.name}: {trial.state}{f', {reason}' if reason else ''}")
    for name in sweep.not_started:
        say(f"  not in the numbers: {name}: not started")
