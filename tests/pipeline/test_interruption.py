"""A stop waits for the epoch of each trial that was running when it was asked for, and for no other."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.pipeline.interruption import Interruption
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult


@pytest.fixture
def trials(tmp_path):
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=300))
    vanilla = base.with_changes(deconfounder="none")
    return [planned.trial for planned in make_plan([("vanilla", vanilla)], (0, 1, 2), Storage(tmp_path), None).trials]


def checkpoint(trial, written):
    path = Path(trial.paths.folder) / "checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (written, written))


def test_it_waits_for_the_next_checkpoint_of_each_running_trial(trials):
    interruption = Interruption()
    checkpoint(trials[0], 50)
    for trial in trials[:2]:
        interruption.started(trial)
    assert not interruption.may_leave()
    interruption.request()
    interruption.started(trials[2])  # in a place that fell free: not waited for
    assert not interruption.may_leave()
    checkpoint(trials[0], 60)
    assert not interruption.may_leave()
    checkpoint(trials[1], 40)  # its first; the storage's clock may be behind
    assert interruption.may_leave()


def test_it_does_not_wait_for_what_ended(trials):
    interruption = Interruption()
    for trial in trials:
        interruption.started(trial)
    interruption.request()
    interruption.ended(trials[0])
    write_json(Path(trials[1].paths.folder) / "result.json", TrialResult("done").as_dict())
    assert not interruption.may_leave()
    write_json(Path(trials[2].paths.folder) / "failure.json", {"reason": "killed"})
    assert interruption.may_leave()


@pytest.fixture
def handled():
    """Makes a handler that of Ctrl-C while the test runs."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def test_a_job_in_the_background_goes_on_ignoring_it(handled):
    handled(signal.SIG_IGN)
    interruption = Interruption()
    with interruption.on_signals():
        signal.raise_signal(signal.SIGINT)
    assert not interruption.requested


def test_ctrl_c_asks_once_and_then_leaves(capsys, handled):
    handled(signal.default_int_handler)
    interruption = Interruption()
    with interruption.on_signals():
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        for thread in threading.enumerate():
            if thread.name == "told-to-stop":
                thread.join()
        assert "Ctrl-C again leaves at once" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_sigterm_waits_for_half_of_the_notice_and_then_leaves(trials, capsys, handled, monkeypatch):
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "1")
    interruption = Interruption()
    interruption.started(trials[0])
    with interruption.on_signals():
        signal.raise_signal(signal.SIGTERM)
        for thread in threading.enumerate():
            if thread.name == "told-to-stop":
                thread.join()
        assert "SIGTERM: leaving; the same command goes on from the last epochs" in capsys.readouterr().out
        assert not interruption.may_leave()
        time.sleep(0.6)
        assert interruption.may_leave()
    with pytest.raises(SystemExit) as left:
        interruption.leave()
    assert left.value.code == 143


def test_sigterm_does_not_wait_longer_than_for_an_epoch(trials, monkeypatch):
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "600")
    interruption = Interruption()
    interruption.started(trials[0])
    with interruption.on_signals():
        signal.raise_signal(signal.SIGTERM)
        checkpoint(trials[0], 40)
        assert interruption.may_leave()


def test_a_second_sigterm_does_what_it_did_before(trials, handled):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Interruption().on_signals():
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
