"""An embedded world like GroupWalk: read by the real loader, with its oracles, and planned."""

import json

import numpy as np
import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import load_truth, write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.metrics import evaluate
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.results import reference_rows
from ccim_ray.storage import Storage

WORLD = WorldSettings(like="groupwalk", images=60, image_size=64)


def by_id(dataset):
    return {subject.subject_id: subject for subject in dataset.subjects}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("like_groupwalk")
    write_world(WORLD, root)
    return root


def test_the_real_loader_reads_every_subject_of_an_embedded_world(world):
    real, joined = load_dataset("groupwalk", world), load_dataset("confounded_scenes", world)
    truth = {row["subject_id"]: row for row in load_truth(world).to_pylist()}
    assert len(truth) == 60
    lines = map(json.loads, (world / "manifest.jsonl").read_text().splitlines())
    written = {line["sample_id"]: line for line in lines}
    assert real.defects.counts == joined.defects.counts == {}
    drawn = {name for name, subject in by_id(joined).items() if subject.counterfactual_of is None}
    assert by_id(real).keys() == drawn == truth.keys()
    for name, subject in by_id(real).items():
        row = truth[name]
        assert (subject.split, subject.scene) == (row["split"], row["scene"])
        assert subject.labels == tuple(written[name]["labels"])
        assert subject.body_box == tuple(written[name]["bbox"])
        assert subject.video == name.split("/")[0]
    assert by_id(joined)[name].keypoints


def test_the_oracles_of_an_embedded_world_are_computed(world):
    dataset = load_dataset("confounded_scenes", world)
    rows = {(row.setting, row.metric): row.mean for row in reference_rows(dataset, "emot_net")}
    settings = ("chance", "Bayes oracle P(Y|X)", "Bayes oracle P(Y|do(X))")
    splits = ("test_id", "test_do", "test_anti")
    # Every person is seen once, so agents would say nothing that frames do not.
    metrics = ("mAP", "mAP_11_point")
    of_scene_swap = {(name, f"test_do/{metric}") for name in settings[1:] for metric in ("flip_rate", "scene_tv")}
    scored = {(name, f"{split}/{metric}") for name in settings for split in splits for metric in metrics}
    assert rows.keys() == scored | of_scene_swap
    assert all(0 < rows[key] <= 1 for key in scored)
    assert all(0 <= rows[key] <= 1 for key in of_scene_swap)
    truth = {row["subject_id"]: row["oracle_do"] for row in load_truth(world).to_pylist()}
    here = [subject.split == "test_do" for subject in dataset.subjects]
    scores = [truth[subject.subject_id] for subject in dataset.subjects if subject.split == "test_do"]
    expected = evaluate(np.array(scores), dataset.targets[here], dataset.categories, True)["mAP"]
    assert rows["Bayes oracle P(Y|do(X))", "test_do/mAP"] == pytest.approx(expected)


def test_a_plan_is_made_for_an_embedded_world(tmp_path):
    experiment = default_experiment("confounded_scenes", "smoke", WORLD)
    assert experiment.loss == "soft_margin"
    plan = make_plan([("CCIM", experiment)], (0, 1), Storage(tmp_path), None)
    assert [planned.state for planned in plan.trials] == ["new", "new"]
    assert plan.source.train_subjects == WORLD.split_sizes()["train"]
