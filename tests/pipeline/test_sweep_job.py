"""The main job, from an empty folder to its results, again, extended, and killed in the middle."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from job_runs import ROOT, TINY, Ended, job_command, job_environment, run_job
from mlflow import MlflowClient
from running_processes import kill_job_when

pytestmark = pytest.mark.slow


def trial_folders(storage: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in sorted((storage / "trials").iterdir())}


def results_of(storage: Path) -> dict[str, tuple[object, bytes, bytes]]:
    """What must repeat: metrics, best weights and test scores of every trial."""
    found = {}
    for signature, folder in trial_folders(storage).items():
        result = json.loads((folder / "result.json").read_text())
        del result["seconds"]
        found[signature] = (
            result,
            (folder / "best.safetensors").read_bytes(),
            (folder / "scores.safetensors").read_bytes(),
        )
    return found


def runs_of(storage: Path):
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("confounded_scenes/dict_size")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["ccim.kind"] == "sweep"]
    children = [run for run in runs if run.data.tags["ccim.kind"] == "trial"]
    assert len(parents) + len(children) == len(runs)
    return client, parents, children


def rows_of(storage: Path) -> list[dict[str, str]]:
    (path,) = storage.glob("sweeps/*/results.csv")
    return list(csv.DictReader(path.open()))


def test_the_first_command_works(tiny_sweep: tuple[Path, Ended]) -> None:
    storage, ended = tiny_sweep
    assert ended.status == 0, ended.err
    assert ended.err == ""
    for expected in ("8 trials: 8 new", "CCIM N=16", "chance", "Bayes oracle", "flip_rate", "mlflow"):
        assert expected in ended.out
    assert len(trial_folders(storage)) == 8


def test_the_last_line_predicts_with_the_best_model(tiny_sweep: tuple[Path, Ended]) -> None:
    storage, ended = tiny_sweep
    python, *words = shlex.split(ended.out.splitlines()[-1].removeprefix("Predict with the best model by validation: "))
    assert words[-2:] == ["--storage", str(storage)]
    command = [python, *words, "--plan"]
    shown = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, timeout=120)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Model: {words[2]}\n")
    assert f"the test pictures of its embedded world in {storage}" in shown.stdout


def test_results_table_follows_the_contract(tiny_sweep: tuple[Path, Ended]) -> None:
    rows = rows_of(tiny_sweep[0])
    assert list(rows[0]) == [
        "dataset",
        "baseline",
        "setting",
        "metric",
        "n_seeds",
        "mean",
        "sd",
        "ci_low",
        "ci_high",
        "reference_setting",
        "delta",
        "p_holm",
        "published",
        "published_delta",
    ]
    measured = [row for row in rows if row["n_seeds"]]
    scored = {f"{split}/accuracy" for split in ("test_id", "test_do", "test_anti")}
    assert {row["metric"] for row in rows} == scored | {"test_do/flip_rate", "test_do/scene_tv"}
    of_swap = {row["setting"] for row in rows if row["metric"] == "test_do/flip_rate" and row["mean"]}
    assert {"vanilla", "CCIM N=16", "Bayes oracle P(Y|X)", "Bayes oracle P(Y|do(X))"} <= of_swap
    assert {row["setting"] for row in measured} == {"vanilla", "W_h alone", "CCIM N=8", "CCIM N=16"}
    assert all(row["n_seeds"] == "2" and 0 <= float(row["mean"]) <= 1 for row in measured)
    assert all(row["published"] == "" for row in rows)
    for row in measured:
        values = [
            json.loads((folder / "result.json").read_text())["metrics"][row["metric"]]
            for folder in trial_folders(tiny_sweep[0]).values()
            if setting_of(folder) == row["setting"]
        ]
        assert float(row["mean"]) == pytest.approx(sum(values) / 2)


def setting_of(folder: Path) -> str:
    experiment = json.loads((folder / "experiment.json").read_text())
    if experiment["deconfounder"] != "ccim":
        return {"none": "vanilla", "projection": "W_h alone"}[experiment["deconfounder"]]
    return f"CCIM N={experiment['dictionary']['size']}"


def test_mlflow_holds_one_parent_and_its_children(tiny_sweep: tuple[Path, Ended]) -> None:
    client, parents, children = runs_of(tiny_sweep[0])
    (parent,) = parents
    assert len(children) == 8
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["ccim.signature"] for run in children} == set(trial_folders(tiny_sweep[0]))
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert names == {"results.csv", "results.md", "results.tex", "dict_size.png", "dict_size.html"}
    for run in children:
        params, metrics = run.data.params, run.data.metrics
        assert {"dataset", "baseline", "seed", "trainable", "deconfounder", "ccim.enabled", "epochs"} <= set(params)
        if params["deconfounder"] == "ccim":
            assert {"ccim.attention", "dictionary.size", "dictionary.source", "backbone.arch"} <= set(params)
        expected = {
            "train/loss",
            "val/accuracy",
            "test_id/accuracy",
            "test_do/accuracy",
            "test_anti/accuracy",
            "test_do/flip_rate",
            "test_do/scene_tv",
        }
        assert expected <= set(metrics)
        assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1]
        kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"config", "figures"} <= kept


def test_mlflow_shows_notes_data_load_and_the_best_models(tiny_sweep: tuple[Path, Ended]) -> None:
    client, (parent,), children = runs_of(tiny_sweep[0])
    for run in (parent, *children):
        (data,) = run.inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == (
            "confounded_scenes",
            run.data.tags["ccim.data_fingerprint"],
        )
        assert "\n    python " in run.data.tags["mlflow.note.content"]
    assert 0 <= parent.data.metrics["system/system_memory_usage_percentage"] <= 100
    sweep_id = parent.data.tags["ccim.sweep"]
    experiment = client.get_experiment(parent.info.experiment_id)
    assert f"mlflow.sharedViewState.{sweep_id}" in experiment.tags
    assert f"/runs?compareRunsMode=CHART&viewStateShareKey={sweep_id}\n" in tiny_sweep[1].out
    name = f"confounded_scenes.dict_size.{sweep_id}"
    registered = client.search_model_versions(f"name = '{name}'")
    assert {version.tags["setting"] for version in registered} == {"vanilla", "W_h alone", "CCIM N=8", "CCIM N=16"}
    assert len(registered) == 4
    best = client.get_run(client.get_model_version_by_alias(name, "best").run_id)
    assert best.data.metrics["val/accuracy"] == max(run.data.metrics["val/accuracy"] for run in children)


def test_logged_model_predicts_without_ray(tiny_sweep: tuple[Path, Ended]) -> None:
    storage, _ = tiny_sweep
    _, _, children = runs_of(storage)
    picture = next(storage.glob("worlds/*/CAER-S/test/Happy/*.png"))
    script = f"""
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///{storage}/mlflow.db")
model = mlflow.pyfunc.load_model("runs:/{children[0].info.run_id}/model")
rows = pd.DataFrame([dict(image="{picture}", x1=20.0, y1=20.0, x2=90.0, y2=120.0)])
scores = model.predict(rows)
assert list(scores.columns) == ["Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
assert abs(scores.to_numpy().sum() - 1) < 1e-5
assert "ray" not in sys.modules
"""
    command = [job_command("train")[0], "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, env=job_environment(), check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_same_command_again_runs_nothing(tiny_sweep: tuple[Path, Ended], tmp_path: Path) -> None:
    storage, _ = tiny_sweep
    before = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")}
    rows = rows_of(storage)
    ended = run_job("sweep_dict_size", *TINY, "--storage", str(storage))
    assert ended.status == 0, ended.err
    assert "8 trials: 8 done" in ended.out
    assert {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")} == before
    assert rows_of(storage) == rows
    client, parents, children = runs_of(storage)
    assert (len(parents), len(children)) == (1, 8)
    for run in children:
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 2
        assert len(client.get_metric_history(run.info.run_id, "test_do/accuracy")) == 1


def test_killed_in_the_middle_then_extended(tiny_sweep: tuple[Path, Ended], tmp_path: Path) -> None:
    """SIGKILL while trials run; the same command ends bitwise equal; a new size adds only its own trials."""
    ended_one = lambda: any(tmp_path.glob("trials/*/result.json"))  # noqa: E731
    kill_job_when(ended_one, tmp_path / "log", "sweep_dict_size", *TINY, "--storage", str(tmp_path))
    killed_with = len(list(tmp_path.glob("trials/*/result.json")))
    assert killed_with < 8

    ended = run_job("sweep_dict_size", *TINY, "--storage", str(tmp_path))
    assert ended.status == 0, ended.err
    found_done = re.search(r"8 trials: (\d) done", ended.out)
    assert found_done, ended.out
    assert int(found_done[1]) >= killed_with  # a trial beside the killed job may have ended before its process did
    assert results_of(tmp_path) == results_of(tiny_sweep[0])
    client, parents, children = runs_of(tmp_path)
    assert (len(parents), len(children)) == (1, 8)
    assert {run.info.status for run in (*parents, *children)} == {"FINISHED"}
    for run in children:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1]

    extended = run_job("sweep_dict_size", *TINY, "--storage", str(tmp_path), "--sizes", "8", "12")
    assert extended.status == 0, extended.err
    assert "8 trials: 6 done, 2 new" in extended.out
    assert {row["setting"] for row in rows_of(tmp_path)} >= {"CCIM N=8", "CCIM N=12", "CCIM N=16"}
    _, parents, children = runs_of(tmp_path)
    assert (len(parents), len(children)) == (1, 10)


def test_a_failed_trial_is_told_and_the_others_are_done(tiny_sweep: tuple[Path, Ended], tmp_path: Path) -> None:
    import shutil

    storage = tmp_path / "copy"
    shutil.copytree(tiny_sweep[0], storage)
    for folder in trial_folders(storage).values():
        if setting_of(folder) == "CCIM N=8":
            (folder / "result.json").unlink()
            (folder / "best.safetensors").unlink()
            (folder / "best.safetensors").mkdir()  # can never be written
    ended = run_job("sweep_dict_size", *TINY, "--storage", str(storage))
    assert ended.status == 1
    assert ended.out.count("FAILED: ") == 2
    assert "cannot write" in ended.out
    settings = {row["setting"]: row["n_seeds"] for row in rows_of(storage)}
    assert (settings["vanilla"], settings["CCIM N=8"], settings["CCIM N=16"]) == ("2", "0", "2")
    _, parents, children = runs_of(storage)
    assert parents[0].info.status == "FAILED"
    failed = [run for run in children if run.info.status == "FAILED"]
    assert len(failed) == 2
    assert all("cannot write" in run.data.tags["ccim.reason"] for run in failed)
