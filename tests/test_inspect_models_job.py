"""The job as a user runs it: it trains, looks, reads what is there already, and says in one line what lacks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from job_runs import Ended, run_job
from safetensors.numpy import load_file

from ccim_ray.inspecting import InspectionFlags
from ccim_ray.inspection import inspect_model, is_right
from ccim_ray.sweeping import sweep_request
from search_spaces.inspection import inspection_space

pytestmark = pytest.mark.slow

SMALL = ("--preset", "smoke", "--like", "emotic", "--images", "300", "--epochs", "2", "--cases", "2")
SETTINGS = ("vanilla", "W_h alone", "CCIM")


def folder_of(ended: Ended) -> Path:
    assert ended.status == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Results in ")]
    return Path(line.removeprefix("Results in ").split(":")[0])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    storage = tmp_path_factory.mktemp("inspection")
    return storage, run_job("inspect_models", *SMALL, "--storage", str(storage))


def test_numbers_files_and_artefacts(first_run: tuple[Path, Ended]) -> None:
    storage, ended = first_run
    folder = folder_of(ended)
    probes = rows_of(folder / "feature_probes_test_do.csv")
    kinds = [("vanilla", "h"), *((setting, kind) for setting in SETTINGS[1:] for kind in ("h", "classifier input"))]
    assert [(row["setting"], row["features"], row["target"]) for row in probes] == [
        (*kind, target) for kind in kinds for target in ("scene", "emotion")
    ]
    assert all(0 <= float(row["purity"]) <= 1 for row in probes)
    cases, values = rows_of(folder / "cases_test_do.csv"), json.loads((folder / "inspection_test_do.json").read_text())
    assert len(cases) == 39
    for compared in values["cases"]:
        pairs = [tuple(row[f"{compared[name]}, seed 0: right"] for name in ("first", "second")) for row in cases]
        assert compared["both right"] == pairs.count(("True", "True"))
        assert compared["only the first right"] == pairs.count(("True", "False"))
        assert compared["only the second right"] == pairs.count(("False", "True"))
        assert compared["both wrong"] == pairs.count(("False", "False"))
    last = values["cases"][-1]
    assert f"vanilla wrong, CCIM right: 2 of {last['only the second right']} drawn at random (seed 0)" in ended.out
    assert f"CCIM wrong, vanilla right: 2 of {last['only the first right']} drawn at random (seed 0)" in ended.out
    logged = {path.name for path in (storage / "mlflow-artifacts").rglob("*_test_do.*")}
    assert logged == {path.name for path in folder.glob("*_test_do.*")}
    assert {"feature_map_test_do.png", "cases_test_do.png"} < logged


def test_models_give_what_their_trials_scored(first_run: tuple[Path, Ended]) -> None:
    flags = InspectionFlags(preset="smoke", like="emotic", images=300, epochs=2, storage=str(first_run[0]))
    plan = sweep_request(flags, inspection_space(flags.deconfounders), ["test"]).plan()
    assert [planned.setting for planned in plan.trials] == list(SETTINGS)
    for planned in plan.trials:
        inputs = planned.trial.paths.read()
        rows = inputs.rows("test_do")
        model = inspect_model(planned, inputs, rows)
        trial = Path(planned.trial.paths.folder)
        stored, weights = load_file(trial / "scores.safetensors"), load_file(trial / "best.safetensors")
        np.testing.assert_allclose(model.logits_SK, stored["test_do"], atol=1e-5)
        read_SK = model.hidden_SM @ weights["classifier.weight"].T + weights["classifier.bias"]
        np.testing.assert_allclose(read_SK, model.logits_SK, atol=1e-4)
        assert model.intervenes == (planned.setting != "vanilla")
        if planned.setting == "W_h alone":
            projected_SM = model.joint_SH @ weights["ccim.joint_projection.weight"].T
            np.testing.assert_allclose(projected_SM, model.hidden_SM, atol=1e-4)
        assert 0 < is_right(model.logits_SK, inputs.index.targets[rows]).sum() < len(rows)


def test_what_is_there_is_read_and_what_lacks_is_made_or_told(first_run: tuple[Path, Ended]) -> None:
    storage, ended = first_run
    folder = folder_of(ended)
    before = (folder / "feature_probes_test_do.csv").read_bytes(), (folder / "cases_test_do.png").read_bytes()
    shutil.rmtree(storage / "derived" / "features")
    again = run_job("inspect_models", *SMALL, "--storage", str(storage))
    assert folder_of(again) == folder
    assert "Extracting" in again.out
    assert "Training" not in again.out
    after = (folder / "feature_probes_test_do.csv").read_bytes(), (folder / "cases_test_do.png").read_bytes()
    assert after == before

    (world,) = (storage / "worlds").iterdir()
    for row in rows_of(folder / "cases_test_do.csv"):
        (world / row["image"]).unlink()
    told = run_job("inspect_models", *SMALL, "--storage", str(storage))
    assert told.status == 2
    (line,) = told.err.strip().splitlines()
    assert line.startswith("error: ")
    assert "missing image" in line
    assert "put the picture back" in line
