"""A report's rows are those of the sweep, made from MLflow alone; what is not in them is named."""

from dataclasses import replace

import pytest
from logged_runs import SPACE, VALUES, log_sweep, log_trial, metrics_of, open_sweep

from ccim_ray.errors import RequestError
from ccim_ray.logged_sweeps import collect_sweeps
from ccim_ray.reports.tables import build_rows
from ccim_ray.tracking import Tracker, read_experiments


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(uri, request):
    return Tracker(uri, f"caer_s/{request.node.name}", None)


def read(tracker):
    return collect_sweeps(read_experiments(tracker.uri, tracker.experiment))


def test_rows_are_those_of_the_sweeps_own_tables(tracker, tmp_path):
    log_sweep(tracker, tmp_path)
    (sweep,) = read(tracker)
    results = {name: {seed: metrics_of(value) for seed, value in seeds.items()} for name, seeds in VALUES.items()}
    expected = build_rows(
        "confounded_scenes", "emot_net", results, ["test_id/accuracy", "test_do/accuracy"], "vanilla", {}
    )
    assert [row for row in sweep.rows if row.n_seeds] == expected
    assert {(row.setting, row.metric): row.mean for row in sweep.rows if not row.n_seeds} == {
        ("chance", "test_do/accuracy"): 0.1817
    }
    assert (sweep.question, sweep.reference, sweep.splits) == ("Does N matter?", "vanilla", ("test_id", "test_do"))
    assert sweep.axis == {"CCIM N=64": 64, "CCIM N=128": 128}
    assert sweep.categories == ("Anger", "Sad")
    anger = [row for row in sweep.category_rows if row.metric == "test_do/recall/Anger"]
    assert [row.mean for row in anger] == pytest.approx([0.56, 0.564, 1.981 / 3])
    assert (sweep.unfinished, sweep.not_started) == ((), ())


def test_trials_that_did_not_finish_are_named_and_count_in_no_mean(tracker):
    parent = open_sweep(tracker, seeds=(0, 1, 2, 3))
    for seed in (0, 1):
        log_trial(tracker, parent, "vanilla", seed, metrics_of(0.5))
    log_trial(tracker, parent, "vanilla", 2, metrics_of(0.9), status="FAILED", reason="failed: CUDA out of memory")
    log_trial(tracker, parent, "vanilla", 3, {}, status="FAILED", reason="diverged: loss not finite at step 7")
    log_trial(tracker, parent, "CCIM N=64", 0, {}, status="KILLED")
    log_trial(tracker, parent, "CCIM N=64", 1, metrics_of(0.9), status=None)
    (sweep,) = read(tracker)
    told = {(trial.setting, trial.seed): (trial.state, trial.reason) for trial in sweep.unfinished}
    assert told == {
        ("vanilla", 2): ("failed", "failed: CUDA out of memory"),
        ("vanilla", 3): ("diverged", "diverged: loss not finite at step 7"),
        ("CCIM N=64", 0): ("interrupted", ""),
        ("CCIM N=64", 1): ("running", ""),
    }
    assert sweep.not_started == (
        "CCIM N=64, seed 2",
        "CCIM N=64, seed 3",
        *(f"CCIM N=128, seed {seed}" for seed in range(4)),
    )
    rows = {row.setting: row for row in sweep.rows if row.metric == "test_do/accuracy"}
    assert (rows["vanilla"].n_seeds, rows["vanilla"].mean) == (2, 0.5)
    assert (rows["CCIM N=64"].n_seeds, rows["CCIM N=64"].mean) == (0, None)


def test_of_two_finished_runs_of_a_setting_and_seed_the_later_counts(tracker):
    parent = open_sweep(tracker, seeds=(0,))
    log_trial(tracker, parent, "vanilla", 0, metrics_of(0.4), signature="old")
    log_trial(tracker, parent, "vanilla", 0, metrics_of(0.5), signature="new")
    (sweep,) = read(tracker)
    assert [trial.state for trial in sweep.trials] == ["superseded", "done"]
    assert next(row.mean for row in sweep.rows if row.setting == "vanilla") == pytest.approx(0.7)


def test_published_numbers_stand_beside_ours(tracker):
    parent = open_sweep(tracker, replace(SPACE, axis={}), seeds=(0,))
    for setting, value, paper in (("vanilla", 0.2, 0.2267), ("CCIM N=64", 0.3, 0.2493)):
        metrics = {"test/mAP": value, "test/AP/Doubt/Confusion": value, "test/AP/Anger": value}
        published = {"": paper, "AP/Doubt/Confusion": paper / 2}
        log_trial(tracker, parent, setting, 0, metrics, dataset="emotic", published=published)
    (sweep,) = read(tracker)
    row = next(row for row in sweep.rows if (row.setting, row.metric) == ("CCIM N=64", "test/mAP"))
    assert (row.published, row.published_delta) == (0.2493, pytest.approx(0.0226))
    category = next(row for row in sweep.category_rows if row.metric == "test/AP/Doubt/Confusion")
    assert category.published == pytest.approx(0.11335)
    assert sweep.categories == ("Anger", "Doubt/Confusion")
    assert {gain.left_out for gain in sweep.gains} == {"", "Anger", "Doubt/Confusion"}


def test_runs_of_an_older_version_and_trials_without_their_sweep_are_reported_too(tracker):
    parent = tracker.open_parent("old", "dict_size of a plug-in", {}, {})
    for setting, value in (("vanilla", 0.5), ("CCIM N=64", 0.6)):
        log_trial(tracker, parent, setting, 0, metrics_of(value), baseline="not_installed_here")
        log_trial(tracker, "no such run", setting, 1, metrics_of(value))
    sweeps = read(tracker)
    assert {sweep.question for sweep in sweeps} == {
        "dict_size of a plug-in",
        f"{tracker.experiment}, trials without a sweep",
    }
    for sweep in sweeps:
        assert sweep.reference == "vanilla"
        assert [row.delta for row in sweep.rows if row.setting == "CCIM N=64"] == pytest.approx([0.1, 0.1])


def test_a_search_shows_validation_alone_with_what_each_trial_had(tracker):
    parent = tracker.open_parent("search1", "hyperparameters of emot_net", {}, {}, "search")
    for number, (rate, value) in enumerate((("0.00123456", 0.5), ("0.01", 0.6), ("0.1", 0.1))):
        stopped = number == 2
        ending = {"status": "KILLED", "reason": "stopped: after epoch 3 of 15"} if stopped else {}
        run = log_trial(tracker, parent, f"trial {number}", 0, metrics_of(value), **ending)
        tracker._client.log_param(run, "learning_rate", rate)
        tracker._client.log_param(run, "batch_size", "64")
    (sweep,) = read(tracker)
    assert [(row.setting, row.metric, row.mean) for row in sweep.rows] == [
        ("trial 0: learning_rate 0.00123", "val/accuracy", pytest.approx(0.8)),
        ("trial 1: learning_rate 0.01", "val/accuracy", pytest.approx(0.9)),
    ]
    assert {(row.reference_setting, row.delta) for row in sweep.rows} == {(None, None)}
    assert [trial.state for trial in sweep.unfinished] == ["stopped"]
    assert (sweep.category_rows, sweep.gains) == ((), ())
    assert "no test result" in sweep.notes[0]


def test_a_tag_of_somebody_else_is_one_line(tracker):
    tracker.open_parent("odd", "a sweep", {}, {"ccim.asked.0": "{"})
    with pytest.raises(RequestError, match=rf"a run of {tracker.experiment} in MLflow has a tag"):
        read(tracker)
