"""Trials that MLflow holds, whatever sweep they belong to: the best by validation, or one by its signature."""

from __future__ import annotations

from collections.abc import Sequence

from ccim_ray.errors import RequestError
from ccim_ray.tracking.connection import connect, logged_experiments, request_errors, without_password
from ccim_ray.tracking.runs import LoggedRun, logged_run

VALIDATION_METRICS = ("val/accuracy", "val/mAP")
"""The paper's metric of a dataset, on its validation split."""

_PAGE = 1000


def finished_trials(uri: str) -> list[LoggedRun]:
    """Trials that ended well and logged a model, newest first; a search logs none.

    RequestError where MLflow cannot be reached or holds none.
    """
    names = logged_experiments(uri)
    runs: list[LoggedRun] = []
    with request_errors(uri):
        if names:
            client = connect(uri)
            ids = [experiment.experiment_id for experiment in client.search_experiments()]
            condition = "tags.`ccim.kind` = 'trial' AND attributes.status = 'FINISHED'"
            token: str | None = None
            while True:
                page = client.search_runs(ids, condition, max_results=_PAGE, page_token=token)
                runs += [logged_run(run) for run in page if run.outputs and run.outputs.model_outputs]
                token = page.token
                if not token:
                    break
    if not runs:
        raise RequestError(
            f"MLflow at {without_password(uri)} holds no trained model: train one with jobs/train.py, or name another "
            "--storage or --tracking-uri"
        )
    return runs


def best_trial(runs: Sequence[LoggedRun], dataset: str | None) -> tuple[LoggedRun, str]:
    """The trial with the best validation metric, the newest of equal ones, and a line that says so.

    Raises RequestError where there is none of ``dataset``, or where trials do not compare: of several datasets, or of
    embedded worlds with several metrics.
    """
    of_dataset = [run for run in runs if dataset in (None, run.params.get("dataset"))]
    found = sorted({run.params.get("dataset", "") for run in runs})
    if not of_dataset:
        raise RequestError(f"--dataset {dataset}: no trained model; there are models of {', '.join(found)}")
    if dataset is None and len(found) > 1:
        raise RequestError(f"there are trained models of {', '.join(found)}: add --dataset NAME or --model NAME")
    measured = [name for name in VALIDATION_METRICS if any(name in run.metrics for run in of_dataset)]
    if len(measured) != 1:
        raise RequestError(
            f"{len(of_dataset)} trained models have {' and '.join(measured) or 'no validation metric'}: name one by "
            "--model SIGNATURE"
        )
    (metric,) = measured
    ranked = [run for run in of_dataset if metric in run.metrics]
    best = max(ranked, key=lambda run: run.metrics[metric])  # the first of equal ones
    trials = f"best of {len(ranked)} trials by {metric}" if len(ranked) > 1 else f"the only trial, {metric}"
    return best, f"{trials} {best.metrics[metric]:.2%}"
