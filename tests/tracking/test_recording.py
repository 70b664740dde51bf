"""The recorder's last words: what MLflow did not take is told, and the run is ended all the same."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from mlflow import MlflowClient

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal
from ccim_ray.plan import PlannedTrial, trial_state
from ccim_ray.prepared import TrialPaths
from ccim_ray.presets import default_experiment
from ccim_ray.recording import Recorder
from ccim_ray.storage import write_json
from ccim_ray.tracking import Tracker
from ccim_ray.trial_folder import Trial, TrialResult


def test_results_that_cannot_be_logged_are_told_and_the_run_still_ends(tracker, uri, tmp_path):
    parent = tracker.open_parent("sweep", "a sweep", {}, {})
    recorder = Recorder(tracker, lambda: parent, [], {})
    recorder.start()
    recorder.finish_with([tmp_path / "results.csv"])  # was never written
    with pytest.raises(RequestError, match="the sweep's results could not be recorded"):
        recorder.close("FINISHED")
    assert MlflowClient(uri).get_run(parent).info.status == "FINISHED"


def test_results_are_logged_when_the_recorder_closes(tracker, uri, tmp_path):
    parent = tracker.open_parent("sweep", "a sweep", {}, {})
    results = tmp_path / "results.csv"
    results.write_text("setting")
    recorder = Recorder(tracker, lambda: parent, [], {})
    recorder.start()
    recorder.finish_with([results])
    recorder.close("FINISHED")
    assert [found.path for found in MlflowClient(uri).list_artifacts(parent)] == ["results.csv"]


def planned_in(folder, epochs):
    """A trial of a search whose folder holds so many epochs."""
    with Journal(folder / "journal.jsonl") as journal:
        for step in range(epochs):
            journal.append(step, {"train/loss": 1.0, "val/accuracy": 0.5})
    experiment = default_experiment("confounded_scenes", "smoke", WorldSettings(like="caer_s"))
    write_json(folder / "experiment.json", {})
    trial = Trial(experiment, folder.name, TrialPaths(str(folder), "", {}, None))
    return PlannedTrial("trial 0", trial, *trial_state(folder))


def runs_of_a_search(tracker, uri, planned, ended):
    """The runs after a search of one trial, which is either proposed now or ended in an earlier process."""
    parent = tracker.open_parent("search", "a search", {}, {}, "search")
    recorder = Recorder(tracker, lambda: parent, (), {}, validation_only=True)
    recorder.start()
    if ended:
        recorder.catch_up(planned)
    else:
        recorder.follow(planned)
        recorder.end(planned.trial.signature)
    recorder.close("FINISHED")
    client = MlflowClient(uri)
    assert client.get_run(parent).data.tags["ccim.kind"] == "search"
    return [client.get_run(run.run_id) for run in tracker.trials(parent)]


def test_a_trial_that_was_stopped_early_is_neither_done_nor_failed_nor_running(tracker, uri, tmp_path):
    folder = tmp_path / "0123"
    planned = planned_in(folder, 3)
    write_json(folder / "stopped.json", {"epoch": 3, "of": 15})
    for ended in (False, True, True):
        (run,) = runs_of_a_search(tracker, uri, planned, ended)
        assert run.info.status == "KILLED"
        assert run.data.tags["ccim.reason"] == "stopped: after epoch 3 of 15"
        assert len(MlflowClient(uri).get_metric_history(run.info.run_id, "val/accuracy")) == 3


def test_a_search_logs_no_metric_of_the_test_splits(tracker, uri, tmp_path):
    folder = tmp_path / "0123"
    planned = planned_in(folder, 2)
    write_json(folder / "result.json", TrialResult("done", {"val/accuracy": 0.5, "test_do/accuracy": 0.9}).as_dict())
    (run,) = runs_of_a_search(tracker, uri, planned, ended=True)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"train/loss", "val/accuracy"}
    assert [found.path for found in MlflowClient(uri).list_artifacts(run.info.run_id)] == ["config"]


def test_mlflow_that_is_away_when_a_sweep_begins_does_not_stop_it(tracker, uri, tmp_path, capsys):
    asked = []

    def open_parent():
        asked.append(None)
        if len(asked) < 3:
            raise RequestError("MLflow is away")
        return tracker.open_parent("sweep", "a sweep", {}, {})

    planned = planned_in(tmp_path / "0123", 2)
    recorder = Recorder(tracker, open_parent, (), {}, numbers_only=True)
    with recorder.following(lambda: "FINISHED"):
        recorder.follow(planned)
        write_json(tmp_path / "0123" / "result.json", TrialResult("done", {"test/accuracy": 0.5}).as_dict())
        recorder.end("0123")
        deadline = time.monotonic() + 60
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert capsys.readouterr().out.count("MLflow is away (training goes on") == 1
    (run,) = (MlflowClient(uri).get_run(run.run_id) for run in tracker.trials(open_parent()))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == 0.5


def test_what_went_wrong_is_told_rather_than_what_mlflow_made_of_it(tracker, capsys):
    def open_parent():
        raise RequestError("MLflow is away")

    recorder = Recorder(tracker, open_parent, (), {})
    with pytest.raises(ValueError, match="the disk is full"), recorder.following(lambda: "FINISHED"):
        raise ValueError("the disk is full")
    assert "could not be recorded in MLflow: MLflow is away" in capsys.readouterr().out
    recorder = Recorder(tracker, open_parent, (), {})
    with pytest.raises(RequestError, match="MLflow is away"), recorder.following(lambda: "FINISHED"):
        pass


def test_means_and_constants_of_the_sweep_are_on_its_run(tracker, uri, tmp_path):
    for mean in (0.25, 0.5):  # the second time, as when a sweep is extended
        open_parent = partial(tracker.open_parent, "sweep", "a sweep", {}, {"ccim.question": "Does it?"})
        recorder = Recorder(tracker, open_parent, [], {})
        recorder.start()
        recorder.summarise({"mean/test/mAP/vanilla (a)": mean}, {"ccim.constants.0": "{}"})
        recorder.close("FINISHED")
    run = MlflowClient(uri).get_run(open_parent())
    assert run.data.metrics == {"mean/test/mAP/vanilla _a_": 0.5}
    assert (run.data.tags["ccim.constants.0"], run.data.tags["ccim.question"]) == ("{}", "Does it?")


def test_what_the_sweep_found_is_sent_again_only_where_it_changed(tracker, uri):
    for means in ({"mean/a": 0.25, "mean/b": 0.5}, {"mean/a": 0.25, "mean/b": 0.75}):
        parent = tracker.open_parent("sweep", "a sweep", {}, {})
        tracker.log_summary(parent, means, {})
    client = MlflowClient(uri)
    assert [point.value for point in client.get_metric_history(parent, "mean/a")] == [0.25]
    assert sorted(point.value for point in client.get_metric_history(parent, "mean/b")) == [0.5, 0.75]


def test_two_sweeps_that_record_the_same_trial_at_once_give_one_run_with_each_point_once(storage, uri, tmp_path):
    planned = planned_in(tmp_path / "0123", 3)
    write_json(tmp_path / "0123" / "result.json", TrialResult("done", {"test/accuracy": 0.5}).as_dict())
    trackers = [Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts") for _ in range(4)]
    begin = threading.Barrier(len(trackers))

    def record(tracker):
        begin.wait()
        parent = tracker.open_parent("sweep", "a sweep", {}, {})
        recorder = Recorder(tracker, lambda: parent, (), {}, numbers_only=True)
        recorder.start()
        recorder.catch_up(planned)
        recorder.close("FINISHED")

    with ThreadPoolExecutor(len(trackers)) as sweeps:
        list(sweeps.map(record, trackers))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("caer_s/dict_size")
    parent, child = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.data.tags["ccim.kind"])
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    assert [point.step for point in client.get_metric_history(child.info.run_id, "train/loss")] == [0, 1, 2]
    assert [point.step for point in client.get_metric_history(child.info.run_id, "test/accuracy")] == [3]
