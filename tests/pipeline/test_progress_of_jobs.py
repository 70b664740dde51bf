"""What a job shows while it runs: a view on a terminal, which Ctrl-C stops cleanly, and events for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job_runs import TINY, run_job
from mlflow import MlflowClient
from terminal_runs import job_on_a_terminal

pytestmark = pytest.mark.slow


def statuses(storage: Path) -> set[str]:
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("confounded_scenes/dict_size")
    return {run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_ctrl_c_keeps_every_epoch_and_the_same_command_goes_on(tmp_path):
    long = ("--preset", "smoke", "--images", "300", "--epochs", "400", "--sizes", "8", "--seeds", "0")
    ended = job_on_a_terminal("sweep_dict_size", *long, "--storage", str(tmp_path), interrupt_at=(r"epoch \d+ of 400",))
    status, screen = ended.status, ended.text
    assert status == 130, screen[-2000:]
    assert "Ctrl-C: stopping, each running trial as soon as its epoch ends" in screen
    assert "best so far" in screen or "running" in screen
    assert "Traceback" not in screen
    last = screen.rstrip().splitlines()[-1]
    assert last.startswith("interrupted: the same command goes on from here: python ")
    assert "--epochs 400" in last
    kept = list(tmp_path.glob("trials/*/checkpoint.pt"))
    assert kept
    assert not list(tmp_path.glob("trials/*/failure.json"))
    assert "RUNNING" not in statuses(tmp_path)

    shown = run_job("sweep_dict_size", *long, "--storage", str(tmp_path), "--plan")
    assert f"{len(kept)} started" in shown.out


def test_events_tell_a_program_what_happens(tmp_path):
    ended = run_job(
        "sweep_dict_size", *TINY, "--sizes", "8", "--seeds", "0", "--log", "json", "--storage", str(tmp_path)
    )
    assert (ended.status, ended.err) == (0, "")
    events = [json.loads(line) for line in ended.out.splitlines()]
    trials = [event for event in events if event["event"] == "trial"]
    assert {event["setting"] for event in trials} == {"vanilla", "W_h alone", "CCIM N=8"}
    by_state = {state: [e for e in trials if e["state"] == state] for state in ("started", "epoch", "done")}
    assert len(by_state["started"]) == len(by_state["done"]) == 3
    assert all("val/accuracy" in event["metrics"] and event["seconds"] > 0 for event in by_state["done"])
    counts = [event for event in events if event["event"] == "trials"][-1]
    assert (counts["done"], counts["running"], counts["waiting"], counts["failed"]) == (3, 0, 0, 0)
    best = max(by_state["done"], key=lambda event: event["metrics"]["val/accuracy"])
    assert counts["best"]["metrics"]["val/accuracy"] == best["metrics"]["val/accuracy"]
    assert {event["stage"] for event in events if event["event"] == "stage"} >= {"render", "extract", "cluster"}
    assert (events[-1]["event"], events[-1]["status"]) == ("end", 0)

    again = run_job("sweep_dict_size", *TINY, "--sizes", "8", "--seeds", "0", "--quiet", "--storage", str(tmp_path))
    assert again.status == 0
    assert "CCIM N=8" in again.out
    assert "Storage" not in again.out
