"""Keeps MLflow up to date with the trials on disk, from one background thread of the driver.

The journals on disk are the truth. Whatever MLflow lacks, because it was away or the driver died, is logged
when the same command runs again.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccim_ray.console import say
from ccim_ray.errors import RequestError
from ccim_ray.plan import PlannedTrial, trial_state
from ccim_ray.reports.trial_report import draw_trial_figures, model_example
from ccim_ray.tracking import Tracker, TrialRun
from ccim_ray.trial_folder import MODEL_FILES, read_result

FOLLOW_SECONDS = 1.0


@dataclass
class Recorder:
    """Records the trials of one sweep under its parent run.

    Args:
        tracker: connected; used by this object's thread alone until ``close``.
        parent: run id of the sweep.
        trials: all trials of the sweep that this command is about.
        tags: stamped on every trial's run.
    """

    tracker: Tracker
    parent: str
    trials: Sequence[PlannedTrial]
    tags: Mapping[str, str]
    _runs: dict[str, TrialRun] = field(default_factory=dict, init=False)
    _ended: queue.Queue[str] = field(default_factory=queue.Queue, init=False)
    _closing: threading.Event = field(default_factory=threading.Event, init=False)
    _trouble: RequestError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._by_signature = {planned.trial.signature: planned for planned in self.trials}
        self._thread = threading.Thread(target=self._follow, name="mlflow-recorder", daemon=True)

    def start(self) -> None:
        """Record what ended earlier and is not in MLflow, then follow the running trials."""
        recorded = {run.tags["ccim.signature"] for run in self.tracker.trials(self.parent) if run.status == "FINISHED"}
        for signature, planned in self._by_signature.items():
            if not planned.is_open and signature not in recorded:
                self._ended.put(signature)
        self._thread.start()

    def end(self, signature: str) -> None:
        """Tell that a trial ended, well or not."""
        self._ended.put(signature)

    def close(self) -> None:
        """Record everything that is left, and mark what did not end as KILLED.

        Raises RequestError where MLflow could not be brought up to date.
        """
        self._closing.set()
        self._thread.join()
        self._trouble = None
        self._attempt()
        if self._trouble:
            raise self._trouble
        self.tracker.finish_leftovers(self.parent)

    def _follow(self) -> None:
        while not self._closing.wait(FOLLOW_SECONDS):
            self._attempt()

    def _attempt(self) -> None:
        """Bring MLflow up to date; trouble with it is remembered, told once, and tried again later."""
        try:
            self._record_ended()
            self._replay_running()
            self._trouble = None
        except RequestError as error:
            if self._trouble is None and not self._closing.is_set():
                say(f"  MLflow: {error} (training goes on; what is missing is logged later)")
            self._trouble = error

    def _record_ended(self) -> None:
        while not self._ended.empty():
            signature = self._ended.queue[0]
            self._record_end(self._by_signature[signature])
            self._ended.get()  # only now: a failed attempt is made again

    def _replay_running(self) -> None:
        for planned in self._by_signature.values():
            journal = Path(planned.trial.paths.folder) / "journal.jsonl"
            if planned.is_open and journal.exists():
                self.tracker.replay(self._run(planned), journal)

    def _run(self, planned: PlannedTrial) -> TrialRun:
        signature = planned.trial.signature
        if signature not in self._runs:
            name = f"{planned.setting}, seed {planned.seed}"
            parameters = planned.trial.experiment.parameters()
            tags = {**self.tags, "ccim.setting": planned.setting}
            self._runs[signature] = self.tracker.open_trial(self.parent, signature, name, parameters, tags)
        return self._runs[signature]

    def _record_end(self, planned: PlannedTrial) -> None:
        folder = Path(planned.trial.paths.folder)
        state, reason = trial_state(folder)
        run = self._run(planned)
        self.tracker.replay(run, folder / "journal.jsonl")
        result = read_result(folder)
        if result and result.status == "done":
            self.tracker.log_final(run, result.metrics)
            self._log_artifacts(run, planned, folder)
        self.tracker.finish(
            run.run_id, "FINISHED" if state == "done" else "FAILED", f"{state}: {reason}" if reason else None
        )
        self._by_signature[planned.trial.signature] = PlannedTrial(
            planned.setting, planned.trial, "done" if state == "done" else state, reason
        )

    def _log_artifacts(self, run: TrialRun, planned: PlannedTrial, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            figures, model = Path(temporary) / "figures", Path(temporary) / "model"
            draw_trial_figures(folder, figures)
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
