"""The best model of each setting in a real registry, the best of all under an alias that moves to a better one."""

import time

import pytest
from mlflow import MlflowClient
from untrained_model import write_untrained

from ccim_ray.chosen_model import choose_model
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.prepared import write_subject_index
from ccim_ray.reports.trial_report import model_example
from ccim_ray.storage import Storage
from ccim_ray.tracking import Tracker, best_uri, load_model

NAME = "caer_s.dict_size.0123abcd"


@pytest.fixture(scope="module")
def subjects(small_world, tmp_path_factory):
    path = tmp_path_factory.mktemp("subjects") / "subjects.parquet"
    write_subject_index(load_dataset("confounded_scenes", small_world), path)
    return path


@pytest.fixture
def log(tmp_path, subjects):
    """Logs a trial with a model; returns its run id."""

    def logged(tracker, setting, seed, value, status="FINISHED", model=True, sweep="sweep1", **metrics):
        parent = tracker.open_parent(sweep, "dict_size", {}, {})
        params = {"dataset": "caer_s", "baseline": "emot_net", "seed": str(seed)}
        run = tracker.open_trial(
            parent, f"{setting}{seed}{sweep}", f"{setting}, seed {seed}", params, {"ccim.setting": setting}
        )
        tracker.log_final(run, {"val/accuracy": value, **metrics})
        if model:
            folder = tmp_path / f"model of {run.run_id}"
            write_untrained(folder)
            tracker.log_model(run.run_id, folder, *model_example(folder, subjects))
        tracker.finish(run.run_id, status)
        time.sleep(0.002)  # the one that began first is told by its millisecond
        return parent, run.run_id

    return logged


def versions(uri):
    found = MlflowClient(uri).search_model_versions(f"name = '{NAME}'", order_by=["version_number ASC"])
    return [(version.run_id, version.tags["setting"]) for version in found]


def best_run(uri):
    return MlflowClient(uri).get_model_version_by_alias(NAME, "best").run_id


def register(tracker, parent):
    return tracker.register_best(parent, NAME, "val/accuracy", "Does N matter?")


def test_the_best_of_each_setting_is_a_version_and_the_alias_moves_to_a_better_one(tracker, uri, log, tmp_path):
    parent, first = log(tracker, "vanilla", 0, 0.6, **{"test/accuracy": 0.1})
    _, ccim = log(tracker, "CCIM N=64", 0, 0.5, **{"test/accuracy": 0.9})
    log(tracker, "CCIM N=64", 1, 0.5)  # equal, and later
    log(tracker, "CCIM N=64", 2, 0.9, status="FAILED")
    log(tracker, "CCIM N=64", 3, 0.9, model=False)
    log(tracker, "vanilla", 4, float("nan"))
    log(tracker, "vanilla", 5, 0.99, sweep="another")
    assert register(tracker, parent) == best_uri(NAME) == f"models:/{NAME}@best"
    assert sorted(versions(uri)) == sorted([(first, "vanilla"), (ccim, "CCIM N=64")])
    assert best_run(uri) == first
    before = versions(uri)
    register(tracker, parent)
    assert versions(uri) == before  # nothing twice
    _, better = log(tracker, "CCIM N=64", 6, 0.7)
    register(tracker, parent)
    assert versions(uri) == [*before, (better, "CCIM N=64")]
    assert best_run(uri) == better
    registered = MlflowClient(uri).get_registered_model(NAME)
    assert registered.description == "Does N matter?"
    version = MlflowClient(uri).get_model_version_by_alias(NAME, "best")
    assert version.tags == {
        "baseline": "emot_net",
        "setting": "CCIM N=64",
        "seed": "6",
        "val/accuracy": "0.7",
    }
    assert version.description == "CCIM N=64, seed 6: val/accuracy 70.00%"
    chosen = choose_model(best_uri(NAME), None, Storage(tmp_path / "elsewhere"), uri)
    weights = tmp_path / f"model of {better}" / "best.safetensors"
    assert chosen.files["best.safetensors"] == weights.read_bytes()


def test_a_sweep_without_models_registers_nothing(tracker, uri, log):
    parent, _ = log(tracker, "vanilla", 0, 0.6, model=False)
    assert register(tracker, parent) is None
    assert MlflowClient(uri).search_registered_models() == []


@pytest.mark.slow
def test_a_server_registers_too(server, log, tmp_path):
    tracker = Tracker(server, "caer_s/dict_size", None)
    parent, run = log(tracker, "vanilla", 0, 0.6)
    register(tracker, parent)
    register(Tracker(server, "caer_s/dict_size", None), parent)
    assert versions(server) == [(run, "vanilla")]
    assert best_run(server) == run
    chosen = choose_model(best_uri(NAME), None, Storage(tmp_path / "elsewhere"), server)
    assert chosen.files["best.safetensors"]
    assert load_model(server, best_uri(NAME)).metadata.run_id == run
