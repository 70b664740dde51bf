"""Ctrl-C while trials run: the first lets each end its epoch, which its checkpoint keeps; the second leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune

from ccim_ray.console import complain
from ccim_ray.trial_folder import Trial, read_result

STOPPING = "Ctrl-C: stopping, each running trial as soon as its epoch ends; Ctrl-C again leaves at once"


class Interruption:
    """Whether the job is to stop, and whether the trials that were running then have kept their epoch."""

    def __init__(self) -> None:
        self.requested = False
        self._running: dict[str, Trial] = {}
        self._checkpoints: dict[str, float] = {}

    def request(self) -> None:
        """Ask for a stop."""
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
        """Whether a stop was requested, and no trial that was running then would lose the epoch it was in."""
        return self.requested and all(
            _written(trial) != self._checkpoints.get(signature) or _has_ended(trial)
            for signature, trial in tuple(self._running.items())
        )

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C is a request to stop; the second is the usual KeyboardInterrupt.

        A job that was started to ignore Ctrl-C, as a shell starts those in the background, goes on ignoring it.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()  # no other may handle signals
        if not in_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield
            return

        def handler(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, before)
            self.request()
            # From a thread of its own: this thread may have been interrupted in the middle of a print.
            threading.Thread(target=complain, args=(STOPPING,), name="ctrl-c").start()

        before = signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


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


def _written(trial: Trial) -> float:
    """When its last checkpoint was written, by the clock of the storage; 0 before the first."""
    try:
        return (Path(trial.paths.folder) / "checkpoint.pt").stat().st_mtime
    except FileNotFoundError:  # also where the trial ends at this moment, and takes it away
        return 0.0


def _has_ended(trial: Trial) -> bool:
    folder = Path(trial.paths.folder)
    return read_result(folder) is not None or (folder / "failure.json").exists()
