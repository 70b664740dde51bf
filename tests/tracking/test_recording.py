"""The recorder's last words: what MLflow did not take is told, and the run is ended all the same."""

import pytest
from mlflow import MlflowClient

from ccim_ray.errors import RequestError
from ccim_ray.recording import Recorder


def test_results_that_cannot_be_logged_are_told_and_the_run_still_ends(tracker, uri, tmp_path):
    parent = tracker.open_parent("sweep", "a sweep", {}, {})
    recorder = Recorder(tracker, parent, [], {})
    recorder.start()
    recorder.finish_with([tmp_path / "results.csv"])  # was never written
    with pytest.raises(RequestError, match="the sweep's results could not be recorded"):
        recorder.close("FINISHED")
    assert MlflowClient(uri).get_run(parent).info.status == "FINISHED"


def test_results_are_logged_when_the_recorder_closes(tracker, uri, tmp_path):
    parent = tracker.open_parent("sweep", "a sweep", {}, {})
    results = tmp_path / "results.csv"
    results.write_text("setting")
    recorder = Recorder(tracker, parent, [], {})
    recorder.start()
    recorder.finish_with([results])
    recorder.close("FINISHED")
    assert [found.path for found in MlflowClient(uri).list_artifacts(parent)] == ["results.csv"]
