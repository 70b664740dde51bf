"""Runs of MLflow in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(slots=True)
class TrialRun:
    """The run of a trial, and the last journal step it holds: -1 for none, None while not yet looked up."""

    run_id: str
    logged_step: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """What MLflow holds of a run: every metric's latest value; status RUNNING, FINISHED, FAILED or KILLED.

    ``started`` and ``ended`` are unix seconds, None where MLflow has none.
    """

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    experiment_id: str
    started: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class LoggedData:
    """What a run learnt from: its name, a digest of its content, the folder where it lies, subjects by split."""

    name: str
    digest: str
    folder: str
    subjects: Mapping[str, int]


def logged_run(run: Run) -> LoggedRun:
    """MLflow's run in plain values."""
    info, data = run.info, run.data
    started, ended = (None if when is None else when / 1000 for when in (info.start_time, info.end_time))
    content = (data.params, data.metrics, data.tags)
    return LoggedRun(info.run_id, info.run_name, info.status, *content, info.experiment_id, started, ended)
