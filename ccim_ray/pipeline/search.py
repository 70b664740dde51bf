"""A hyper-parameter search from request to chosen values: prepare, propose, train, record, report.

It sees validation metrics alone (``ccim_ray.validation``); MLflow is told no others of its trials.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

from ccim_ray.console import complain, follow_trials, live_view, say, show, tell_end, tell_start
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.environment import environment_tags
from ccim_ray.errors import RequestError
from ccim_ray.hyperparameters import in_words
from ccim_ray.logged_request import logged_data, mlflow_command, notes_of_baselines, tags_of
from ccim_ray.pipeline.cluster import leave_on_sigterm
from ccim_ray.pipeline.interruption import Interruption
from ccim_ray.pipeline.node_loads import NodeLoads
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.pipeline.sweep import connect
from ccim_ray.pipeline.trials import write_failure
from ccim_ray.pipeline.tuning import EarlyStopping, tune_trials
from ccim_ray.plan import Plan, PlannedTrial, trial_state
from ccim_ray.recording import Recorder
from ccim_ray.reports.search_report import Chosen, ranked, write_search_report
from ccim_ray.resources import ClusterResources
from ccim_ray.run_notes import NOTE_TAG, sweep_note
from ccim_ray.search_request import SearchRequest, counts
from ccim_ray.storage import only_process, write_json
from ccim_ray.study import Attempt, AttemptState, Study
from ccim_ray.tracking import Tracker
from ccim_ray.trial_folder import Trial, clear_damaged_progress
from ccim_ray.trial_progress import TrialsProgress, kind_of
from ccim_ray.validation import best_so_far, standard_error


def run_search(request: SearchRequest) -> int:
    """Do what the request asks for; print and record what was found.

    Returns the exit status: 0 where every trial ended, 1 where some failed or none is done. Raises RequestError for a
    wrong request or wrong data, where MLflow cannot be reached, and where the same search is running already.
    """
    started = time.monotonic()
    plan = request.plan()
    folder = request.folder(plan)

    def refuse() -> None:
        """Two processes that run one search would take each other's trials for interrupted ones."""
        raise RequestError(f"this search is running already ({folder}); wait for it, or give another --search-seed")

    with only_process(folder / ".lock", refuse):
        before = request.attempts(plan)
        say(f"{request.space.question} {counts(before, request.num_samples)}")
        say(f"Storage {request.sweep.storage}")
        is_open = sum(attempt.counts for attempt in before) < request.num_samples
        tracker, cluster = connect(request.sweep, is_open)
        with live_view():
            dataset = _prepared(request, plan, cluster) if cluster else plan.source.dataset
            start = request.space.start(request.base)
            study = Study(request.study_file(plan), request.search_id(plan), request.space, start, request.search_seed)
            search = _Search(request, plan, study, dataset.metric)
            with _recording(search, tracker, dataset, cluster) as recorder:
                search.recorder = recorder
                search.run(cluster)
                chosen = search.chosen()
                report = write_search_report(folder, request, study, f"val/{dataset.metric}", chosen)
                recorder.finish_with(report.files)
        show(report.table)
        for remark in report.remarks:
            say(remark)
        say(f"Results in {report.folder}: {', '.join(path.name for path in report.files)}")
        say(f"Done in {time.monotonic() - started:.0f} s")
        say(f"Compare the runs: {mlflow_command(request.sweep)}")
        if chosen:
            say(f"Train the chosen values with fresh seeds, and test them:\n{chosen.rerun}")
    return 0 if chosen and search.is_complete else 1


def _prepared(request: SearchRequest, plan: Plan, cluster: ClusterResources) -> Dataset:
    sweep = request.sweep
    sweep.resources.check(cluster, sweep.workers)
    return prepare(plan, sweep.storage, cluster, sweep.weights_dir)


class _Search:
    """Proposes trials to Ray Tune, and tells the study, the console and MLflow how they end."""

    recorder: Recorder

    def __init__(self, request: SearchRequest, plan: Plan, study: Study, metric: str) -> None:
        self.request, self.plan, self.study, self.metric = request, plan, study, metric
        self._running: dict[str, tuple[Attempt, PlannedTrial]] = {}
        self._failed = 0
        self._best: float | None = None
        self.interruption = Interruption()
        self._progress: TrialsProgress | None = None
        self.stopping = EarlyStopping(request.base.epochs, request.grace_epochs, request.reduction_factor)

    @property
    def _counted(self) -> int:
        return sum(attempt.counts for attempt in self.study.attempts())

    @property
    def is_complete(self) -> bool:
        """Whether as many trials as were asked for have ended, none of them by failing."""
        return self._counted >= self.request.num_samples and not self._failed

    def run(self, cluster: ClusterResources | None) -> None:
        """Train what is still to be tried."""
        before = [(attempt, self._planned(attempt)) for attempt in self.study.attempts() if attempt.counts]
        for attempt, planned in before:
            self._remember(attempt, planned)
            self.recorder.catch_up(planned)
        to_run = self.request.num_samples - self._counted
        if not cluster or to_run <= 0:
            return
        sweep = self.request.sweep
        at_a_time = min(to_run, sweep.resources.concurrent(cluster, sweep.workers))
        say(f"Searching with {to_run} trials, {at_a_time} at a time")
        leave_on_sigterm()
        base, where = self.request.base, (sweep.storage, cluster, sweep.resources)
        kinds = [kind_of(base)] * to_run
        self._progress = progress = TrialsProgress(
            kinds, at_a_time, self.plan.source.train_subjects, self.metric, lambda planned: planned.setting
        )
        for _, planned in before:
            progress.know(planned)
        with follow_trials(progress), self.interruption.on_signals():
            tune_trials(self, base, self.metric, to_run, self.stopping, *where, self.interruption)
        if self.interruption.requested and not self.is_complete:
            self.interruption.leave()

    def propose(self, tune_id: str) -> Trial | None:
        """The next trial that nobody has trained yet; what another job has, is told to the study at once."""
        while (
            not self.interruption.requested
            and self._counted + len(self._running) + self._failed < self.request.num_samples
        ):
            attempt = self.study.ask()
            planned = self._planned(attempt)
            self._running[tune_id] = (attempt, planned)
            if planned.is_open:
                damaged = clear_damaged_progress(Path(planned.trial.paths.folder))
                if damaged:
                    say(f"  trial {attempt.number}: {damaged}; it is trained anew")
                self.recorder.follow(planned)
                if self._progress:
                    self._progress.started(planned)
                    tell_start(planned)
                return planned.trial
            self.ended(tune_id, None)
            self._remember(attempt, planned)
        return None

    def hear(self, tune_id: str, epochs: int, value: float) -> None:
        """An epoch of a running trial."""
        self.study.report(self._running[tune_id][0].number, epochs, value)

    def ended(self, tune_id: str, reason: str | None) -> None:
        """A trial is done, diverged, was stopped early, or failed."""
        attempt, planned = self._running[tune_id]
        curve, folder = self._curve(planned), Path(planned.trial.paths.folder)
        if reason:
            write_failure(planned.trial, reason)
        elif trial_state(folder)[0] not in ("done", "diverged"):
            (folder / "failure.json").unlink(missing_ok=True)
            write_json(folder / "stopped.json", {"epoch": len(curve), "of": planned.trial.experiment.epochs})
        state, why = trial_state(folder)
        self._failed += state == "failed"
        value = curve[-1] if curve else None
        for epochs, best in enumerate(curve, 1):
            self.study.report(attempt.number, epochs, best)
        self.study.tell(attempt.number, cast(AttemptState, state), value)
        del self._running[tune_id]
        score = "" if value is None else f"val/{self.metric} {value:.2%}"
        is_best = state == "done" and value is not None and (self._best is None or value > self._best)
        if is_best:
            self._best = value
        told = {"done": score + (", the best so far" if is_best else ""), "failed": f"FAILED: {why}"}
        outcome = told.get(state, f"{state} {why}" + (f" ({score})" if score else ""))
        ended = self._counted + self._failed
        if self._progress:
            self._progress.ended(planned, state == "failed")
            tell_end(self._progress, planned, state, why)
        tell = complain if state == "failed" else say
        tell(f"  [{ended}/{self.request.num_samples}] trial {attempt.number}: {outcome}; {in_words(attempt.values)}")
        self.recorder.follow(planned)
        self.recorder.end(planned.trial.signature)

    def chosen(self) -> Chosen | None:
        """The values of the best trial by validation; None where no trial is done."""
        done = ranked(self.study.attempts())
        if not done:
            return None
        best = done[0]
        planned = self._planned(best)
        folder = Path(planned.trial.paths.folder)
        curve = self._curve(planned)
        return Chosen(
            attempt=best,
            best_epoch=curve.index(max(curve)),
            standard_error=standard_error(folder, self.metric),
            signature=planned.trial.signature,
            rerun=self.request.rerun(best.values),
        )

    def _remember(self, attempt: Attempt, planned: PlannedTrial) -> None:
        """What is known of a trial that ended before counts for those that are still to come."""
        if attempt.state == "done" and attempt.value is not None:
            self._best = max(attempt.value, self._best or attempt.value)
        self.stopping.remember(f"trial {attempt.number}", dict(enumerate(self._curve(planned), 1)))

    def _planned(self, attempt: Attempt) -> PlannedTrial:
        return self.request.planned(self.plan, attempt.number, attempt.values)

    def _curve(self, planned: PlannedTrial) -> list[float]:
        return best_so_far(Path(planned.trial.paths.folder), self.metric)


@contextmanager
def _recording(
    search: _Search, tracker: Tracker, dataset: Dataset, cluster: ClusterResources | None
) -> Iterator[Recorder]:
    """Keeps MLflow up to date inside the block, and leaves no run RUNNING behind it."""
    request, plan = search.request, search.plan
    search_id = request.search_id(plan)
    of_runs = tags_of(request.sweep, plan) | {"ccim.sweep": search_id}
    name = f"{request.space.name} of {request.base.baseline} on {request.sweep.dataset}"
    parameters = request.sweep.parameters() | {
        "search.seed": str(request.search_seed),
        "search.grace_epochs": str(request.grace_epochs),
        "search.reduction_factor": str(request.reduction_factor),
    }
    of_parent = of_runs | environment_tags(plug_ins=request.sweep.plug_ins())
    of_parent[NOTE_TAG] = sweep_note(request.space.question, of_parent, "", None)
    recorder = Recorder(
        tracker,
        partial(tracker.open_parent, search_id, name, parameters, of_parent, "search"),
        (),
        of_runs,
        notes_of_baselines(request.sweep, plan),
        validation_only=True,
        data=logged_data(plan, dataset),
        loads=NodeLoads(request.sweep.storage.root).sample if cluster else None,
    )
    with recorder.following(lambda: "FINISHED" if search.is_complete else "FAILED"):
        yield recorder
