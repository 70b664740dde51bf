"""The preview of many heads as a user runs it: killed in the middle, again, and then a sweep over the same heads."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from job_runs import TINY, Ended, run_job
from mlflow import MlflowClient
from running_processes import kill_job_when

pytestmark = pytest.mark.slow

GRID = (*TINY, "--sizes", "8", "16")
TRIALS = 28


def ended_trial(folder: Path) -> tuple[object, bytes, bytes]:
    """What must repeat of a trial."""
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    return result, (folder / "best.safetensors").read_bytes(), (folder / "scores.safetensors").read_bytes()


def test_killed_then_ended_then_swept(tiny_sweep: tuple[Path, Ended], tmp_path: Path) -> None:
    """Every trial that a sweep has too is bitwise that sweep's; the sweep afterwards trains nothing."""
    ended_one = lambda: any(tmp_path.glob("trials/*/result.json"))  # noqa: E731
    kill_job_when(ended_one, tmp_path / "log", "preview_heads", *GRID, "--storage", str(tmp_path))
    while (before := len(list(tmp_path.glob("trials/*/result.json")))) and not_settled(tmp_path):
        pass
    assert 0 < before < TRIALS

    ended = run_job("preview_heads", *GRID, "--storage", str(tmp_path))
    assert ended.status == 0, ended.err
    assert f"{TRIALS} trials: {before} done" in ended.out
    for expected in ("The best 5 of 12 by validation", "How alike two seeds rank", "none has been trained end to end"):
        assert expected in ended.out
    for folder in (tiny_sweep[0] / "trials").iterdir():
        assert ended_trial(tmp_path / "trials" / folder.name) == ended_trial(folder)

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("confounded_scenes/heads").experiment_id])
    children = [run for run in runs if run.data.tags["ccim.kind"] == "trial"]
    assert (len(runs), len(children)) == (TRIALS + 1, TRIALS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        assert {"test_id/accuracy", "test_do/accuracy", "val/accuracy", "train/loss"} <= set(run.data.metrics)
        assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["config"]

    swept = run_job("sweep_dict_size", *TINY, "--storage", str(tmp_path))
    assert swept.status == 0, swept.err
    assert "8 trials: 8 done" in swept.out


def not_settled(storage: Path) -> bool:
    """Whether a process of the killed job still ends its last trial."""
    found = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")}
    time.sleep(3)
    return {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/*")} != found


def test_a_preview_trains_heads_only(tmp_path: Path) -> None:
    ended = run_job("preview_heads", "--trainable", "all", "--storage", str(tmp_path))
    assert ended.status == 2
    assert ended.err.startswith("error: --trainable all: a preview trains heads")
