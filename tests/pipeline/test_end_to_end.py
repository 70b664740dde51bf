"""Training end to end: a DDP group of two processes under Ray Train, and what a sweep does with divergence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job_runs import TINY, run_job

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.presets import default_experiment
from ccim_ray.resources import TrialResources
from ccim_ray.storage import Storage
from ccim_ray.sweep_request import SweepRequest
from search_spaces.dict_size import dict_size_space

pytestmark = pytest.mark.slow


def test_two_ddp_workers(tmp_path: Path) -> None:
    flags = (
        *TINY,
        "--trainable",
        "all",
        "--workers-per-trial",
        "2",
        "--seeds",
        "0",
        "--storage",
        str(tmp_path),
    )
    ended = run_job("train", *flags)
    assert ended.status == 0, ended.out + ended.err
    (folder,) = (tmp_path / "trials").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done"
    assert result["epochs"] == 2
    steps = [json.loads(line)["step"] for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert steps == [0, 1]


def test_divergence_is_a_result(tmp_path: Path, cluster, capsys) -> None:
    from ccim_ray.pipeline.sweep import run_sweep

    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=200))
    request = SweepRequest(
        space=dict_size_space([8]),
        bases=(base.with_changes(learning_rate=1e30, epochs=2),),
        seeds=(0,),
        storage=Storage.open(str(tmp_path)),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        resources=TrialResources(),
    )
    assert run_sweep(request) == 0
    printed = capsys.readouterr().out
    assert printed.count("diverged at step") == 3
    states = [json.loads(path.read_text()) for path in tmp_path.glob("trials/*/result.json")]
    assert [state["status"] for state in states] == ["diverged"] * 3
    assert all(state["diverged_at_step"] is not None for state in states)
