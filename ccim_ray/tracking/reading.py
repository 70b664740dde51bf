"""Reading what was logged, for reports: every run in a few calls, and nothing written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccim_ray.errors import RequestError
from ccim_ray.metric_names import metric_name
from ccim_ray.tracking.connection import connect, holds_nothing_yet, request_errors, without_password
from ccim_ray.tracking.runs import LoggedRun, logged_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

SIMULTANEOUS_REQUESTS = 8
"""To a tracking server, where one history is one request; a database is asked one after the other."""


@dataclass(frozen=True, slots=True)
class LoggedExperiment:
    """An MLflow experiment and its sweeps and trials, oldest first."""

    experiment_id: str
    name: str
    runs: tuple[LoggedRun, ...]


def read_experiments(uri: str, experiment: str | None = None) -> list[LoggedExperiment]:
    """Every experiment that holds a sweep or a trial, by name; or only the one called ``experiment``.

    Raises:
        RequestError: MLflow cannot be reached, or holds none.
    """
    if holds_nothing_yet(uri):
        raise _nothing(uri, "there is no such database")
    with request_errors(uri):
        client = connect(uri)
        names = {found.experiment_id: found.name for found in client.search_experiments()}
        if experiment is not None:
            if experiment not in names.values():
                raise RequestError(
                    f"--experiment {experiment}: MLflow at {without_password(uri)} has no such experiment; choose one "
                    f"of {', '.join(sorted(set(names.values()) - {'Default'})) or 'none'}"
                )
            names = {key: name for key, name in names.items() if name == experiment}
        runs: dict[str, list[LoggedRun]] = {}
        for run in _runs(client, list(names)):
            runs.setdefault(run.experiment_id, []).append(run)
    if not runs:
        raise _nothing(uri, "it holds no run of this package")
    read = [LoggedExperiment(key, names[key], tuple(of_experiment)) for key, of_experiment in runs.items()]
    return sorted(read, key=lambda found: found.name)


def read_histories(uri: str, run_ids: Iterable[str], metric: str) -> dict[str, dict[int, float]]:
    """For each run: step -> value of ``metric``; what is not finite is left out.

    Raises RequestError where MLflow cannot be reached.
    """
    with request_errors(uri):
        client = connect(uri)

        def history(run_id: str) -> dict[int, float]:
            points = client.get_metric_history(run_id, metric_name(metric))
            return {point.step: point.value for point in points if math.isfinite(point.value)}

        asked = list(run_ids)
        with ThreadPoolExecutor(SIMULTANEOUS_REQUESTS if uri.startswith("http") else 1) as pool:
            return dict(zip(asked, pool.map(history, asked), strict=True))


def _runs(client: MlflowClient, experiment_ids: list[str]) -> Iterable[LoggedRun]:
    page_token: str | None = None
    while True:
        page = client.search_runs(
            experiment_ids, "tags.`ccim.kind` LIKE '%'", order_by=["attributes.start_time ASC"], page_token=page_token
        )
        yield from map(logged_run, page)
        page_token = page.token
        if not page_token:
            return


def _nothing(uri: str, why: str) -> RequestError:
    return RequestError(
        f"nothing to report in MLflow at {without_password(uri)}: {why}; run a job that trains first, such as "
        "python jobs/sweep_dict_size.py, or name another --tracking-uri or --storage"
    )
