"""Ctrl-C, typed once or twice, in every kind of job that trains: a clean end, and the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_runs import run_job
from mlflow import MlflowClient
from terminal_runs import Screen, job_on_a_terminal

from ccim_ray.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ("--preset", "smoke", "--images", "300")
STOPPING = "Ctrl-C: stopping"


def assert_left_cleanly(screen: Screen, storage: Path) -> None:
    """Status, the last line, no traceback, no process, no run of MLflow that seems to go on, and no trial failed."""
    assert screen.status == 130, screen.text[-3000:]
    last = screen.text.rstrip().splitlines()[-1]
    assert last.startswith("interrupted: the same command goes on from here: python "), screen.text[-3000:]
    assert "Traceback" not in screen.text
    assert screen.left == []
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"KILLED"}, [(run.info.run_name, run.info.status) for run in runs]
    assert not list(storage.glob("trials/*/failure.json"))


def epochs_kept(storage: Path) -> dict[str, int]:
    """Epochs in the journal of each trial, which come one after the other."""
    kept = {}
    for path in storage.glob("trials/*/journal.jsonl"):
        steps = [line.step for line in read_journal(path)]
        assert steps == list(range(len(steps)))
        kept[path.parent.name] = len(steps)
    return kept


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    """Epochs end to end take long enough for the second to come before the first is followed."""
    flags = (*SMALL, "--trainable", "all", "--epochs", "40", "--seeds", "0", "--storage", str(tmp_path))
    screen = job_on_a_terminal("train", *flags, interrupt_at=(r"epoch [1-9]\d* of 40", STOPPING))
    assert_left_cleanly(screen, tmp_path)
    assert "Ctrl-C again leaves at once" in screen.text
    shown = run_job("train", *flags, "--plan")
    assert "1 started" in shown.out


def test_a_search_goes_on_with_the_trial_that_was_stopped(tmp_path: Path) -> None:
    flags = (*SMALL, "--epochs", "400", "--num-samples", "1", "--storage", str(tmp_path))
    screen = job_on_a_terminal("tune_hyperparameters", *flags, interrupt_at=(r"epoch [1-9]\d* of 400",))
    assert_left_cleanly(screen, tmp_path)
    assert STOPPING in screen.text
    (signature,), (epochs,) = zip(*epochs_kept(tmp_path).items(), strict=True)
    assert 0 < epochs < 400
    ended = run_job("tune_hyperparameters", *flags, timeout=600)
    assert (ended.status, ended.err) == (0, "")
    assert epochs_kept(tmp_path) == {signature: 400}


def test_a_head_grid_keeps_an_epoch_of_every_head_that_trained(tmp_path: Path) -> None:
    flags = (*SMALL, "--epochs", "100000", "--sizes", "8", "--storage", str(tmp_path))
    screen = job_on_a_terminal("preview_heads", *flags, interrupt_at=(r"epoch [1-9]\d* of 100000",))
    assert_left_cleanly(screen, tmp_path)
    trained = epochs_kept(tmp_path)
    assert trained
    assert {path.parent.name for path in tmp_path.glob("trials/*/checkpoint.pt")} == set(trained)
    shown = run_job("preview_heads", *flags, "--plan")
    assert f"{len(trained)} started" in shown.out


def test_a_ddp_group_of_two_is_ended_as_a_whole_and_goes_on(tmp_path: Path) -> None:
    flags = (*SMALL, "--trainable", "all", "--workers-per-trial", "2", "--epochs", "40", "--seeds", "0")
    flags = (*flags, "--storage", str(tmp_path))
    screen = job_on_a_terminal("train", *flags, interrupt_at=(r"epoch [1-9]\d* of 40",))
    assert_left_cleanly(screen, tmp_path)
    (signature,), (epochs,) = zip(*epochs_kept(tmp_path).items(), strict=True)
    assert 0 < epochs < 40
    ended = run_job("train", *flags, timeout=600)
    assert (ended.status, ended.err) == (0, "")
    assert epochs_kept(tmp_path) == {signature: 40}
