"""Runs: one parent per sweep, one child per trial, fed from the journals of the trials."""

from __future__ import annotations

import functools
import json
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypeVar

from ccim_ray.errors import RequestError
from ccim_ray.journal import read_journal
from ccim_ray.metric_names import metric_name
from ccim_ray.run_notes import NOTE_TAG
from ccim_ray.storage import only_process
from ccim_ray.tracking.comparison_view import VIEW_TAG, comparison_view, view_path
from ccim_ray.tracking.connection import connect, request_errors, without_password
from ccim_ray.tracking.model import pack_model
from ccim_ray.tracking.registered_models import register_best
from ccim_ray.tracking.runs import LoggedData, LoggedRun, TrialRun, logged_run

if TYPE_CHECKING:
    import pandas as pd

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
"""MLflow's limits on one log_batch."""

PLAIN_WORD = re.compile(r"[A-Za-z0-9_-]+")
"""What can stand in a filter of MLflow's."""

MODEL_NAME = "model"
"""A trial's model is ``runs:/<run id>/model``."""


def _reported(
    method: Callable[Concatenate[Tracker, Arguments], Result],
) -> Callable[Concatenate[Tracker, Arguments], Result]:
    @functools.wraps(method)
    def reporting(self: Tracker, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with request_errors(self.uri):
            return method(self, *args, **kwargs)

    return reporting


class Tracker:
    """One experiment of one MLflow, seen by the one process that writes to it.

    Every method raises RequestError when MLflow cannot be reached or refuses; nothing is lost by that, for
    calling it again later brings the run up to date.

    Args:
        uri: a database (created where it is SQLite and does not exist) or a tracking server.
        experiment: ``<dataset>/<space>``, created where it does not exist.
        artifact_root: folder for the artefacts of a database; a server decides for itself. Processes with the same
            one do not create the same run twice.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path | None) -> None:
        self.uri = uri
        self.experiment = experiment
        self._lock = artifact_root.with_name(".mlflow-runs.lock") if artifact_root else None
        with request_errors(uri):
            self._client = connect(uri)
            self._experiment_id = self._find_or_create_experiment(artifact_root)

    @_reported
    def open_parent(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        kind: Literal["sweep", "search"] = "sweep",
    ) -> str:
        """Run id of the sweep or search: the one with this ``sweep_id``, else a new one. It is RUNNING afterwards."""
        found = {"ccim.kind": kind, "ccim.sweep": sweep_id}
        return self._find_or_create(found, name, params, {**tags, **found})[0]

    @_reported
    def open_trial(
        self,
        parent_run_id: str,
        signature: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> TrialRun:
        """Run of the trial under this parent: found by signature, else new. It is RUNNING afterwards.

        A run that is found keeps its params, for MLflow does not let them change; missing ones are added.
        """
        found = {"ccim.kind": "trial", "ccim.signature": signature, "mlflow.parentRunId": parent_run_id}
        run_id, created = self._find_or_create(found, name, params, {**tags, **found})
        return TrialRun(run_id, -1 if created else None)

    @_reported
    def replay(self, run: TrialRun, journal: Path) -> None:
        """Send the lines of the journal that the run does not hold yet; each step arrives exactly once."""
        lines = read_journal(journal)
        if not lines:
            return
        marker = _marker(lines[0].metrics)
        logged_step = self._logged_step(run, marker)
        batch: list[tuple[str, float, int, int]] = []
        for line in (line for line in lines if line.step > logged_step):
            if len(batch) + len(line.metrics) > METRICS_PER_CALL:
                self._log_metrics(run.run_id, batch)
                batch = []
            # The marker goes last: a step that holds it is complete, even where one line takes several calls.
            for name in sorted(line.metrics, key=lambda name: name == marker):
                batch.append((name, line.metrics[name], int(line.time * 1000), line.step))
        self._log_metrics(run.run_id, batch)
        run.logged_step = max(logged_step, lines[-1].step)

    @_reported
    def log_final(self, run: TrialRun, metrics: Mapping[str, float], ended: float | None = None) -> None:
        """Send what was measured after training, at the step after the last epoch, once.

        ``ended`` is when, in unix seconds: of points that two processes send at once, MLflow keeps those with the same
        time once. Names that the epochs have logged too, such as ``val/...``, end with the value of the kept model.
        """
        if not metrics:
            return
        step, when = self._logged_step(run, "train/loss") + 1, int((ended or time.time()) * 1000)
        last = max(metrics)  # sent last: a run that holds it at this step holds them all
        history = self._client.get_metric_history(run.run_id, metric_name(last))
        if not any(point.step == step for point in history):
            self._log_metrics(run.run_id, [(name, metrics[name], when, step) for name in sorted(metrics)])

    @_reported
    def log_summary(self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Set what was found over all trials of a sweep; a value gives way to another one, and is not sent again."""
        from mlflow.entities import RunTag

        held, now = self._client.get_run(run_id).data.metrics, int(time.time() * 1000)
        changed = {name: value for name, value in metrics.items() if held.get(metric_name(name)) != value}
        self._log_metrics(run_id, [(name, value, now, 0) for name, value in changed.items()])
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    @_reported
    def log_load(self, run: TrialRun, loads: Mapping[str, float]) -> None:
        """Add a point of each load, which MLflow shows among the system metrics, behind those that the run holds."""
        named = {f"system/{name}": value for name, value in loads.items()}
        step = self._logged_step(run, min(named)) + 1
        self._log_metrics(run.run_id, [(name, value, int(time.time() * 1000), step) for name, value in named.items()])
        run.logged_step = step

    @_reported
    def log_data(self, run_id: str, data: LoggedData) -> None:
        """Say what the run learnt from, once: MLflow shows it with every run of the same data."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source, profile = json.dumps({"uri": data.folder}), json.dumps({"subjects": dict(data.subjects)})
        dataset = Dataset(data.name, data.digest, "local", source, profile=profile)
        context = InputTag("mlflow.data.context", ", ".join(data.subjects))
        self._client.log_inputs(run_id, [DatasetInput(dataset, [context])])

    @_reported
    def show_comparison(self, sweep_id: str, curve: str, scores: Sequence[str], parameters: Sequence[str]) -> None:
        """Let MLflow show the sweep's trials by setting, in the view at ``comparison_path``."""
        names = metric_name(curve), [metric_name(score) for score in scores]
        self._client.set_experiment_tag(
            self._experiment_id, f"{VIEW_TAG}{sweep_id}", comparison_view(sweep_id, *names, parameters)
        )

    def comparison_path(self, sweep_id: str) -> str:
        """Where a server of this MLflow shows that view, behind the server's address."""
        return view_path(self._experiment_id, sweep_id)

    @_reported
    def register_best(self, parent_run_id: str, name: str, metric: str, description: str) -> str | None:
        """Register the best model of each setting by ``metric``; the URI of the best of all, None without a model."""
        with only_process(self._lock) if self._lock else nullcontext():
            about = name, metric_name(metric), description
            return register_best(self._client, self._experiment_id, parent_run_id, *about)

    @_reported
    def log_artifacts(self, run_id: str, sources: Iterable[Path], artifact_path: str | None = None) -> None:
        """Copy files, and the contents of folders, to the run's artefacts under ``artifact_path``."""
        for source in sources:
            if source.is_dir():
                self._client.log_artifacts(run_id, str(source), artifact_path)
            else:
                self._client.log_artifact(run_id, str(source), artifact_path)

    @_reported
    def has_artifact(self, run_id: str, path: str) -> bool:
        """Whether the run holds an artefact at ``path``, such as ``figures/sweep.png``."""
        folder = str(PurePosixPath(path).parent)
        listed = self._client.list_artifacts(run_id, None if folder == "." else folder)
        return any(entry.path == path for entry in listed)

    @_reported
    def log_model(
        self,
        run_id: str,
        model_folder: Path,
        example_input: pd.DataFrame,
        example_output: pd.DataFrame,
        loader_module: str = "ccim_ray.serving",
    ) -> str:
        """Attach the trained model in ``model_folder`` to the run, once; returns its ``models:/`` URI.

        The model holds a copy of the folder and the name of the module that reads it: no code and no pickle.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        run = self._client.get_run(run_id)
        by_run = f"source_run_id = '{run_id}' AND name = '{MODEL_NAME}'"
        models = self._client.search_logged_models([self._experiment_id], by_run)
        model = models[0] if models else None
        if model is not None and model.status == LoggedModelStatus.READY:
            return f"models:/{model.model_id}"
        if model is None:
            model = self._client.create_logged_model(self._experiment_id, MODEL_NAME, run_id)
            for sent_again in self._client.search_logged_models([self._experiment_id], by_run):
                if sent_again.model_id != model.model_id:
                    self._client.delete_logged_model(sent_again.model_id)
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / MODEL_NAME
            pack_model(packed, model, run_id, model_folder, example_input, example_output, loader_module)
            self._client.log_model_artifacts(model.model_id, str(packed))
        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in {output.model_id for output in outputs}:
            step = max((metric.step for metric in self._client.get_metric_history(run_id, "train/loss")), default=0)
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return f"models:/{model.model_id}"

    @_reported
    def finish(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str | None = None) -> None:
        """End the run; ``reason`` becomes the tag ccim.reason."""
        if reason:
            self._client.set_tag(run_id, "ccim.reason", reason)
        self._client.set_terminated(run_id, status)

    @_reported
    def finish_leftovers(self, parent_run_id: str, live: Set[str] = frozenset()) -> list[str]:
        """Mark trials of this parent that are RUNNING, and not among the run ids ``live``, as KILLED.

        They belong to a driver that died. Returns their run ids.
        """
        leftovers = [
            run.run_id for run in self.trials(parent_run_id) if run.status == "RUNNING" and run.run_id not in live
        ]
        for run_id in leftovers:
            self.finish(run_id, "KILLED", "the process that drove this trial ended before it")
        return leftovers

    @_reported
    def sweeps(self) -> list[LoggedRun]:
        """Parent runs of this experiment, newest first."""
        return list(self._search({"ccim.kind": "sweep"}))

    @_reported
    def trials(self, parent_run_id: str) -> list[LoggedRun]:
        """Child runs of one sweep, newest first."""
        return list(self._search({"ccim.kind": "trial", "mlflow.parentRunId": parent_run_id}))

    def _find_or_create_experiment(self, artifact_root: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        location = None
        if artifact_root is not None and not self.uri.startswith("http"):
            location = (artifact_root.absolute() / self.experiment).as_uri()
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment, artifact_location=location))
            except MlflowException:
                # Another job may have created it in between; anything else is still an error.
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise RequestError(
                f"experiment {self.experiment} is deleted in MLflow at {without_password(self.uri)}: restore "
                f"it with `mlflow experiments restore --experiment-id {found.experiment_id}` or give another "
                "--tracking-uri"
            )
        return str(found.experiment_id)

    def _find_or_create(
        self, found: Mapping[str, str], name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> tuple[str, bool]:
        """Run id, and whether the run is new."""
        from mlflow.entities import Param, RunTag

        with only_process(self._lock) if self._lock else nullcontext():
            run = next(self._search(found), None)
            run_id = run.run_id if run else self._create_run(name, tags)
        if run is None:
            held: Mapping[str, str] = {}
        else:
            held = run.params
            if "ccim.reason" in run.tags:
                self._client.delete_tag(run_id, "ccim.reason")
            kept = {NOTE_TAG} & run.tags.keys()  # somebody may have written there
            new_tags = [RunTag(key, value) for key, value in tags.items() if key not in kept]
            self._client.log_batch(run_id, tags=new_tags)
            self._client.update_run(run_id, status="RUNNING")
        missing = [Param(key, value) for key, value in params.items() if key not in held]
        for start in range(0, len(missing), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=missing[start : start + PARAMS_PER_CALL])
        return run_id, run is None

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        """Id of a new run, of which there is one though the answer was lost and MLflow's client asked a second time."""
        asked = {"ccim.created": secrets.token_hex(8)}
        run_id: str = self._client.create_run(self._experiment_id, tags={**tags, **asked}, run_name=name).info.run_id
        if self.uri.startswith("http"):
            for run in self._search(asked):
                if run.run_id != run_id:
                    self._client.delete_run(run.run_id)
        return run_id

    def _search(self, tags: Mapping[str, str]) -> Iterator[LoggedRun]:
        # MLflow's filters know no escapes: a value that is no plain word is compared here instead.
        conditions = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if PLAIN_WORD.fullmatch(value)]
        page_token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], " AND ".join(conditions), page_token=page_token)
            yield from (run for run in map(logged_run, page) if tags.items() <= run.tags.items())
            page_token = page.token
            if not page_token:
                return

    def _logged_step(self, run: TrialRun, marker: str) -> int:
        if run.logged_step is None:
            history = self._client.get_metric_history(run.run_id, metric_name(marker))
            run.logged_step = max((metric.step for metric in history), default=-1)
        return run.logged_step

    def _log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Send points (name, value, time in ms, step) in as few calls as MLflow allows."""
        from mlflow.entities import Metric

        for start in range(0, len(points), METRICS_PER_CALL):
            chunk = points[start : start + METRICS_PER_CALL]
            metrics = [Metric(metric_name(name), value, when, step) for name, value, when, step in chunk]
            self._client.log_batch(run_id, metrics=metrics)


def _marker(metrics: Mapping[str, float]) -> str:
    """The metric whose presence says that a run holds a step."""
    return "train/loss" if "train/loss" in metrics else min(metrics)
