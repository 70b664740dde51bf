"""A sweep from request to results table: plan, prepare, train, record, report. Every job that trains is one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

from ccim_ray.console import complain, event, follow_trials, live_view, say, show, tell_end, tell_start
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.end_to_end_results import end_to_end_results
from ccim_ray.environment import environment_tags
from ccim_ray.inspecting import Inspection
from ccim_ray.logged_request import (
    logged_data,
    mlflow_address,
    mlflow_command,
    notes_of_baselines,
    predict_command,
    registered_name,
    tags_of,
    varied_parameters,
)
from ccim_ray.pipeline.cluster import join_cluster, leave_on_sigterm
from ccim_ray.pipeline.head_grid import run_head_grid
from ccim_ray.pipeline.interruption import Interruption
from ccim_ray.pipeline.node_loads import NodeLoads
from ccim_ray.pipeline.preparation import load_again, prepare
from ccim_ray.pipeline.trials import run_trials
from ccim_ray.plan import Plan, PlannedTrial, trial_state
from ccim_ray.progress_view import score_line
from ccim_ray.rates import Rates, rate_of_step, rate_of_training
from ccim_ray.recording import Recorder, run_title
from ccim_ray.reports.preview_report import preview_report
from ccim_ray.reports.sweep_report import SweepReport, write_sweep_report
from ccim_ray.resources import ClusterResources
from ccim_ray.results import (
    LedgerEntry,
    category_rows,
    collect,
    gains_without_one,
    measured_rows,
    notes_of,
    reference_rows,
    update_ledger,
)
from ccim_ray.run_notes import NOTE_TAG, sweep_note
from ccim_ray.sweep_request import SweepRequest
from ccim_ray.sweep_tags import constant_tags, description_tags, mean_metrics
from ccim_ray.tracking import Tracker, best_uri
from ccim_ray.trial_folder import Trial, clear_damaged_progress, read_result
from ccim_ray.trial_progress import TrialsProgress, kind_of


def run_sweep(request: SweepRequest, inspection: Inspection | None = None) -> int:
    """Do what the request asks for, look into the trials where that is asked for, and print and record the results.

    Returns the exit status: 0 where every trial ended, 1 where some failed. Raises RequestError for a wrong
    request or wrong data, and where MLflow cannot be reached.
    """
    started = time.monotonic()
    plan = request.plan()
    if inspection:
        inspection.split_of(plan)  # what is wrong is told before anything is trained
    to_run = [planned for planned in plan.trials if planned.is_open]
    say(f"{request.space.question} {_counts(plan)}")
    say(f"Storage {request.storage}")
    needs_inputs = bool(to_run) or (inspection is not None and not plan.has_inputs())
    tracker, cluster = connect(request, needs_inputs or plan.source.lacks_world())
    if cluster:
        leave_on_sigterm()
        request.resources.check(cluster, request.workers)
    with ExitStack() as drawing:
        drawing.enter_context(live_view())
        if cluster and needs_inputs:
            dataset = prepare(plan, request.storage, cluster, request.weights_dir)
        else:
            dataset = load_again(plan.source, request.storage)
        with _recording(request, plan, tracker, dataset, cluster) as recorder:
            if cluster and to_run:
                _train(plan, request, cluster, recorder, dataset)
            drawing.close()  # what follows is to stay
            report, means, constants = _report(request, plan, dataset)
            show(report.table)
            for remark in report.remarks:
                say(remark)
            recorder.summarise(means, constants)
            files = report.files
            recorder.finish_with(files)
            if inspection and all(_state(planned)[0] == "done" for planned in plan.trials):
                files = (*files, *inspection.look(plan, report.folder))
                recorder.finish_with(files)
    for planned in plan.trials:
        state, reason = _state(planned)
        if state != "done":
            complain(f"{_title(planned, request)}: {state}{f': {reason}' if reason else ''}")
    event("results", folder=str(report.folder), files=[path.name for path in files])
    say(f"Results in {report.folder}: {', '.join(path.name for path in files)}")
    say(f"Done in {time.monotonic() - started:.0f} s")
    say(f"Compare the runs: {mlflow_command(request)}")
    say(f"by setting: {mlflow_address(request)}/{tracker.comparison_path(request.sweep_id(plan))}")
    if recorder.best_model:
        say(f"Predict with the best model by validation: {predict_command(request, recorder.best_model)}")
    return 1 if _any_unfinished(plan) else 0


def connect(request: SweepRequest, needs_cluster: bool) -> tuple[Tracker, ClusterResources | None]:
    """MLflow, and Ray where there is something to run: creating a database takes as long as starting Ray."""
    experiment = f"{request.dataset}/{request.space.name}"
    artifacts = request.storage.root / "mlflow-artifacts"
    with ThreadPoolExecutor(1) as background:
        connecting = background.submit(Tracker, request.tracking_uri, experiment, artifacts)
        cluster = join_cluster() if needs_cluster else None
        return connecting.result(), cluster


@contextmanager
def _recording(
    request: SweepRequest, plan: Plan, tracker: Tracker, dataset: Dataset, cluster: ClusterResources | None
) -> Iterator[Recorder]:
    """Keeps MLflow up to date inside the block, and leaves no run RUNNING behind it."""
    baselines = ", ".join(base.baseline for base in request.bases)
    name = f"{request.space.name} of {baselines} on {request.dataset}"
    asked = description_tags(request.space, _ledger(request, plan))
    sweep_id, curve = request.sweep_id(plan), f"val/{dataset.metric}"
    tags = tags_of(request, plan) | asked | environment_tags(plug_ins=request.plug_ins())
    model = registered_name(tracker.experiment, sweep_id)
    uri = None if request.space.preview else best_uri(model)
    tags[NOTE_TAG] = sweep_note(request.space.question, tags, tracker.comparison_path(sweep_id), uri)
    scores = [f"{split}/{dataset.metric}" for split in dataset.test_splits]

    def open_parent() -> str:
        tracker.show_comparison(sweep_id, curve, scores, varied_parameters(plan.trials))
        return tracker.open_parent(sweep_id, name, request.parameters(), tags)

    recorder = Recorder(
        tracker,
        open_parent,
        plan.trials,
        tags_of(request, plan),
        notes_of_baselines(request, plan),
        numbers_only=request.space.preview,
        data=logged_data(plan, dataset),
        loads=NodeLoads(request.storage.root).sample if cluster else None,
    )
    recorder.register_best(model, curve, f"{request.space.question} {name}, best by {curve}.")
    with recorder.following(lambda: "FAILED" if _any_unfinished(plan) else "FINISHED"):
        yield recorder


def _train(plan: Plan, request: SweepRequest, cluster: ClusterResources, recorder: Recorder, dataset: Dataset) -> None:
    """Run the open trials, those of one kind together; tell of each as it ends.

    Raises KeyboardInterrupt or SystemExit where a signal stopped them.
    """
    to_run = [planned for planned in plan.trials if planned.is_open]
    say(f"Training {len(to_run)} trials, {_concurrency(to_run, request, cluster)} at a time")
    by_signature = {planned.trial.signature: planned for planned in to_run}
    progress = _progress(plan, request, cluster, dataset)
    done = 0

    def on_start(trial: Trial) -> None:
        progress.started(by_signature[trial.signature])
        tell_start(by_signature[trial.signature])

    def on_end(trial: Trial, reason: str | None) -> None:
        nonlocal done
        done += 1
        planned = by_signature[trial.signature]
        tell = complain if reason else say
        tell(f"  [{done}/{len(to_run)}] {_title(planned, request)}: {_outcome(trial, reason)}")
        progress.ended(planned, failed=reason is not None)
        tell_end(progress, planned, *_state(planned))
        recorder.end(trial.signature)

    for planned in to_run:
        damaged = clear_damaged_progress(Path(planned.trial.paths.folder))
        if damaged:
            say(f"  {_title(planned, request)}: {damaged}; it is trained anew")
    interruption = Interruption()
    with follow_trials(progress), interruption.on_signals():
        for _, group in groupby(sorted(to_run, key=_kind), key=_kind):
            trials = [planned.trial for planned in group]
            started = time.monotonic()
            if request.space.preview:
                run_head_grid(trials, cluster, request.resources, on_end, on_start, interruption)
                continue
            run_trials(trials, request.storage, cluster, request.resources, on_end, on_start, interruption)
            if not interruption.requested:
                units = sum(trial.experiment.epochs for trial in trials) * len(dataset.subjects)
                rate = rate_of_training(trials[0].experiment)
                rates = Rates(request.storage.rates)
                rates.record(rate, units, time.monotonic() - started)
                _record_steps(rates, trials, len(dataset.subjects), request.resources.device(cluster))
    if interruption.requested and _any_unfinished(plan):
        interruption.leave()


def _record_steps(rates: Rates, trials: Sequence[Trial], subjects: int, device: str) -> None:
    """Keep how fast a process of such a trial trains on such a device, for ``--plan``."""
    results = [result for trial in trials if (result := read_result(Path(trial.paths.folder)))]
    experiment = trials[0].experiment
    seconds = experiment.workers * sum(result.seconds for result in results)
    rates.record(rate_of_step(experiment, device), subjects * sum(result.epochs for result in results), seconds)


def _kind(planned: PlannedTrial) -> tuple[str, int, str]:
    experiment = planned.trial.experiment
    return experiment.trainable, experiment.workers, experiment.baseline


def _progress(plan: Plan, request: SweepRequest, cluster: ClusterResources, dataset: Dataset) -> TrialsProgress:
    to_run = [planned for planned in plan.trials if planned.is_open]
    kinds = [kind_of(planned.trial.experiment) for planned in to_run]
    train_subjects = sum(subject.split == "train" for subject in dataset.subjects)
    at_a_time = _concurrency(to_run, request, cluster)
    progress = TrialsProgress(
        kinds, at_a_time, train_subjects, dataset.metric, lambda planned: _title(planned, request)
    )
    for planned in plan.trials:
        if not planned.is_open:
            progress.know(planned)
    return progress


def _ledger(request: SweepRequest, plan: Plan) -> list[LedgerEntry]:
    path = request.storage.sweep(request.sweep_id(plan)) / "ledger.json"
    return update_ledger(path, plan.trials, request.space.axis, request.storage.trial)


def _report(
    request: SweepRequest, plan: Plan, dataset: Dataset
) -> tuple[SweepReport, dict[str, float], dict[str, str]]:
    """The report; what MLflow is told of all trials together: their means, and tags with the constants."""
    folder = request.storage.sweep(request.sweep_id(plan))
    space = request.space
    entries = _ledger(request, plan)
    published = {base.baseline: space.published(base, dataset.metric) for base in request.bases}
    results = collect(entries)
    measured = measured_rows(dataset, results, space.reference, published)
    by_category = category_rows(dataset, results, space.reference, published) if space.per_category else []
    gains = gains_without_one(dataset, results, space.reference, published) if space.per_category else []
    one = request.bases[0].baseline if len(request.bases) == 1 else ""
    axis = {entry.setting: entry.axis for entry in entries if entry.axis is not None}
    notes = notes_of(dataset, published)
    constants = reference_rows(dataset, one)
    report = write_sweep_report(folder, space, measured, constants, by_category, axis, notes, gains)
    if space.preview:
        base = request.bases[0]
        end_to_end = end_to_end_results(
            space.settings(base), request.storage.root / "trials", plan.source, request.weights_dir
        )
        report = preview_report(report, space, results[base.baseline], measured, constants, end_to_end, notes)
    return report, mean_metrics(measured), constant_tags(constants)


def _title(planned: PlannedTrial, request: SweepRequest) -> str:
    return run_title(planned, several_baselines=len(request.bases) > 1)


def _outcome(trial: Trial, reason: str | None) -> str:
    if reason:
        return f"FAILED: {reason}"
    result = read_result(Path(trial.paths.folder))
    if result is None:
        return "ended without a result"
    if result.status == "diverged":
        return f"diverged at step {result.diverged_at_step}"
    return f"{score_line(result.metrics)} ({result.seconds:.1f} s)"


def _state(planned: PlannedTrial) -> tuple[str, str | None]:
    return trial_state(Path(planned.trial.paths.folder))


def _any_unfinished(plan: Plan) -> bool:
    return any(_state(planned)[0] not in ("done", "diverged") for planned in plan.trials)


def _counts(plan: Plan) -> str:
    states: dict[str, int] = {}
    for planned in plan.trials:
        states[planned.state] = states.get(planned.state, 0) + 1
    return f"{len(plan.trials)} trials: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _concurrency(to_run: Sequence[PlannedTrial], request: SweepRequest, cluster: ClusterResources) -> int:
    return min(len(to_run), request.resources.concurrent(cluster, request.workers))
