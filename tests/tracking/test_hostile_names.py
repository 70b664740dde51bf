"""Names with quotes, percent signs, backslashes and lines in a real MLflow: each finds its own run and no other."""

import re

import pytest
from mlflow import MlflowClient

from ccim_ray.metric_names import metric_name
from ccim_ray.tracking import Tracker, read_experiments, read_histories

HOSTILE = (
    "it's",
    'say "no"',
    "100%",
    "%",
    "back\\slash",
    "ends in a backslash\\",
    "two\nlines",
    "x' OR '1'='1",
    "'; DROP TABLE runs; --",
    "`ticked`",
    "a' AND tags.`ccim.kind` = 'sweep",
    "../../up",
    "a?b#c",
    "<script>alert(1)</script>",
    "é☃\u202e",
    "",
)


@pytest.fixture
def runs_of(uri):
    def found(experiment):
        client = MlflowClient(uri)
        return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

    return found


def test_every_name_finds_its_own_sweep_and_trial(tracker, runs_of):
    opened = {}
    for name in HOSTILE:
        parent = tracker.open_parent(name, name, {"setting": name}, {"ccim.question": name})
        opened[name] = parent, tracker.open_trial(parent, name, name, {"setting": name}, {"ccim.setting": name}).run_id
    assert len({run_id for pair in opened.values() for run_id in pair}) == 2 * len(HOSTILE)
    for name, (parent, trial) in opened.items():
        assert tracker.open_parent(name, name, {}, {}) == parent
        assert tracker.open_trial(parent, name, name, {}, {}).run_id == trial
        (found,) = tracker.trials(parent)
        assert (found.tags["ccim.signature"], found.tags["ccim.setting"], found.params["setting"]) == (name,) * 3
    assert len(tracker.sweeps()) == len(HOSTILE)
    assert len(runs_of("caer_s/dict_size")) == 2 * len(HOSTILE)


def test_a_sweep_s_name_is_no_condition_of_its_own(tracker):
    plain = tracker.open_parent("plain", "plain", {}, {})
    other = tracker.open_parent("x' OR tags.`ccim.sweep` = 'plain", "other", {}, {})
    assert other != plain
    assert tracker.open_parent("PLAIN", "other case", {}, {}) not in (plain, other)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("", "../../up", "two\nlines")])
def test_experiments_of_any_name_hold_their_runs_and_files(name, storage, uri, tmp_path, runs_of):
    experiment = f"{name}/dict_size"
    tracker = Tracker(uri, experiment, storage / "mlflow-artifacts")
    parent = tracker.open_parent("s", "s", {}, {})
    (tmp_path / "table.csv").write_text("1")
    tracker.log_artifacts(parent, [tmp_path / "table.csv"])
    assert tracker.has_artifact(parent, "table.csv")
    assert len(runs_of(experiment)) == 1
    ((read,)) = read_experiments(uri, experiment)
    assert (read.name, len(read.runs)) == (experiment, 1)
    written = [path for path in storage.rglob("table.csv") if path.is_file()]
    assert len(written) == 1
    assert written[0].is_relative_to(storage / "mlflow-artifacts")


def test_metrics_of_categories_of_any_name_arrive_once(tracker, uri):
    run = tracker.open_trial(tracker.open_parent("s", "s", {}, {}), "t", "t", {}, {})
    # Of two that MLflow cannot tell apart one: datasets with such are refused.
    categories = {metric_name(name): name for name in [*HOSTILE, "a//b", "/", "ends in /", "x" * 300]}
    metrics = {f"test/recall/{name}": 0.5 + place / 100 for place, name in enumerate(categories.values())}
    for _ in range(2):
        tracker.log_final(run, metrics, ended=1.0)
    client = MlflowClient(uri)
    held = client.get_run(run.run_id).data.metrics
    assert sorted(held.values()) == pytest.approx(sorted(metrics.values()))
    assert {len(client.get_metric_history(run.run_id, name)) for name in held} == {1}
    assert all(len(name) <= 250 and re.fullmatch(r"[\w\-. :/]+", name) for name in held)
    history = read_histories(uri, [run.run_id], "test/recall/100%")
    assert history == {run.run_id: {0: pytest.approx(metrics["test/recall/100%"])}}


def test_names_of_metrics_are_kept_where_mlflow_takes_them():
    for name in ("test/AP/Doubt/Confusion", "val/mAP", "mean/test/accuracy/vanilla", "x" * 250):
        assert metric_name(name) == name
    assert metric_name("x" * 251) != metric_name("x" * 252)
    assert metric_name("test/AP/joy & love") == "test/AP/joy _ love"
