"""Runs in a real MLflow: one per trial, each step once, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal, read_journal
from ccim_ray.tracking import (
    Tracker,
    logged_experiments,
)


def open_trial(tracker, signature="s1", **changes):
    parent = tracker.open_parent("sweep1", "dict_size", {}, {"ccim.space": "dict_size"})
    params = {"dictionary.size": "64", "seed": "0", **changes}
    return parent, tracker.open_trial(parent, signature, "N=64 seed 0", params, {"ccim.space": "dict_size"})


def write_journal(path, steps):
    with Journal(path) as journal:
        for step in steps:
            journal.append(step, {"train/loss": 1.0 / (step + 1), "val/mAP": step / 10})
    return path


def logged_steps(uri, run_id, name="train/loss"):
    return [metric.step for metric in MlflowClient(uri).get_metric_history(run_id, name)]


def test_opening_twice_gives_one_run_each(tracker, uri, storage):
    parent, run = open_trial(tracker)
    again = Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts")
    assert open_trial(again, signature="s1")[0] == parent
    assert open_trial(again, signature="s1")[1].run_id == run.run_id
    assert open_trial(again, signature="s2")[1].run_id != run.run_id
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("caer_s/dict_size")
    assert len(client.search_runs([experiment.experiment_id])) == 3
    child = client.get_run(run.run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.data.tags["ccim.kind"] == "trial"
    assert child.data.tags["ccim.signature"] == "s1"
    assert child.data.params == {"dictionary.size": "64", "seed": "0"}
    assert client.get_run(parent).data.tags["ccim.kind"] == "sweep"
    assert Path(experiment.artifact_location.removeprefix("file://").replace("%20", " ")).is_relative_to(storage)


def test_a_trial_of_another_sweep_has_its_own_run(tracker):
    _, first = open_trial(tracker)
    other = tracker.open_parent("sweep2", "ablations", {}, {})
    assert tracker.open_trial(other, "s1", "N=64", {}, {}).run_id != first.run_id


def test_reuse_keeps_params_adds_missing_ones_and_renews_tags(tracker, uri):
    parent, run = open_trial(tracker)
    tracker.finish(run.run_id, "FAILED", "CUDA out of memory")
    assert MlflowClient(uri).get_run(run.run_id).data.tags["ccim.reason"] == "CUDA out of memory"
    many = {f"p{number}": str(number) for number in range(250)}
    tracker.open_trial(parent, "s1", "N=64", {"dictionary.size": "128", **many}, {"ccim.version.torch": "9"})
    found = MlflowClient(uri).get_run(run.run_id)
    assert found.data.params == {"dictionary.size": "64", "seed": "0", **many}
    assert found.data.tags["ccim.version.torch"] == "9"
    assert "ccim.reason" not in found.data.tags
    assert found.info.status == "RUNNING"
    tracker.finish(run.run_id, "FINISHED")
    assert MlflowClient(uri).get_run(run.run_id).info.status == "FINISHED"


def test_replay_after_a_kill_gives_each_step_once(tracker, uri, storage, tmp_path):
    journal = tmp_path / "journal.jsonl"
    _, run = open_trial(tracker)
    tracker.replay(run, journal)
    tracker.replay(run, write_journal(journal, range(3)))
    with Journal(journal) as opened:
        opened.append(3, {"train/loss": 0.1, "val/mAP": 0.3})
    del tracker  # the driver is gone; the trial trained on, was killed, and resumed from epoch 2

    with Journal(journal) as opened:
        opened.rewind(2)
    write_journal(journal, range(3, 6))
    later = Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts")
    _, resumed = open_trial(later)
    for _ in range(3):
        later.replay(resumed, journal)
    assert resumed.run_id == run.run_id
    assert logged_steps(uri, run.run_id) == list(range(6))
    assert logged_steps(uri, run.run_id, "val/mAP") == list(range(6))


DRIVER = """
import sys
from pathlib import Path
from ccim_ray.journal import Journal
from ccim_ray.tracking import Tracker
tracker = Tracker(sys.argv[1], "caer_s/dict_size", None)
run = tracker.open_trial(tracker.open_parent("sweep1", "dict_size", {}, {}), "s1", "N=64", {}, {})
with Journal(Path(sys.argv[2])) as journal:
    for step in range(100_000):
        journal.append(step, {"train/loss": 1.0 / (step + 1), "val/mAP": 0.5})
        tracker.replay(run, journal.path)
"""


@pytest.mark.slow
def test_a_killed_driver_is_caught_up_by_the_next(tracker, uri, tmp_path):
    journal = tmp_path / "journal.jsonl"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, uri, str(journal)])
    try:
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 10:
            assert driver.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    parent, run = open_trial(tracker)
    assert run.logged_step is None  # it was found, not created
    tracker.replay(run, journal)
    steps = [line.step for line in read_journal(journal)]
    assert steps == list(range(len(steps)))
    assert logged_steps(uri, run.run_id) == steps
    assert logged_steps(uri, run.run_id, "val/mAP") == steps
    assert len(tracker.trials(parent)) == 1


def test_replay_keeps_the_time_of_the_journal_and_names_with_slashes(tracker, uri, tmp_path):
    journal = tmp_path / "journal.jsonl"
    before = int(time.time() * 1000)
    with Journal(journal) as opened:
        opened.append(0, {"train/loss": float("nan"), "test/AP/Doubt/Confusion": 0.5, "test/AP/joy & love": 0.25})
    after = int(time.time() * 1000)
    _, run = open_trial(tracker)
    tracker.replay(run, journal)
    client = MlflowClient(uri)
    point = client.get_metric_history(run.run_id, "test/AP/Doubt/Confusion")[0]
    assert before <= point.timestamp <= after
    metrics = client.get_run(run.run_id).data.metrics
    assert metrics["test/AP/Doubt/Confusion"] == 0.5
    assert metrics["test/AP/joy _ love"] == 0.25
    assert metrics["train/loss"] != metrics["train/loss"]


def test_more_metrics_than_one_call_takes(tracker, uri, tmp_path):
    journal = tmp_path / "journal.jsonl"
    wide = {f"val/AP/c{number}": number / 3000 for number in range(1500)}
    with Journal(journal) as opened:
        opened.append(0, {"train/loss": 1.0, **wide})
        for step in range(1, 4):
            opened.append(step, {"train/loss": 1.0 - step / 10, "val/mAP": 0.5})
    _, run = open_trial(tracker)
    tracker.replay(run, journal)
    assert logged_steps(uri, run.run_id) == [0, 1, 2, 3]
    assert len(MlflowClient(uri).get_run(run.run_id).data.metrics) == 1502


def test_a_journal_without_a_loss_is_also_replayed_once(tracker, uri, storage, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with Journal(journal) as opened:
        opened.append(0, {"val/mAP": 0.1})
    _, run = open_trial(tracker)
    tracker.replay(run, journal)
    with Journal(journal) as opened:
        opened.rewind(-1)
        opened.append(0, {"val/mAP": 0.1})
        opened.append(1, {"val/mAP": 0.2})
    later = Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts")
    later.replay(open_trial(later)[1], journal)
    assert logged_steps(uri, run.run_id, "val/mAP") == [0, 1]


def test_final_metrics_are_logged_once_after_the_last_epoch(tracker, uri, tmp_path):
    _, run = open_trial(tracker)
    tracker.replay(run, write_journal(tmp_path / "journal.jsonl", range(4)))
    final = {"val/mAP": 0.125, "test/mAP": 0.25, "test/AP/Anger": 0.5}
    tracker.log_final(run, final)
    _, again = open_trial(tracker)
    tracker.log_final(again, final)
    assert logged_steps(uri, run.run_id, "test/mAP") == [4]
    assert logged_steps(uri, run.run_id, "test/AP/Anger") == [4]
    # What the epochs log too ends with the value of the model that is kept.
    assert logged_steps(uri, run.run_id, "val/mAP")[-1] == 4
    assert MlflowClient(uri).get_run(run.run_id).data.metrics["val/mAP"] == 0.125


def test_nothing_is_left_running(tracker, uri):
    parent, dead = open_trial(tracker, "dead")
    _, live = open_trial(tracker, "live")
    _, done = open_trial(tracker, "done")
    tracker.finish(done.run_id, "FINISHED")
    assert tracker.finish_leftovers(parent, {live.run_id}) == [dead.run_id]
    client = MlflowClient(uri)
    assert client.get_run(dead.run_id).info.status == "KILLED"
    assert client.get_run(live.run_id).info.status == "RUNNING"
    tracker.finish_leftovers(parent)
    tracker.finish(parent, "FINISHED")
    experiment = client.get_experiment_by_name("caer_s/dict_size").experiment_id
    assert client.search_runs([experiment], "attributes.status = 'RUNNING'") == []


def test_what_was_logged_is_read_back_for_reports(tracker, uri):
    parent, run = open_trial(tracker)
    tracker.log_final(run, {"test/mAP": 0.5})
    tracker.finish(run.run_id, "FINISHED")
    assert [sweep.run_id for sweep in tracker.sweeps()] == [parent]
    (trial,) = tracker.trials(parent)
    assert (trial.status, trial.name, trial.metrics) == ("FINISHED", "N=64 seed 0", {"test/mAP": 0.5})
    assert trial.params["dictionary.size"] == "64"
    assert "caer_s/dict_size" in logged_experiments(uri)


def test_artifacts(tracker, tmp_path):
    _, run = open_trial(tracker)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "sweep.png").write_bytes(b"x")
    (tmp_path / "results.csv").write_text("dataset\n")
    assert not tracker.has_artifact(run.run_id, "results.csv")
    tracker.log_artifacts(run.run_id, [tmp_path / "results.csv"])
    tracker.log_artifacts(run.run_id, [tmp_path / "figures"], "figures")
    assert tracker.has_artifact(run.run_id, "results.csv")
    assert tracker.has_artifact(run.run_id, "figures/sweep.png")
    assert not tracker.has_artifact(run.run_id, "figures/other.png")


def test_a_deleted_experiment_is_explained(tracker, uri, storage):
    experiment = MlflowClient(uri).get_experiment_by_name("caer_s/dict_size")
    MlflowClient(uri).delete_experiment(experiment.experiment_id)
    with pytest.raises(RequestError, match="mlflow experiments restore"):
        Tracker(uri, "caer_s/dict_size", storage)
