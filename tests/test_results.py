"""From folders of trials to rows: all that was ever asked for, ended trials alone, and honest references."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccim_ray.datasets.confounded_scenes.counterfactuals import load_counterfactuals
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import load_truth, write_world
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.metrics import SCENE_SWAP_METRICS
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.results import (
    category_rows,
    collect,
    gains_without_one,
    measured_rows,
    notes_of,
    reference_rows,
    reported_metrics,
    update_ledger,
)
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult
from search_spaces.dict_size import dict_size_space

BASE = default_experiment("confounded_scenes", "smoke", WorldSettings(images=600))


def plan_sizes(storage, sizes, seeds=(0, 1), base=BASE):
    space = dict_size_space(sizes)
    return make_plan([*space.settings(base).items()], seeds, storage, None).trials, space.axis


def ledger_after(storage, *calls):
    for sizes, seeds in calls:
        trials, axis = plan_sizes(storage, sizes, seeds)
        entries = update_ledger(storage.root / "ledger.json", trials, axis, storage.trial)
    return entries


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


def test_the_ledger_holds_all_that_was_ever_asked_for_in_the_order_of_the_axis(storage):
    entries = ledger_after(storage, ((256, 64), (0, 1)), ((96, 8), (1, 2)))
    assert [entry.setting for entry in entries] == [
        "vanilla",
        "W_h alone",
        *(f"CCIM N={size}" for size in (8, 64, 96, 256)),
    ]
    assert [entry.axis for entry in entries] == [None, None, 8, 64, 96, 256]
    seeds = {entry.setting: sorted(entry.folders) for entry in entries}
    assert seeds["vanilla"] == [0, 1, 2]
    assert seeds["CCIM N=64"] == [0, 1]
    assert seeds["CCIM N=96"] == [1, 2]
    for entry in entries:
        for seed, folder in entry.folders.items():
            size = entry.axis or 8
            trials, _ = plan_sizes(storage, (size,), (seed,))
            (planned,) = (trial for trial in trials if trial.setting == entry.setting)
            assert str(folder) == planned.trial.paths.folder


def test_the_same_call_again_changes_nothing(storage):
    first = ledger_after(storage, ((8, 64), (0, 1)))
    content = (storage.root / "ledger.json").read_bytes()
    assert ledger_after(storage, ((8, 64), (0, 1))) == first
    assert ledger_after(storage, ((64, 8), (1, 0))) == first
    assert (storage.root / "ledger.json").read_bytes() == content


def test_a_trial_that_became_another_takes_its_place(storage):
    trials, axis = plan_sizes(storage, (8,), (0,))
    update_ledger(storage.root / "ledger.json", trials, axis, storage.trial)
    longer, _ = plan_sizes(storage, (8,), (0,), BASE.with_changes(epochs=9))
    entries = update_ledger(storage.root / "ledger.json", longer, axis, storage.trial)
    assert [str(entry.folders[0]) for entry in entries] == [planned.trial.paths.folder for planned in longer]


def test_lines_without_a_place_on_the_axis_keep_their_order(storage):
    trials, _ = plan_sizes(storage, (8, 64), (0,))
    path, folder = storage.root / "ledger.json", storage.trial
    once = [entry.setting for entry in update_ledger(path, trials, {}, folder)]
    assert once == [planned.setting for planned in trials]
    assert [entry.setting for entry in update_ledger(path, trials, {}, folder)] == once


def test_only_trials_that_are_done_are_collected(storage):
    entries = ledger_after(storage, ((8,), (0, 1, 2, 3)))
    vanilla, control, with_ccim = entries
    write_json(vanilla.folders[0] / "result.json", TrialResult("done", {"test_do/accuracy": 0.25}).as_dict())
    diverged = TrialResult("diverged", {"test_do/accuracy": 0.9}, diverged_at_step=3)
    write_json(vanilla.folders[1] / "result.json", diverged.as_dict())
    write_json(vanilla.folders[2] / "failure.json", {"reason": "killed", "attempts": 3})
    of_baseline = {"vanilla": {0: {"test_do/accuracy": 0.25}}, control.setting: {}, with_ccim.setting: {}}
    assert collect(entries) == {"emot_net": of_baseline}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Strongly biased worlds, large enough that an oracle's advantage shows."""
    found = {}
    for like in ("caer_s", "emotic"):
        root = tmp_path_factory.mktemp(like)
        write_world(WorldSettings(like=like, images=500, image_size=64, bias=0.95), root)
        found[like] = load_dataset("confounded_scenes", root)
    return found


@pytest.mark.parametrize("like", ["caer_s", "emotic"])
def test_references_are_chance_and_the_oracles_of_every_test_split(worlds, like):
    dataset = worlds[like]
    rows = {(row.setting, row.metric): row for row in reference_rows(dataset, "emot_net")}
    names = ("chance", "Bayes oracle P(Y|X)", "Bayes oracle P(Y|do(X))")
    splits = ("test_id", "test_do", "test_anti")
    metrics = {"caer_s": ["accuracy"], "emotic": ["mAP", "mAP_11_point"]}[like]
    scored = {(name, f"{split}/{metric}") for name in names for split in splits for metric in metrics}
    assert set(rows) == scored | {(name, f"test_do/{metric}") for name in names[1:] for metric in SCENE_SWAP_METRICS}
    assert all(row.n_seeds is None and row.sd is None and row.delta is None for row in rows.values())
    assert {(row.dataset, row.baseline) for row in rows.values()} == {("confounded_scenes", "emot_net")}
    for split in splits:
        by_chance, observational, do = (rows[name, f"{split}/{dataset.metric}"].mean for name in names)
        assert 0 < by_chance < do <= 1
        if split == "test_id":
            assert observational >= do
        else:
            assert do >= observational
    anti = [rows[name, f"test_anti/{dataset.metric}"].mean for name in names]
    assert anti[2] > anti[1]


def test_reference_accuracies_are_those_counted_by_hand(worlds):
    dataset = worlds["caer_s"]
    truth = {row["subject_id"]: row for row in load_truth(dataset.root).to_pylist()}
    subjects = [subject for subject in dataset.subjects if subject.split == "test_do"]
    hits = {"oracle_do": 0, "oracle_observational": 0}
    for subject in subjects:
        for column in hits:
            best = dataset.categories[int(np.argmax(truth[subject.subject_id][column]))]
            hits[column] += best == subject.labels[0]
    labels = [subject.labels[0] for subject in subjects]
    expected = {
        "chance": max(labels.count(name) for name in dataset.categories) / len(labels),
        "Bayes oracle P(Y|X)": hits["oracle_observational"] / len(labels),
        "Bayes oracle P(Y|do(X))": hits["oracle_do"] / len(labels),
    }
    found = {row.setting: row.mean for row in reference_rows(dataset, "emot_net") if row.metric == "test_do/accuracy"}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("like", ["caer_s", "emotic"])
def test_an_oracles_scene_swap_is_that_counted_by_hand_and_almost_none_without_the_bias(worlds, like):
    dataset = worlds[like]
    truth = {row["subject_id"]: row for row in load_truth(dataset.root).to_pylist()}
    found = {(row.setting, row.metric): row.mean for row in reference_rows(dataset, "emot_net")}
    for setting, column in (("P(Y|X)", "oracle_observational"), ("P(Y|do(X))", "oracle_do")):
        flips, distances = [], []
        for row in load_counterfactuals(dataset.root).to_pylist():
            own, other = truth[row["counterfactual_of"]][column], row[column]
            flips.append(own.index(max(own)) != other.index(max(other)))
            change = sum(abs(p - q) for p, q in zip(own, other, strict=True))
            distances.append(change / (2 if like == "caer_s" else len(own)))
        assert found[f"Bayes oracle {setting}", "test_do/flip_rate"] == pytest.approx(np.mean(flips))
        assert found[f"Bayes oracle {setting}", "test_do/scene_tv"] == pytest.approx(np.mean(distances))
    for metric in ("test_do/flip_rate", "test_do/scene_tv"):
        biased, causal = (found[f"Bayes oracle {setting}", metric] for setting in ("P(Y|X)", "P(Y|do(X))"))
        assert 3 * causal < biased


def test_a_metric_of_one_split_has_no_rows_on_the_others(worlds):
    metrics = {f"{split}/accuracy": 0.5 for split in ("test_id", "test_do", "test_anti")} | {"test_do/flip_rate": 0.25}
    rows = measured_rows(worlds["caer_s"], {"emot_net": {"vanilla": {0: metrics}}}, "vanilla", {})
    assert {row.metric: row.mean for row in rows} == metrics


def test_a_real_dataset_has_chance_alone(worlds):
    real = load_dataset("caer_s", worlds["caer_s"].root)
    rows = reference_rows(real, "emot_net")
    assert {row.setting for row in rows} == {"chance"}
    assert [row.metric for row in rows] == [f"{split}/accuracy" for split in real.test_splits]


def test_measured_rows_pair_the_seeds_on_every_test_split(worlds):
    dataset = worlds["caer_s"]

    def of_seed(value):
        return {f"{split}/accuracy": value for split in ("val", "test_id", "test_do", "test_anti")}

    results = {
        "vanilla": {0: of_seed(0.5), 1: of_seed(0.6), 2: of_seed(0.9)},
        "CCIM N=8": {0: of_seed(0.6), 1: of_seed(0.65)},
        "CCIM N=16": {},
    }
    rows = {
        (row.setting, row.metric): row
        for row in measured_rows(
            dataset, {"emot_net": results}, "vanilla", {"emot_net": {("vanilla", "test_do/accuracy"): 0.7}}
        )
    }
    assert len(rows) == 9
    assert not any(metric.startswith("val") for _, metric in rows)
    row = rows["CCIM N=8", "test_do/accuracy"]
    assert (row.n_seeds, row.mean, row.delta) == (2, pytest.approx(0.625), pytest.approx(0.075))
    assert rows["CCIM N=16", "test_do/accuracy"].mean is None
    assert rows["vanilla", "test_do/accuracy"].published == 0.7
    assert rows["vanilla", "test_id/accuracy"].published is None


@pytest.fixture
def followed():
    """Two agents of three frames each in test, one of two in train; labels of the second differ over frames."""
    frames = [("train", "a", 2, "Happy"), ("test", "b", 3, "Happy"), ("test", "c", 2, "Sad"), ("test", "c", 1, "Happy")]
    subjects = [
        Subject(
            subject_id=f"{agent}/{label}/{number}",
            image="a.jpg",
            width=8,
            height=8,
            split=split,
            body_box=(0, 0, 8, 8),
            labels=(label,),
            box_source="annotation",
            agent=agent,
        )
        for split, agent, count, label in frames
        for number in range(count)
    ]
    return Dataset(
        name="groupwalk",
        root=Path("/data"),
        categories=("Happy", "Sad"),
        multi_label=True,
        subjects=tuple(subjects),
        defects=Defects(),
        annotation_digest="",
        note="format unverified",
    )


def test_agents_have_their_own_chance(followed):
    rows = {row.metric: row.mean for row in reference_rows(followed, "emot_net")}
    assert list(rows) == ["test/mAP", "test/mAP_11_point", "test/mAP_agent"]
    assert rows["test/mAP"] == pytest.approx((4 / 6 + 2 / 6) / 2)
    # Both agents are happy at some time; the one sad agent of two is first or second.
    assert rows["test/mAP_agent"] == pytest.approx((1 + (1 + 1 / 2) / 2) / 2)


def test_the_papers_metric_comes_first_and_agents_only_where_they_are_followed(followed):
    assert reported_metrics(followed) == ("mAP", "mAP_11_point", "mAP_agent")
    apart = replace(followed, subjects=followed.subjects[:1] + followed.subjects[2:3])
    assert reported_metrics(apart) == ("mAP", "mAP_11_point")
    unknown = replace(followed, subjects=(*followed.subjects, replace(followed.subjects[0], agent=None)))
    assert reported_metrics(unknown) == ("mAP", "mAP_11_point")
    results = {"vanilla": {0: {"test/mAP": 0.5, "test/mAP_11_point": 0.6, "test/mAP_agent": 0.7}}}
    rows = measured_rows(followed, {"emot_net": results}, "vanilla", {})
    assert [(row.metric, row.mean) for row in rows] == list(results["vanilla"][0].items())


def test_the_worst_scene_is_reported_where_all_are_known_and_a_trial_has_one(followed, worlds):
    assert reported_metrics(worlds["caer_s"]) == ("accuracy", "worst_group", "flip_rate", "scene_tv")
    placed = replace(followed, subjects=tuple(replace(subject, scene="park") for subject in followed.subjects))
    assert reported_metrics(placed) == ("mAP", "mAP_11_point", "mAP_agent", "worst_group")
    without = {"test/mAP": 0.5, "test/mAP_11_point": 0.6, "test/mAP_agent": 0.7}
    for metrics in (without, without | {"test/worst_group": 0.2}):
        rows = measured_rows(placed, {"emot_net": {"vanilla": {0: metrics}}}, "vanilla", {})
        assert [row.metric for row in rows] == list(metrics)


def test_a_note_names_its_dataset(followed):
    assert notes_of(followed, ["emot_net"]) == ("groupwalk: format unverified",)
    assert notes_of(replace(followed, note=""), ["emot_net"]) == ()


def test_an_approximate_baseline_says_so_in_its_rows_and_in_the_notes(followed):
    (note,) = notes_of(replace(followed, note=""), ["emot_net", "gcn_cnn"])
    assert note.startswith("gcn_cnn is approximate: ")
    results = {"gcn_cnn": {"vanilla": {0: {"test/mAP": 0.5}}}}
    rows = measured_rows(followed, results, "vanilla", {})
    assert {row.baseline for row in rows} == {"gcn_cnn (approximate)"}


def test_deltas_are_within_a_baseline_and_p_is_corrected_over_all_of_them(worlds):
    dataset = worlds["caer_s"]

    def seeds(*values):
        return {seed: {"test_do/accuracy": value} for seed, value in enumerate(values)}

    one = {"vanilla": seeds(0.5, 0.6, 0.7), "CCIM": seeds(0.61, 0.7, 0.82)}
    other = {"vanilla": seeds(0.1, 0.2, 0.1), "CCIM": seeds(0.2, 0.25, 0.3)}
    alone = {(row.setting, row.metric): row for row in measured_rows(dataset, {"emot_net": one}, "vanilla", {})}
    rows = measured_rows(dataset, {"emot_net": one, "caer_net": other}, "vanilla", {})
    both = {(row.baseline, row.setting, row.metric): row for row in rows}
    key = ("CCIM", "test_do/accuracy")
    assert both["emot_net", *key].delta == pytest.approx(0.11)
    assert both["caer_net (approximate)", *key].delta == pytest.approx(0.35 / 3)
    assert both["emot_net", *key].p == alone[key].p
    assert both["emot_net", *key].p_holm == pytest.approx(2 * alone[key].p_holm)


def test_every_category_has_its_rows(worlds):
    dataset = worlds["caer_s"]
    published = {"emot_net": {("vanilla", "test_do/recall/Fear"): 0.3}}
    results = {"emot_net": {"vanilla": {0: {"test_do/recall/Fear": 0.4}}}}
    rows = category_rows(dataset, results, "vanilla", published)
    assert {row.metric for row in rows} == {
        f"{split}/recall/{name}" for split in dataset.test_splits for name in dataset.categories
    }
    (fear,) = (row for row in rows if row.metric == "test_do/recall/Fear")
    assert (fear.mean, fear.published) == (0.4, 0.3)


def test_the_ledger_is_readable_json(storage):
    ledger_after(storage, ((8,), (0,)))
    known = json.loads((storage.root / "ledger.json").read_text())
    assert known["emot_net: CCIM N=8"]["axis"] == 8
    assert list(known["emot_net: vanilla"]["signatures"]) == ["0"]


def test_gains_without_one_category_are_of_every_baseline_and_test_split(worlds):
    dataset = worlds["emotic"]

    def seeds(value):
        return {0: {f"{split}/AP/{name}": value for split in dataset.test_splits for name in dataset.categories}}

    results = {"emot_net": {"vanilla": seeds(0.2), "CCIM": seeds(0.3)}, "gcn_cnn": {"vanilla": seeds(0.2)}}
    gains = gains_without_one(dataset, results, "vanilla", {})
    assert {gain.metric for gain in gains} == {"test_id/mAP", "test_do/mAP", "test_anti/mAP"}
    assert [gain.left_out for gain in gains[:27]] == ["", *dataset.categories]
    assert {(gain.baseline, gain.setting) for gain in gains} == {("emot_net", "CCIM")}
    assert all(gain.delta == pytest.approx(0.1) for gain in gains)
    assert gains_without_one(worlds["caer_s"], results, "vanilla", {}) == []
