"""A logged model loads with plain MLflow; a tracking server takes it like everything else."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from untrained_model import write_untrained

from ccim_ray.chosen_model import choose_model
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal
from ccim_ray.persons import OPTIONAL_COLUMNS, write_person
from ccim_ray.prepared import write_subject_index
from ccim_ray.reports.trial_report import model_example
from ccim_ray.serving import ServedModel
from ccim_ray.storage import Storage
from ccim_ray.tracking import (
    Tracker,
    load_model,
)
from ccim_ray.trained_model import load_trained

EXAMPLE = pd.DataFrame({"image": ["a.jpg"], "x1": [0.0], "y1": [0.0], "x2": [8.0], "y2": [9.0]})
ANSWER = pd.DataFrame({"Anger": [0.25], "Doubt/Confusion": [0.75]})

STAND_IN_LOADER = """
import json
from pathlib import Path

class Model:
    def __init__(self, weights):
        self.weights = weights
    def predict(self, model_input, params=None):
        import pandas as pd
        return pd.DataFrame({name: [w * x for x in model_input["x2"]] for name, w in self.weights.items()})

def _load_pyfunc(data_path):
    return Model(json.loads((Path(data_path) / "weights.json").read_text()))
"""


def log_stand_in_model(tracker, run_id, folder):
    (folder / "fitted").mkdir()
    (folder / "fitted" / "weights.json").write_text(json.dumps({"Anger": 0.5, "Doubt/Confusion": 2.0}))
    (folder / "stand_in_loader.py").write_text(STAND_IN_LOADER)
    return tracker.log_model(run_id, folder / "fitted", EXAMPLE, ANSWER, loader_module="stand_in_loader")


@pytest.mark.slow
def test_a_logged_model_loads_with_plain_mlflow_and_without_ray(tracker, uri, tmp_path):
    run = tracker.open_trial(tracker.open_parent("sweep1", "dict_size", {}, {}), "s1", "N=64", {}, {})
    log_stand_in_model(tracker, run.run_id, tmp_path)
    script = f"""
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("runs:/{run.run_id}/model")
frame = pd.DataFrame({{"image": ["b.jpg"], "x1": [1.0], "y1": [1.0], "x2": [4.0], "y2": [5.0]}})
print(model.predict(frame).to_json())
print([name for name in sys.modules if name.split(".")[0] == "ray"])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    predicted, ray_modules = ran.stdout.splitlines()
    assert json.loads(predicted) == {"Anger": {"0": 2.0}, "Doubt/Confusion": {"0": 8.0}}
    assert ray_modules == "[]"


NO_RAY = """
import sys

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ImportError("this machine has no Ray")

sys.meta_path.insert(0, NoRay())
try:
    import ray
except ImportError:
    pass
else:
    raise SystemExit("Ray can be imported")
import mlflow, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("runs:/{run_id}/model")
answer = model.predict(pd.read_json({asked!r}, orient="split"))
answer.to_json({answered!r}, orient="split", double_precision=15)
"""


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["emot_net", "emoticon"])
def test_a_real_model_predicts_where_ray_cannot_be_imported(tracker, uri, tmp_path, small_world, baseline):
    dataset = load_dataset("confounded_scenes", small_world)
    write_subject_index(dataset, tmp_path / "subjects.parquet")
    write_untrained(tmp_path / "fitted", baseline)
    run = tracker.open_trial(tracker.open_parent("sweep1", "dict_size", {}, {}), "s1", "N=64", {}, {})
    tracker.log_model(
        run.run_id, tmp_path / "fitted", *model_example(tmp_path / "fitted", tmp_path / "subjects.parquet")
    )
    asked = pd.DataFrame([write_person(subject, dataset.root) for subject in dataset.subjects[:3]])
    if baseline == "emot_net":
        asked = asked[["image", "x1", "y1", "x2", "y2"]]
    asked.to_json(tmp_path / "asked.json", orient="split", double_precision=15)
    names = {"asked": str(tmp_path / "asked.json"), "answered": str(tmp_path / "answered.json")}
    script = NO_RAY.format(uri=uri, run_id=run.run_id, **names)
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answer = pd.read_json(tmp_path / "answered.json", orient="split", precise_float=True)
    assert tuple(answer.columns) == dataset.categories
    expected_SK, _ = load_trained(tmp_path / "fitted", root=dataset.root).score(dataset.subjects[:3])
    np.testing.assert_allclose(answer.to_numpy(), expected_SK, atol=1e-5)


def test_a_model_is_logged_once_with_a_signature_and_no_code(tracker, uri, storage, tmp_path, monkeypatch):
    run = tracker.open_trial(tracker.open_parent("sweep1", "dict_size", {}, {}), "s1", "N=64", {}, {})
    model_uri = log_stand_in_model(tracker, run.run_id, tmp_path)
    assert tracker.log_model(run.run_id, tmp_path / "fitted", EXAMPLE, ANSWER, "stand_in_loader") == model_uri
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("caer_s/dict_size").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert (model.status, model.source_run_id) == ("READY", run.run_id)
    assert [output.model_id for output in client.get_run(run.run_id).outputs.model_outputs] == [model.model_id]
    files = {path.name for path in (storage / "mlflow-artifacts").rglob("*") if path.is_file()}
    assert "weights.json" in files
    assert not any(name.endswith((".py", ".pkl")) for name in files)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_model(uri, model_uri)
    assert loaded.metadata.signature.inputs.required_input_names() == ["image", "x1", "y1", "x2", "y2"]
    assert set(loaded.metadata.signature.inputs.optional_input_names()) == set(OPTIONAL_COLUMNS)
    assert list(loaded.predict(EXAMPLE)["Anger"]) == [4.0]


def test_a_model_whose_logging_was_cut_short_is_completed(tracker, uri, tmp_path):
    run = tracker.open_trial(tracker.open_parent("sweep1", "dict_size", {}, {}), "s1", "N=64", {}, {})
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("caer_s/dict_size").experiment_id
    begun = client.create_logged_model(experiment, "model", run.run_id)
    assert log_stand_in_model(tracker, run.run_id, tmp_path) == f"models:/{begun.model_id}"
    assert client.get_logged_model(begun.model_id).status == "READY"


class CornersAsProbabilities:
    """Answers with what it was asked, so that a mix-up of rows, columns or corners shows."""

    categories = ("Anger", "Doubt/Confusion", "Peace", "Sadness")
    views = frozenset(("context", "body"))

    def predict_persons(self, persons):
        return np.array([np.array(person.box) + len(person.image) for person in persons], np.float32)


def test_a_served_model_answers_row_by_row_with_named_categories():
    asked = pd.DataFrame({"y2": [4, 8], "x1": [1, 5], "y1": [2, 6], "x2": [3, 7], "image": ["a.jpg", "bb.jpg"]})
    asked.index = [10, 20]
    answer = ServedModel(CornersAsProbabilities()).predict(asked)
    assert list(answer.columns) == list(CornersAsProbabilities.categories)
    assert answer.loc[10].tolist() == [6, 7, 8, 9]
    assert answer.loc[20].tolist() == [11, 12, 13, 14]
    with pytest.raises(RequestError, match="no column image, x1"):
        ServedModel(CornersAsProbabilities()).predict(asked.drop(columns=["x1", "image"]))


@pytest.mark.slow
def test_a_server_takes_runs_artifacts_and_models(server, tmp_path, monkeypatch, capfd):
    tracker = Tracker(server, "emotic/dict_size", tmp_path / "not used by a server")
    parent = tracker.open_parent("sweep1", "dict_size", {}, {})
    run = tracker.open_trial(parent, "s1", "N=64", {}, {})
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(0, {"train/loss": 1.0})
        tracker.replay(run, journal.path)
        journal.append(1, {"train/loss": 0.5})
    again = Tracker(server, "emotic/dict_size", None).open_trial(parent, "s1", "N=64", {}, {})
    tracker.replay(again, tmp_path / "journal.jsonl")
    tracker.log_final(again, {"test/AP/Doubt/Confusion": 0.5})
    (tmp_path / "results.csv").write_text("dataset\n")
    tracker.log_artifacts(parent, [tmp_path / "results.csv"])
    assert tracker.has_artifact(parent, "results.csv")
    model_uri = log_stand_in_model(tracker, run.run_id, tmp_path)
    tracker.finish(run.run_id, "FINISHED")
    assert again.run_id == run.run_id
    assert [point.step for point in MlflowClient(server).get_metric_history(run.run_id, "train/loss")] == [
        0,
        1,
    ]
    assert tracker.trials(parent)[0].metrics["test/AP/Doubt/Confusion"] == 0.5
    assert not (tmp_path / "not used by a server").exists()
    write_untrained(tmp_path / "untrained")
    second = tracker.open_trial(parent, "s2", "N=32", {"dataset": "emotic"}, {})
    tracker.log_model(second.run_id, tmp_path / "untrained", EXAMPLE, ANSWER)
    tracker.log_final(second, {"val/mAP": 0.25})
    tracker.finish(second.run_id, "FINISHED")
    chosen = choose_model("best", "emotic", Storage(tmp_path / "no storage"), server)
    assert chosen.files["best.safetensors"] == (tmp_path / "untrained/best.safetensors").read_bytes()
    assert "trial s2 (the only trial, val/mAP 25.00%)" in chosen.name
    with pytest.raises(RequestError, match="is read by stand_in_loader"):
        choose_model(model_uri, None, Storage(tmp_path / "no storage"), server)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(load_model(server, model_uri).predict(EXAMPLE)["Doubt/Confusion"]) == [16.0]
    assert capfd.readouterr() == ("", "")
