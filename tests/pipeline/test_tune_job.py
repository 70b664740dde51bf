"""A search as a user runs it: from an empty folder to chosen values, killed in the middle, and its trials elsewhere."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from pathlib import Path

import pytest
from job_runs import Ended, run_job
from mlflow import MlflowClient
from running_processes import kill_job_when

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEARCH = ("--preset", "smoke", "--images", "300", "--epochs", "4", "--num-samples", "8")
EARLY = ("--grace-epochs", "1", "--reduction-factor", "2", "--max-concurrent", "1")


def search(storage: Path, *flags: str) -> Ended:
    return run_job("tune_hyperparameters", *SEARCH, *EARLY, "--storage", str(storage), *flags, timeout=600)


def trials_of(storage: Path) -> list[dict[str, str]]:
    (path,) = storage.glob("searches/*/trials.csv")
    return list(csv.DictReader(path.open()))


def best_of(storage: Path) -> dict[str, object]:
    (path,) = storage.glob("searches/*/best.json")
    return json.loads(path.read_text())


def children_of(storage: Path) -> tuple[MlflowClient, list]:
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("confounded_scenes/hyperparameters")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["ccim.kind"] == "search"]
    assert parent.info.status == "FINISHED"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    found = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert found >= {"trials.csv", "best.json", "history.png", "history.html", "importances.png", "importances.html"}
    return client, children


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Storage of a search that ran without interruption, and how it ended. Not to be changed by tests."""
    storage = tmp_path_factory.mktemp("search")
    return storage, search(storage)


def test_a_search_chooses_the_best_by_validation(whole: tuple[Path, Ended]) -> None:
    storage, ended = whole
    assert ended.status == 0, ended.err
    assert ended.err == ""
    trials = trials_of(storage)
    states = Counter(trial["state"] for trial in trials)
    assert sum(states.values()) == 8
    assert states["done"] >= 2
    assert states["stopped"] >= 1
    assert set(states) == {"done", "stopped"}
    best = best_of(storage)
    assert best["score"] == max(float(trial["val/accuracy"]) for trial in trials if trial["state"] == "done")
    result = json.loads((storage / "trials" / str(best["signature"]) / "result.json").read_text())
    assert best["score"] == result["metrics"]["val/accuracy"]
    assert best["best_epoch"] == result["best_epoch"]
    assert str(best["rerun_command"]) in ended.out


def test_nothing_of_the_test_splits_is_shown_or_logged(whole: tuple[Path, Ended]) -> None:
    storage, ended = whole
    assert "test_" not in ended.out
    _, children = children_of(storage)
    names = {name for run in children for name in run.data.metrics}
    assert "val/accuracy" in names
    assert not [name for name in names if name.startswith("test")]


def test_a_trial_that_was_stopped_early_is_neither_done_nor_failed(whole: tuple[Path, Ended]) -> None:
    storage, ended = whole
    stopped = [trial for trial in trials_of(storage) if trial["state"] == "stopped"]
    assert all(1 <= int(trial["epochs"]) < 4 for trial in stopped)
    assert f"stopped after epoch {stopped[0]['epochs']} of 4" in ended.out
    folders = [path.parent for path in storage.glob("trials/*/stopped.json")]
    assert len(folders) == len(stopped)
    for folder in folders:
        assert (folder / "checkpoint.pt").exists()
        assert not (folder / "result.json").exists()
        assert not (folder / "failure.json").exists()
    _, children = children_of(storage)
    assert Counter(run.info.status for run in children) == {"FINISHED": 8 - len(stopped), "KILLED": len(stopped)}
    reasons = [run.data.tags["ccim.reason"] for run in children if run.info.status == "KILLED"]
    assert all(reason.startswith("stopped: after epoch") for reason in reasons)


def test_the_same_command_again_runs_nothing(whole: tuple[Path, Ended]) -> None:
    storage, _ = whole
    before = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")}
    trials, best = trials_of(storage), best_of(storage)
    ended = search(storage)
    assert ended.status == 0, ended.err
    assert "0 still to run" in ended.out
    assert {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")} == before
    assert (trials_of(storage), best_of(storage)) == (trials, best)
    planned = search(storage, "--plan", "--num-samples", "10")
    assert "2 still to run" in planned.out


def test_killed_in_the_middle_it_ends_as_if_it_had_not_been(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    """One trial at a time, so that what is proposed does not depend on which of two trials ends first."""
    ended_two = lambda: len(list(tmp_path.glob("trials/*/result.json"))) >= 2  # noqa: E731
    flags = (*SEARCH, *EARLY, "--storage", str(tmp_path))
    kill_job_when(ended_two, tmp_path / "log", "tune_hyperparameters", *flags)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/result.json")}
    ended = search(tmp_path)
    assert ended.status == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in done} == done

    assert trials_of(tmp_path) == trials_of(whole[0])
    assert best_of(tmp_path)["values"] == best_of(whole[0])["values"]
    client, children = children_of(tmp_path)
    assert len(children) == 8
    for run in children:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(len(steps)))


def test_the_printed_command_tests_the_choice_with_fresh_seeds(whole: tuple[Path, Ended]) -> None:
    _, job, *flags = shlex.split(str(best_of(whole[0])["rerun_command"]))
    assert Path(job).name == "train.py"
    ended = run_job("train", *flags, "--plan")
    assert ended.status == 0, ended.err
    assert "0 trials │" in ended.out
    assert "3 │" in ended.out


def test_a_stopped_trial_that_is_asked_for_in_full_goes_on(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    import shutil

    storage = tmp_path / "copy"
    shutil.copytree(whole[0], storage)
    stopped = next(trial for trial in trials_of(storage) if trial["state"] == "stopped")
    experiments = {path.parent: json.loads(path.read_text()) for path in storage.glob("trials/*/experiment.json")}
    (folder,) = [
        folder
        for folder, experiment in experiments.items()
        if str(experiment["learning_rate"]) == stopped["learning_rate"]
    ]
    first_line = (folder / "journal.jsonl").read_text().splitlines()[0]
    flags = ("--learning-rate", stopped["learning_rate"], "--weight-decay", stopped["weight_decay"])
    flags += ("--batch-size", stopped["batch_size"], "--dictionary-size", stopped["dictionary.size"])
    flags += ("--attention", stopped["ccim.attention"], "--attention-dim", stopped["ccim.attention_dim"])
    ended = run_job("train", *SEARCH[:6], *flags, "--storage", str(storage))
    assert ended.status == 0, ended.err
    assert "1 trials: 1 stopped" in ended.out
    lines = (folder / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == first_line  # its time too: the epoch was not trained again
    assert (folder / "result.json").exists()
    assert not (folder / "stopped.json").exists()


def test_another_search_trains_only_what_is_damaged_again(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    import shutil

    storage = tmp_path / "copy"
    shutil.copytree(whole[0], storage)
    shutil.rmtree(storage / "searches")
    damaged = next(path.parent for path in sorted(storage.glob("trials/*/result.json")))
    (damaged / "result.json").unlink()  # as if it had been killed at its end, and its last checkpoint damaged since
    (damaged / "checkpoint.pt").write_bytes(b"damaged")
    done = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/result.json")}
    ended = search(storage)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count(f"{damaged / 'checkpoint.pt'} is damaged") == ended.out.count("it is trained anew") == 1
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert trials_of(storage) == trials_of(whole[0])
    for name in ("best.safetensors", "scores.safetensors"):
        assert (damaged / name).read_bytes() == (whole[0] / "trials" / damaged.name / name).read_bytes()
