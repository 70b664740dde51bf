"""The best models of a sweep in MLflow's registry, chosen by validation alone.

``models:/<name>@best`` is then the sweep's best model, for ``jobs/predict.py --model`` as for MLflow itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BEST = "best"
"""Alias of the version whose validation metric is the highest of the sweep's."""


def register_best(
    client: MlflowClient, experiment_id: str, parent_run_id: str, name: str, metric: str, description: str
) -> str | None:
    """Give the best trial of each baseline's setting a version of the registered model ``name``, and the best of all
    the alias; returns its URI, None where no trial has a model.

    A version stays when a better trial comes, so the versions of a setting are its best ones in turn. Of equal trials
    the one that began first is taken.

    Args:
        metric: of the validation split, as it is called in MLflow.
        description: of the registered model, where it is new.
    """
    found = _trials_with_models(client, experiment_id, parent_run_id)
    measured = [run for run in found if math.isfinite(run.data.metrics.get(metric, math.nan))]
    best_of: dict[tuple[str, str], Run] = {}
    for run in sorted(measured, key=lambda run: _rank(run, metric)):
        best_of[run.data.params.get("baseline", ""), run.data.tags.get("ccim.setting", "")] = run
    if not best_of:
        return None
    _create_where_new(client, name, description)
    for (baseline, setting), run in best_of.items():
        _version_of(client, name, run, {"baseline": baseline, "setting": setting}, metric)
    best = max(best_of.values(), key=lambda run: _rank(run, metric))
    version = _versions(client, name)[best.info.run_id]
    if client.get_registered_model(name).aliases.get(BEST) != version:
        client.set_registered_model_alias(name, BEST, version)
    return best_uri(name)


def best_uri(name: str) -> str:
    """The best model of the registered model ``name``, as ``--model`` and MLflow take it."""
    return f"models:/{name}@{BEST}"


def _rank(run: Run, metric: str) -> tuple[float, int]:
    return run.data.metrics[metric], -run.info.start_time


def _trials_with_models(client: MlflowClient, experiment_id: str, parent_run_id: str) -> Iterator[Run]:
    of_parent = f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND attributes.status = 'FINISHED'"
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], of_parent, page_token=token)
        yield from (run for run in page if run.outputs and run.outputs.model_outputs)
        token = page.token
        if not token:
            return


def _create_where_new(client: MlflowClient, name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(client: MlflowClient, name: str, run: Run, about: dict[str, str], metric: str) -> None:
    """Make the run's model a version, once."""
    if run.info.run_id in _versions(client, name):
        return
    assert run.outputs is not None  # as _trials_with_models chose them
    (output, *_) = run.outputs.model_outputs
    client.create_model_version(
        name,
        source=client.get_logged_model(output.model_id).artifact_location,
        run_id=run.info.run_id,
        tags={**about, "seed": run.data.params.get("seed", ""), metric: repr(run.data.metrics[metric])},
        description=f"{run.info.run_name}: {metric} {run.data.metrics[metric]:.2%}",
        model_id=output.model_id,
    )


def _versions(client: MlflowClient, name: str) -> dict[str, str]:
    """Run id -> its version; of several that were made because an answer was lost, the first."""
    found: dict[str, str] = {}
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"], page_token=token)
        for version in page:
            found.setdefault(str(version.run_id), str(version.version))
        token = page.token
        if not token:
            return found
