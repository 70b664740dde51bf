"""Everything that was logged is read back in bulk; what is not ours is left out, and nothing is created."""

import pytest
from logged_runs import log_trial, metrics_of, open_sweep
from mlflow import MlflowClient

from ccim_ray.errors import RequestError
from ccim_ray.tracking import Tracker, read_experiments, read_histories


def test_runs_come_with_their_experiment_and_what_they_hold(tracker, uri, storage, tmp_path):
    parent = open_sweep(tracker)
    trial = log_trial(tracker, parent, "vanilla", 0, metrics_of(0.5))
    other = Tracker(uri, "emotic/ablations", storage / "mlflow-artifacts")
    open_sweep(other, sweep_id="sweep2")
    MlflowClient(uri).create_run("0", tags={"mlflow.runName": "somebody else's"})
    first, second = read_experiments(uri)
    assert [first.name, second.name] == ["caer_s/dict_size", "emotic/ablations"]
    assert [run.run_id for run in first.runs] == [parent, trial]
    run = first.runs[1]
    assert (run.status, run.params["seed"], run.tags["ccim.setting"]) == ("FINISHED", "0", "vanilla")
    assert run.metrics["test_do/recall/Anger"] == 0.55
    assert run.experiment_id == first.experiment_id
    assert run.ended >= run.started > 1.7e9
    assert [only.name for only in read_experiments(uri, "emotic/ablations")] == ["emotic/ablations"]


def test_more_runs_than_one_page_holds(tracker, uri, monkeypatch):
    parent = open_sweep(tracker)
    expected = [log_trial(tracker, parent, "vanilla", seed, {}) for seed in range(4)]
    search = MlflowClient.search_runs
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *given, **named: search(*given, max_results=2, **named))
    (read,) = read_experiments(uri)
    assert [run.run_id for run in read.runs] == [parent, *expected]


def test_histories_are_by_step_and_finite(tracker, uri, tmp_path):
    parent = open_sweep(tracker)
    runs = [
        log_trial(tracker, parent, "vanilla", seed, {"val/accuracy": 0.5}, epochs=epochs, folder=tmp_path)
        for seed, epochs in enumerate([(0.1, float("nan"), 0.3), ()])
    ]
    assert read_histories(uri, runs, "val/accuracy") == {runs[0]: {0: 0.1, 2: 0.3, 3: 0.5}, runs[1]: {0: 0.5}}


def test_a_database_that_does_not_exist_is_not_created(tmp_path):
    with pytest.raises(RequestError, match=r"nothing to report in MLflow at sqlite:///.*absent.*sweep_dict_size"):
        read_experiments(f"sqlite:///{tmp_path}/absent/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_our_runs_and_an_unknown_experiment_are_told(tracker, uri):
    MlflowClient(uri).create_run("0")
    with pytest.raises(RequestError, match="holds no run of this package"):
        read_experiments(uri)
    with pytest.raises(RequestError, match="--experiment nothing: .*choose one of caer_s/dict_size"):
        read_experiments(uri, "nothing")
