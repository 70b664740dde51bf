"""Keeps MLflow up to date with the trials on disk, from one background thread of the driver.

The journals on disk are the truth. Whatever MLflow lacks, because it was away or the driver died, is logged
when the same command runs again.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from ccim_ray.baselines.registry import baseline_label
from ccim_ray.console import complain, say
from ccim_ray.errors import RequestError
from ccim_ray.plan import PlannedTrial, trial_state
from ccim_ray.reports.trial_report import draw_trial_figures, model_example
from ccim_ray.run_notes import NOTE_TAG, trial_note
from ccim_ray.storage import only_process, read_json
from ccim_ray.sweep_tags import published_tag
from ccim_ray.tracking import LoggedData, LoggedRun, Tracker, TrialRun
from ccim_ray.trial_folder import MODEL_FILES, read_result

FOLLOW_SECONDS = 1.0
LOAD_SECONDS = 10.0

Status = Literal["FINISHED", "FAILED", "KILLED"]

_RUN_STATUS: dict[str, Status] = {"done": "FINISHED", "stopped": "KILLED"}
"""Of a trial that ended, by its state; FAILED of all others."""


@dataclass
class Recorder:
    """Records the trials of one sweep under its parent run.

    Args:
        tracker: connected; used by this object's thread alone until ``close``.
        open_parent: opens the sweep's run and returns its id; called again where MLflow did not answer.
        trials: all trials of the sweep that this command is about.
        tags: stamped on every trial's run.
        notes: baseline -> what must be known of its numbers; stamped on its trials' runs, and said in their figures.
        validation_only: record nothing of the test splits, nor the model: what chooses among trials by MLflow then
            chooses by validation.
        numbers_only: record no model, dictionary and pictures, which take longer than training a head.
        data: what all of them learn from.
        loads: asked now and then how busy the machines are.
    """

    tracker: Tracker
    open_parent: Callable[[], str]
    trials: Sequence[PlannedTrial]
    tags: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)
    validation_only: bool = False
    numbers_only: bool = False
    data: LoggedData | None = None
    loads: Callable[[], Mapping[str, float]] | None = None
    best_model: str | None = field(default=None, init=False)
    """URI of the best model by validation, once it is closed; None where none is to be registered."""
    _runs: dict[str, TrialRun] = field(default_factory=dict, init=False)
    _parent: str | None = field(default=None, init=False)
    _known: queue.Queue[PlannedTrial] = field(default_factory=queue.Queue, init=False)
    _ended: queue.Queue[str] = field(default_factory=queue.Queue, init=False)
    _closing: threading.Event = field(default_factory=threading.Event, init=False)
    _trouble: dict[str, RequestError] = field(default_factory=dict, init=False)
    _files: tuple[Path, ...] = field(default=(), init=False)
    _summary: tuple[dict[str, float], dict[str, str]] = field(default=({}, {}), init=False)
    _register: tuple[str, str, str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._by_signature = {planned.trial.signature: planned for planned in self.trials}
        self._running = {planned.trial.signature for planned in self.trials if planned.is_open}
        self._recorded: frozenset[str] = frozenset()
        self._load_cursor: TrialRun | None = None
        self._next_load = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="mlflow-recorder", daemon=True)

    @contextmanager
    def following(self, status_of: Callable[[], Status]) -> Iterator[Recorder]:
        """Keep MLflow up to date inside the block, and leave no run RUNNING behind it.

        Args:
            status_of: how the sweep ended, where the block ends without an error.

        Raises RequestError as ``close`` does; of an error inside the block MLflow's trouble may be a consequence, so
        then it is only said.
        """
        self.start()
        try:
            yield self
            status = status_of()
        except BaseException:
            try:
                self.close("KILLED")
            except RequestError as trouble:
                say(f"  MLflow: {trouble}")
            raise
        self.close(status)

    def start(self) -> None:
        """Record what ended earlier and is not in MLflow, then follow the running trials."""
        for planned in self.trials:
            if not planned.is_open:
                self.catch_up(planned)
        self._guard("the sweep", self._begin)
        self._thread.start()

    def catch_up(self, planned: PlannedTrial) -> None:
        """Record a trial that ended earlier, unless MLflow has it already."""
        self._known.put(planned)

    def follow(self, planned: PlannedTrial) -> None:
        """Record a trial that was not known at the start, from now on."""
        self._by_signature[planned.trial.signature] = planned
        self._running.add(planned.trial.signature)

    def end(self, signature: str) -> None:
        """Tell that a trial ended, well or not."""
        self._ended.put(signature)

    def finish_with(self, files: Sequence[Path]) -> None:
        """Give the parent run these files when it is closed."""
        self._files = tuple(files)

    def summarise(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Give the parent run what was found over all trials when it is closed."""
        self._summary = (dict(metrics), dict(tags))

    @property
    def logs_models(self) -> bool:
        """Whether models are recorded."""
        return not (self.validation_only or self.numbers_only)

    def register_best(self, name: str, metric: str, description: str) -> None:
        """When it is closed, register the best models by this validation metric under this name."""
        self._register = (name, metric, description)

    def close(self, status: Status) -> None:
        """Record everything that is left, and leave no run of the sweep RUNNING.

        Raises RequestError where MLflow could not be brought up to date: the same command does it later.
        """
        self._closing.set()
        self._thread.join()
        self._trouble.clear()
        self._attempt()
        if (parent := self._parent) is not None:
            self._guard("the sweep's results", lambda: self.tracker.log_artifacts(parent, self._files))
            self._guard("the sweep's means", lambda: self.tracker.log_summary(parent, *self._summary))
            self._register_best(parent)
            self._guard("trials that did not end", lambda: self.tracker.finish_leftovers(parent))
            self._guard("the sweep's end", lambda: self.tracker.finish(parent, status))
        if self._trouble:
            raise next(iter(self._trouble.values()))

    def _register_best(self, parent: str) -> None:
        """Trouble with the registry, which not every server has, is told and no more: all runs are whole without it."""
        if not (self._register and self.logs_models):
            return
        try:
            self.best_model = self.tracker.register_best(parent, *self._register)
        except RequestError as error:
            complain(f"  the best models are not registered: {error}")

    def _follow(self) -> None:
        while not self._closing.wait(FOLLOW_SECONDS):
            self._attempt()
            if self.loads and self._load_cursor and time.monotonic() >= self._next_load:
                self._next_load = time.monotonic() + LOAD_SECONDS
                self._guard("how busy the machines are", partial(self._record_load, self.loads, self._load_cursor))

    def _record_load(self, loads: Callable[[], Mapping[str, float]], cursor: TrialRun) -> None:
        if found := loads():
            self.tracker.log_load(cursor, found)

    def _begin(self) -> None:
        parent = self.open_parent()
        if self.data:
            self.tracker.log_data(parent, self.data)
        runs = self.tracker.trials(parent)
        self._recorded = frozenset(
            run.tags["ccim.signature"] for run in runs if run.status == "FINISHED" or _stopped(run)
        )
        self._parent, self._load_cursor = parent, TrialRun(parent)

    def _attempt(self) -> None:
        """Bring MLflow up to date, trial by trial: trouble with one does not keep the others from it."""
        if self._parent is None and not self._guard("the sweep", self._begin):
            return
        for _ in range(self._known.qsize()):
            planned = self._known.get()
            if planned.trial.signature not in self._recorded:
                self._by_signature[planned.trial.signature] = planned
                self._ended.put(planned.trial.signature)
        for _ in range(self._ended.qsize()):
            signature = self._ended.get()
            planned = self._by_signature[signature]
            if not self._guard(f"the end of {signature}", partial(self._record_end, planned)):
                self._ended.put(signature)  # tried again next time
        for signature in tuple(self._running):
            planned = self._by_signature[signature]
            journal = Path(planned.trial.paths.folder) / "journal.jsonl"
            if journal.exists():
                self._guard(f"the epochs of {signature}", partial(self._replay, planned, journal))

    def _guard(self, what: str, bring_up_to_date: Callable[[], object]) -> bool:
        """Whether it worked; trouble with ``what`` is told once, and remembered until the same thing works."""
        try:
            bring_up_to_date()
        except (RequestError, OSError, ValueError) as error:
            if what not in self._trouble and not self._closing.is_set():
                say(f"  MLflow: {error} (training goes on; what is missing is logged later)")
            self._trouble[what] = RequestError(f"{what} could not be recorded in MLflow: {error}")
            return False
        self._trouble.pop(what, None)
        return True

    def _replay(self, planned: PlannedTrial, journal: Path) -> None:
        self.tracker.replay(self._run(planned), journal)

    def _run(self, planned: PlannedTrial) -> TrialRun:
        signature = planned.trial.signature
        if signature not in self._runs:
            name = run_title(planned, several_baselines=len({trial.baseline for trial in self.trials}) > 1)
            parameters = planned.trial.experiment.parameters()
            made_by = Path(planned.trial.paths.folder) / "environment.json"
            tags = {**self.tags, "ccim.setting": planned.setting, **published_tag(planned.trial.experiment)}
            if note := self.notes.get(planned.baseline):
                tags["ccim.note"] = note
            if made_by.exists():  # what trained it, not what records it
                tags |= read_json(made_by)
            assert self._parent is not None
            tags[NOTE_TAG] = trial_note(name, signature, tags, has_model=self.logs_models)
            run = self.tracker.open_trial(self._parent, signature, name, parameters, tags)
            if self.data:
                self.tracker.log_data(run.run_id, self.data)
            self._runs[signature] = run
        return self._runs[signature]

    def _record_end(self, planned: PlannedTrial) -> None:
        # Of two sweeps over the same trial, the second finds what the first has logged.
        with only_process(Path(planned.trial.paths.folder) / ".recording"):
            self._log_end(planned)

    def _log_end(self, planned: PlannedTrial) -> None:
        folder = Path(planned.trial.paths.folder)
        state, reason = trial_state(folder)
        run = self._run(planned)
        self.tracker.replay(run, folder / "journal.jsonl")
        result = read_result(folder)
        ended = (folder / "result.json").stat().st_mtime if result else None
        if result and result.status == "done" and self.logs_models:
            self.tracker.log_final(run, result.metrics, ended)
            self._log_artifacts(run, planned, folder)
        elif result and result.status == "done":
            of = "val/" if self.validation_only else ""
            shown = {name: value for name, value in result.metrics.items() if name.startswith(of)}
            self.tracker.log_final(run, shown, ended)
            self.tracker.log_artifacts(run.run_id, [folder / "experiment.json"], "config")
        status = _RUN_STATUS.get(state, "FAILED")
        self.tracker.finish(run.run_id, status, f"{state}: {reason}" if reason else None)
        self._running.discard(planned.trial.signature)

    def _log_artifacts(self, run: TrialRun, planned: PlannedTrial, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            figures, model = Path(temporary) / "figures", Path(temporary) / "model"
            draw_trial_figures(folder, figures, self.notes.get(planned.baseline, ""))
            self.tracker.log_artifacts(run.run_id, [figures], "figures")
            config = [folder / "experiment.json"]
            self.tracker.log_artifacts(run.run_id, config, "config")
            if planned.trial.paths.dictionary:
                self.tracker.log_artifacts(run.run_id, [Path(planned.trial.paths.dictionary)], "dictionary")
            model.mkdir()
            for name in MODEL_FILES:
                shutil.copyfile(folder / name, model / name)
            example_input, example_output = model_example(folder, Path(planned.trial.paths.subjects))
            self.tracker.log_model(run.run_id, model, example_input, example_output)


def run_title(planned: PlannedTrial, several_baselines: bool) -> str:
    """A trial in words."""
    baseline = f"{baseline_label(planned.baseline)}, " if several_baselines else ""
    return f"{baseline}{planned.setting}, seed {planned.seed}"


def _stopped(run: LoggedRun) -> bool:
    """Whether the run is that of a trial that its search stopped early."""
    return run.status == "KILLED" and run.tags.get("ccim.reason", "").startswith("stopped: ")
