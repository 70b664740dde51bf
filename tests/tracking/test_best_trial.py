"""Which trial is the best of what MLflow holds, and models that are fetched without running them."""

import json
import pickle
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelOutput
from untrained_model import write_untrained

from ccim_ray.chosen_model import choose_model
from ccim_ray.errors import RequestError
from ccim_ray.reports.trial_report import model_example
from ccim_ray.storage import Storage
from ccim_ray.tracking import Tracker, TrialRun, best_trial, fetch_model, finished_trials, model_data


def log_trial(tracker, signature, status="FINISHED", dataset="caer_s", sweep="sweep1", model=True, **metrics):
    run = tracker.open_trial(
        tracker.open_parent(sweep, "dict_size", {}, {}), signature, f"trial {signature}", {"dataset": dataset}, {}
    )
    tracker.log_final(run, {name.replace("_", "/"): value for name, value in metrics.items()})
    if model:
        client = tracker._client
        logged = client.create_logged_model(client.get_run(run.run_id).info.experiment_id)
        client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, 0)])
    tracker.finish(run.run_id, status)
    return run


def test_the_best_by_validation_is_taken_of_all_sweeps(tracker, uri, storage):
    log_trial(tracker, "a", val_accuracy=0.5, test_accuracy=0.9)
    best = log_trial(tracker, "b", sweep="sweep2", val_accuracy=0.7, test_accuracy=0.1)
    log_trial(tracker, "c", "FAILED", val_accuracy=0.8)
    log_trial(tracker, "d")  # diverged: nothing was measured
    log_trial(tracker, "f", model=False, val_accuracy=0.9)  # as a search leaves its trials
    other = Tracker(uri, "caer_s/single", storage / "mlflow-artifacts")
    log_trial(other, "e", sweep="sweep3", val_accuracy=0.6)
    run, told = best_trial(finished_trials(uri), None)
    assert run.run_id == best.run_id
    assert told == "best of 3 trials by val/accuracy 70.00%"


def test_trials_that_do_not_compare_are_told(tracker, uri, storage):
    with pytest.raises(RequestError, match=r"holds no trained model: train one with jobs/train\.py"):
        finished_trials(uri)
    log_trial(tracker, "a", val_accuracy=0.5)
    emotic = Tracker(uri, "emotic/dict_size", storage / "mlflow-artifacts")
    log_trial(emotic, "b", dataset="emotic", val_mAP=0.3)
    runs = finished_trials(uri)
    with pytest.raises(RequestError, match="models of caer_s, emotic: add --dataset NAME"):
        best_trial(runs, None)
    run, told = best_trial(runs, "emotic")
    assert (run.tags["ccim.signature"], told) == ("b", "the only trial, val/mAP 30.00%")
    with pytest.raises(RequestError, match="--dataset groupwalk: no trained model; there are models of caer_s, emotic"):
        best_trial(runs, "groupwalk")
    log_trial(tracker, "c", val_mAP=0.9)
    with pytest.raises(RequestError, match="2 trained models have val/accuracy and val/mAP"):
        best_trial(finished_trials(uri), "caer_s")


def test_a_database_that_is_not_there_is_not_created(tmp_path):
    with pytest.raises(RequestError, match="holds no trained model"):
        finished_trials(f"sqlite:///{tmp_path}/mlflow.db")
    assert not list(tmp_path.iterdir())


def log_untrained(tracker: Tracker, run: TrialRun, folder: Path, subjects: Path) -> str:
    write_untrained(folder)
    example_input, example_output = model_example(folder, subjects)
    return tracker.log_model(run.run_id, folder, example_input, example_output)


@pytest.fixture
def subjects(small_world, tmp_path):
    from ccim_ray.datasets.registry import load_dataset
    from ccim_ray.prepared import write_subject_index

    write_subject_index(load_dataset("confounded_scenes", small_world), tmp_path / "subjects.parquet")
    return tmp_path / "subjects.parquet"


def test_a_logged_model_is_chosen_by_every_name_it_has(tracker, uri, tmp_path, subjects):
    run = log_trial(tracker, "0123456789abcdef", val_accuracy=0.5)
    model_uri = log_untrained(tracker, run, tmp_path / "model", subjects)
    storage = Storage(tmp_path / "elsewhere")
    fetched = fetch_model(uri, model_uri, tmp_path / "fetched")
    names = ["best", "0123456789abcdef", f"runs:/{run.run_id}/model", model_uri, str(fetched)]
    names.append(str(tmp_path / "fetched"))
    found = [choose_model(name, None, storage, uri) for name in names]
    assert len({model.digest for model in found}) == 1
    assert found[0].files["best.safetensors"] == (tmp_path / "model/best.safetensors").read_bytes()
    assert (
        found[0].name == "caer_s, trial 0123456789abcdef, trial 0123456789abcdef (the only trial, val/accuracy 50.00%)"
    )
    with pytest.raises(RequestError, match="--model runs:/0000/model: MLflow at sqlite.* does not give it") as error:
        choose_model("runs:/0000/model", None, storage, uri)
    assert "\n" not in str(error.value)


class Trap:
    def __reduce__(self):
        return open, ("trap was sprung", "w")


@pytest.mark.parametrize("loader", ["stand_in_loader", "mlflow.pyfunc.model", "os"])
def test_a_model_of_others_is_refused_before_anything_of_it_runs(tmp_path, monkeypatch, loader):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stand_in_loader.py").write_text("raise SystemExit('imported')")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/python_model.pkl").write_bytes(pickle.dumps(Trap()))
    flavour = {"loader_module": loader, "python_model": "python_model.pkl", "data": "."}
    (tmp_path / "model/MLmodel").write_text(json.dumps({"flavors": {"python_function": flavour}}))
    with pytest.raises(RequestError, match=f"model is read by {loader}, not by ccim_ray.serving") as error:
        choose_model("model", None, Storage(tmp_path), None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trap was sprung").exists()


@pytest.mark.parametrize(
    "content", ["", "flavors: 3", "!!python/object/apply:os.mkdir ['sprung']", "\0", "flavors: {}"]
)
def test_a_description_that_is_damaged_is_told(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(RequestError, match="is no model that MLflow can load") as error:
        model_data(tmp_path, "it")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sprung").exists()


def test_data_outside_the_folder_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    flavour = {"loader_module": "ccim_ray.serving", "data": "../secrets"}
    (tmp_path / "model/MLmodel").write_text(json.dumps({"flavors": {"python_function": flavour}}))
    with pytest.raises(RequestError, match="names data outside its folder, ../secrets"):
        model_data(tmp_path / "model", "it")
