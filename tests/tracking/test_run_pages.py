"""What MLflow's pages show of runs beside their numbers: notes, data, the machines' load, the view by setting."""

import base64
import json
import zlib

import pytest
from mlflow import MlflowClient

from ccim_ray.machine_load import MachineLoad
from ccim_ray.recording import Recorder
from ccim_ray.run_notes import NOTE_TAG, sweep_note, trial_note
from ccim_ray.tracking import LoggedData, Tracker
from ccim_ray.tracking.runs import TrialRun

DATA = LoggedData("caer_s", "f1ng3rpr1nt", "/data/caer s", {"train": 300, "val": 40, "test": 60})


def test_a_run_says_once_what_it_learnt_from(tracker, uri):
    parent = tracker.open_parent("sweep1", "a sweep", {}, {})
    other = tracker.open_parent("sweep2", "another", {}, {})
    for run in (parent, parent, other):
        tracker.log_data(run, DATA)
    for run in (parent, other):
        (logged,) = MlflowClient(uri).get_run(run).inputs.dataset_inputs
        assert (logged.dataset.name, logged.dataset.digest) == ("caer_s", "f1ng3rpr1nt")
        assert json.loads(logged.dataset.source) == {"uri": "/data/caer s"}
        assert json.loads(logged.dataset.profile) == {"subjects": {"train": 300, "val": 40, "test": 60}}
        assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "train, val, test")]


def test_a_note_says_what_the_run_is_and_how_to_do_it_again_and_an_edited_one_stays(tracker, uri):
    tags = {"ccim.command": "python jobs/x.py --seeds 0 1", "mlflow.source.git.commit": "c0ffee" * 6}
    note = sweep_note("Does N matter?", tags | {"ccim.git_dirty": "true"}, "#/experiments/1", "models:/a@best")
    for expected in (
        "**Does N matter?**",
        "(#/experiments/1)",
        "--model models:/a@best`",
        "\n\n    python jobs/x.py --seeds 0 1",
        "commit `c0ffeec0ffee`, with changes that are not committed",
    ):
        assert expected in note
    assert "predict" not in sweep_note("Does N matter?", tags, "", None)
    of_trial = trial_note("CCIM N=64, seed 1", "0123456789abcdef", tags, has_model=True)
    assert "--model 0123456789abcdef`" in of_trial
    assert "predict" not in trial_note("CCIM N=64, seed 1", "0123456789abcdef", tags, has_model=False)

    parent = tracker.open_parent("sweep1", "a sweep", {}, {NOTE_TAG: note})
    assert MlflowClient(uri).get_run(parent).data.tags[NOTE_TAG] == note
    MlflowClient(uri).set_tag(parent, NOTE_TAG, "My own words.")
    tracker.open_parent("sweep1", "a sweep", {}, {NOTE_TAG: note, "ccim.other": "new"})
    tags = MlflowClient(uri).get_run(parent).data.tags
    assert (tags[NOTE_TAG], tags["ccim.other"]) == ("My own words.", "new")


def test_loads_go_on_behind_those_of_an_earlier_process(tracker, uri, storage):
    parent = tracker.open_parent("sweep1", "a sweep", {}, {})
    run = TrialRun(parent)
    for share in (10.0, 20.0):
        tracker.log_load(run, {"cpu_utilization_percentage": share, "node_1/disk_usage_megabytes": 5.0})
    later = Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts")
    later.log_load(TrialRun(parent), {"cpu_utilization_percentage": 30.0})
    history = MlflowClient(uri).get_metric_history(parent, "system/cpu_utilization_percentage")
    assert [(point.step, point.value) for point in history] == [(0, 10.0), (1, 20.0), (2, 30.0)]


def test_the_recorder_logs_the_load_of_this_machine(tracker, uri, tmp_path, monkeypatch):
    monkeypatch.setattr("ccim_ray.recording.FOLLOW_SECONDS", 0.05)
    monkeypatch.setattr("ccim_ray.recording.LOAD_SECONDS", 0.05)
    parent = tracker.open_parent("sweep1", "a sweep", {}, {})
    load = MachineLoad(tmp_path / "not there yet")
    recorder = Recorder(tracker, lambda: parent, [], {}, data=DATA, loads=load.sample)
    recorder.start()
    name = "system/cpu_utilization_percentage"
    for _ in range(2000):
        if MlflowClient(uri).get_metric_history(parent, name):
            break
    recorder.close("FINISHED")
    found = MlflowClient(uri).get_run(parent)
    assert [each.dataset.name for each in found.inputs.dataset_inputs] == ["caer_s"]
    shares = [found.data.metrics[f"system/{of}_percentage"] for of in ("cpu_utilization", "disk_usage")]
    assert all(0 <= share <= 100 for share in [*shares, found.data.metrics["system/system_memory_usage_percentage"]])
    assert 0 < found.data.metrics["system/system_memory_usage_megabytes"] < 1e8


def test_gpus_are_read_off_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '37, 2048, 8192, 61.25'\necho '[N/A], 0, 81559, [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = MachineLoad(tmp_path).sample()
    gpus = {name: value for name, value in found.items() if name.startswith("gpu")}
    assert gpus == {
        "gpu_0_utilization_percentage": 37.0,
        "gpu_0_memory_usage_megabytes": pytest.approx(2147.483648),
        "gpu_0_memory_usage_percentage": 25.0,
        "gpu_0_power_usage_watts": 61.25,
        "gpu_1_memory_usage_megabytes": 0.0,
        "gpu_1_memory_usage_percentage": 0.0,
    }
    program.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    assert not any(name.startswith("gpu") for name in MachineLoad(tmp_path).sample())


def test_the_view_by_setting_is_a_tag_of_the_experiment(tracker, uri):
    tracker.show_comparison("0123abcd", "val/accuracy", ["test/accuracy", "test/joy & love"], ["dictionary.size"])
    experiment = MlflowClient(uri).get_experiment_by_name("caer_s/dict_size")
    packed = experiment.tags["mlflow.sharedViewState.0123abcd"]
    state = json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))
    assert "'0123abcd'" in state["searchFilter"]
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == [
        "val/accuracy",
        "test/accuracy",
        "test/joy _ love",
    ]
    assert {"metrics.`test/joy _ love`", "params.`dictionary.size`"} <= set(state["selectedColumns"])
    path = tracker.comparison_path("0123abcd")
    assert path.endswith(f"/{experiment.experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey=0123abcd")
