"""How far the trials of a job are: counts, time left by measured trial times, pictures a second, the best so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccim_ray.errors import RequestError
from ccim_ray.journal import JournalLine, read_journal
from ccim_ray.trial_folder import read_result

if TYPE_CHECKING:
    from ccim_ray.experiment import Experiment
    from ccim_ray.plan import PlannedTrial


@dataclass(frozen=True)
class Counts:
    """Trials of this run by what they do; ``done`` holds those that diverged or were stopped early, too."""

    done: int
    running: int
    waiting: int
    failed: int


@dataclass(frozen=True)
class Best:
    """The trial with the highest validation metric of its kept epoch."""

    title: str
    signature: str
    value: float


@dataclass
class RunningTrial:
    """A trial that runs: since when, and its epochs before this run, until now and in all."""

    planned: PlannedTrial
    title: str
    started: float
    epochs_before: int
    epochs: int
    of: int
    value: float | None = None

    def seconds_left(self, now: float) -> float | None:
        """By the epochs that it trained in this run; None before the first."""
        trained = self.epochs - self.epochs_before
        return (now - self.started) / trained * (self.of - self.epochs) if trained else None


def kind_of(experiment: Experiment) -> str:
    """Trials of one kind take about as long as each other."""
    return f"{experiment.baseline}/{experiment.trainable}"


class TrialsProgress:
    """Told of every trial that starts and ends, by the thread that runs them; read by others at any time.

    Args:
        waiting: kind of each trial that is to run.
        at_a_time: trials that run side by side.
        train_subjects: subjects of one epoch.
        metric: of the validation split, that says which trial is the best.
        title: a trial in words.
        clock: seconds.
    """

    def __init__(
        self,
        waiting: Sequence[str],
        at_a_time: int,
        train_subjects: int,
        metric: str,
        title: Callable[[PlannedTrial], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metric = metric
        self._waiting, self._at_a_time, self._train_subjects = list(waiting), at_a_time, train_subjects
        self._title, self._clock, self._lock = title, clock, threading.RLock()
        self._running: dict[str, RunningTrial] = {}
        self._seconds: dict[str, list[float]] = {}
        self._done = self._failed = self._epochs_ended = 0
        self._best: Best | None = None
        self._began: float | None = None

    @property
    def total(self) -> int:
        """All trials of this run."""
        return self._done + self._failed + len(self._running) + len(self._waiting)

    @property
    def counts(self) -> Counts:
        """Of this moment."""
        with self._lock:
            return Counts(self._done, len(self._running), len(self._waiting), self._failed)

    @property
    def best(self) -> Best | None:
        """None before a trial is done."""
        return self._best

    @property
    def running(self) -> list[RunningTrial]:
        """Those that run, in the order in which they started."""
        with self._lock:
            return list(self._running.values())

    @property
    def seconds(self) -> float:
        """Since the first trial started."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def images_per_second(self) -> float | None:
        """Training subjects a second over all trials, since the first started; None before an epoch ended."""
        with self._lock:
            epochs = self._epochs_ended + sum(each.epochs - each.epochs_before for each in self._running.values())
        return epochs * self._train_subjects / self.seconds if epochs and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last trial ends, by the times that trials and their epochs took; None before one was measured."""
        with self._lock:
            now = self._clock()
            measured = self._measured(now)
            if not measured:
                return None
            mean = sum(measured.values()) / len(measured)
            running = []
            for each in self._running.values():
                left = each.seconds_left(now)
                whole = measured.get(kind_of(each.planned.trial.experiment), mean)
                running.append(max(0.0, whole - (now - each.started)) if left is None else left)
            work = sum(running) + sum(measured.get(kind, mean) for kind in self._waiting)
            return max([work / self._at_a_time, *running])

    def _measured(self, now: float) -> dict[str, float]:
        """Seconds of a trial of each kind, by those that ended, else by the epochs of those that run."""
        found = {kind: sum(seconds) / len(seconds) for kind, seconds in self._seconds.items()}
        for each in self._running.values():
            left = each.seconds_left(now)
            if left is not None:
                found.setdefault(kind_of(each.planned.trial.experiment), now - each.started + left)
        return found

    def know(self, planned: PlannedTrial) -> None:
        """A trial that ended before this run: it may be the best."""
        result = read_result(Path(planned.trial.paths.folder))
        value = result.metrics.get(f"val/{self.metric}") if result else None
        with self._lock:
            if value is not None and (self._best is None or value > self._best.value):
                self._best = Best(self._title(planned), planned.trial.signature, value)

    def started(self, planned: PlannedTrial) -> None:
        """A trial starts, or starts again after its process died."""
        with self._lock:
            signature, now = planned.trial.signature, self._clock()
            self._began = now if self._began is None else self._began
            if signature not in self._running:
                self._take_from_waiting(kind_of(planned.trial.experiment))
            done = len(_journal(planned))
            title, of = self._title(planned), planned.trial.experiment.epochs
            self._running[signature] = RunningTrial(planned, title, now, done, done, of)

    def ended(self, planned: PlannedTrial, failed: bool) -> None:
        """A trial ended, well or not."""
        with self._lock:
            each = self._running.pop(planned.trial.signature, None)
            if each is None:
                self._take_from_waiting(kind_of(planned.trial.experiment))
            self._failed, self._done = self._failed + failed, self._done + (not failed)
            if each and not failed:
                self._seconds.setdefault(kind_of(planned.trial.experiment), []).append(self._clock() - each.started)
                self._epochs_ended += max(0, len(_journal(planned)) - each.epochs_before)
        self.know(planned)

    def poll(self) -> list[tuple[PlannedTrial, int, dict[str, float]]]:
        """Read the journals of the running trials: (trial, epoch from 0, metrics) of the epochs that are new."""
        new = []
        for each in self.running:
            lines = _journal(each.planned)
            with self._lock:
                if len(lines) < each.epochs:  # it goes on from a checkpoint that is older than its journal
                    each.epochs_before = each.epochs = len(lines)
                new += [(each.planned, line.step, line.metrics) for line in lines[each.epochs :]]
                each.epochs = len(lines)
                each.value = lines[-1].metrics.get(f"val/{self.metric}") if lines else None
        return new

    def _take_from_waiting(self, kind: str) -> None:
        if kind in self._waiting:
            self._waiting.remove(kind)


def _journal(planned: PlannedTrial) -> list[JournalLine]:
    """A line an epoch, from the first on."""
    try:
        return read_journal(Path(planned.trial.paths.folder) / "journal.jsonl")
    except RequestError:  # damaged: the trial says so itself when it reads it
        return []
