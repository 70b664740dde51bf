"""A signal to stop while trials run: the first lets each end its epoch, which its checkpoint keeps.

Ctrl-C waits for that as long as it takes. After SIGTERM (``ray job stop``, preemption) a signal follows that nothing
survives, so it waits for half of the time until then. A second signal leaves at once.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ray import tune

from ccim_ray.console import complain
from ccim_ray.pipeline.cluster import LEAVING
from ccim_ray.trial_folder import Trial, read_result

STOPPING = "Ctrl-C: stopping, each running trial as soon as its epoch ends; Ctrl-C again leaves at once"

NOTICE_SECONDS = 30.0
"""From SIGTERM to the end, unless RAY_JOB_STOP_WAIT_TIME_S says otherwise: what Kubernetes gives."""


class Interruption:
    """Whether the job is to stop, and whether the trials that were running then have kept their epoch."""

    def __init__(self) -> None:
        self.requested = False
        self._by = signal.SIGINT
        self._latest = math.inf
        self._running: dict[str, Trial] = {}
        self._checkpoints: dict[str, float] = {}

    def request(self, by: signal.Signals = signal.SIGINT, within: float = math.inf) -> None:
        """Ask for a stop, which waits at most ``within`` seconds for the trials that run now."""
        self._by, self._latest = by, time.monotonic() + within
        self._checkpoints = {signature: _written(trial) for signature, trial in self._running.items()}
        self.requested = True

    def started(self, trial: Trial) -> None:
        """A trial runs; one that starts after the request is not waited for."""
        if not self.requested:
            self._running[trial.signature] = trial

    def ended(self, trial: Trial) -> None:
        """A trial does not run any more."""
        self._running.pop(trial.signature, None)

    def may_leave(self) -> bool:
        """Whether a stop was requested, and no trial that was running then would lose the epoch it was in.

        Also where the time for that is over.
        """
        return self.requested and (
            time.monotonic() > self._latest
            or all(
                _written(trial) != self._checkpoints.get(signature) or _has_ended(trial)
                for signature, trial in tuple(self._running.items())
            )
        )

    def leave(self) -> NoReturn:
        """End the job as the signal asked: with KeyboardInterrupt, or with SystemExit of status 143."""
        if self._by == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C or SIGTERM is a request to stop; the second does what it did before.

        A job that was started to ignore Ctrl-C, as a shell starts those in the background, goes on ignoring it.
        """
        if threading.current_thread() is not threading.main_thread():  # no other may handle signals
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handler(number: int, frame: FrameType | None) -> None:
            signal.signal(number, before[signal.Signals(number)])
            told = STOPPING
            if number == signal.SIGTERM:
                seconds = _notice() / 2
                told = f"{LEAVING}; those that run are given {seconds:g} s to end theirs"
                self.request(signal.SIGTERM, seconds)
            else:
                self.request()
            # From a thread of its own: this thread may have been interrupted in the middle of a print.
            threading.Thread(target=complain, args=(told,), name="told-to-stop").start()

        handled = [number for number, earlier in before.items() if earlier is not signal.SIG_IGN]
        for number in handled:
            signal.signal(number, handler)
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, before[number])


class StopCleanly(tune.Stopper):
    """Ends a run of Ray Tune as soon as a request to stop may be followed."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves it to resume from; this one is made anew each time

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._interruption.may_leave()


def _notice() -> float:
    """Seconds from SIGTERM to the signal that nothing survives."""
    told = os.environ.get("RAY_JOB_STOP_WAIT_TIME_S")
    if told is None and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # submitted: Ray's own default holds
        return 3.0
    return float(told) if told else NOTICE_SECONDS


def _written(trial: Trial) -> float:
    """When its last checkpoint was written, by the clock of the storage; 0 before the first."""
    try:
        return (Path(trial.paths.folder) / "checkpoint.pt").stat().st_mtime
    except FileNotFoundError:  # also where the trial ends at this moment, and takes it away
        return 0.0


def _has_ended(trial: Trial) -> bool:
    folder = Path(trial.paths.folder)
    return read_result(folder) is not None or (folder / "failure.json").exists()
