"""A plan knows what is there and what is not, and touches nothing."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.deconfounders.registry import CARDS
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import is_geometry
from ccim_ray.plan import make_plan, trial_state, weight_digests
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult

WORLD = WorldSettings(images=600)


def experiment(**changes):
    return default_experiment("confounded_scenes", "smoke", WORLD).with_changes(**changes)


VANILLA = {"deconfounder": "none"}


@pytest.fixture
def overlapping_emotic(tmp_path):
    """EMOTIC with one image in train alone, and one that is in train and in val."""

    def image(filename, label, several):
        person = {"body_bbox": [1, 1, 9, 9], "annotations_categories": {"categories": label}}
        return {
            "filename": filename,
            "folder": "images",
            "image_size": {"n_col": 16, "n_row": 16},
            "person": person | ({"combined_categories": label} if several else {}),
        }

    root = tmp_path / "emotic_files"
    (root / "emotic/images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (16, 16)).save(root / "emotic/images" / name)
    train = np.array([image("a.jpg", "Fear", several=False), image("b.jpg", "Fear", several=False)], dtype=object)
    content = {"train": train, "val": image("b.jpg", "Pain", several=True), "test": np.empty((0, 0))}
    savemat(root / "Annotations.mat", content)
    return root


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def plan_of(storage, *changes, seeds=(0,), data_root=None, **more):
    chosen = {f"setting {number}": experiment(**change) for number, change in enumerate(changes)}
    return make_plan([*chosen.items()], seeds, storage, data_root, **more)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def test_planning_a_world_that_does_not_exist_writes_nothing(tmp_path, storage):
    before = tree(tmp_path)
    plan = plan_of(storage, VANILLA, {}, {"trainable": "all"}, seeds=(0, 1, 2))
    assert tree(tmp_path) == before
    assert not storage.root.exists()
    assert len(plan.trials) == 9
    assert {planned.state for planned in plan.trials} == {"new"}
    assert all(planned.is_open for planned in plan.trials)
    assert [planned.seed for planned in plan.trials] == [0, 1, 2] * 3
    assert len({planned.trial.signature for planned in plan.trials}) == 9


def test_a_trial_is_told_where_its_inputs_will_lie(storage):
    plan = plan_of(storage, VANILLA, {}, {"trainable": "all"})
    vanilla, head, everything = (planned.trial for planned in plan.trials)
    assert vanilla.paths.dictionary is None
    assert head.paths.dictionary == str(plan.dictionaries[0].path) == everything.paths.dictionary
    assert vanilla.paths.views == head.paths.views != everything.paths.views
    assert {trial.paths.subjects for trial in (vanilla, head, everything)} == {str(plan.subjects)}
    assert head.paths.folder == str(storage.trial(head.signature))
    folders = {str(view.folder): view.request for view in plan.views}
    for name in ("context", "body"):
        assert folders[head.paths.views[name]].view == name
        assert folders[head.paths.views[name]].weights is not None
        assert folders[everything.paths.views[name]].weights is None
    assert plan.dictionaries[0].features.request.view == "masked_context"


def test_without_ccim_no_dictionary_and_no_masked_picture_is_made(storage):
    plan = plan_of(storage, VANILLA)
    assert plan.dictionaries == ()
    assert sorted(view.request.view for view in plan.views) == ["body", "context"]


SAME_DICTIONARY = {
    "epochs": 7,
    "batch_size": 32,
    "trainable": "all",
    "ccim__attention": "additive",
    "ccim__use_prior": False,
    "learning_rate": 0.1,
    "trunks__body__weights": "random",
    "patience": 2,
}
OTHER_DICTIONARY = {
    "dictionary__size": 17,
    "dictionary__source": "random",
    "dictionary__seed": 1,
    "dictionary__pca_components": 8,
    "backbone__weights": "objects",
    "masking": "none",
    "world__seed": 1,
}


@settings(max_examples=25, deadline=None)
@given(
    same=st.sets(st.sampled_from(sorted(SAME_DICTIONARY)), min_size=1),
    other=st.sampled_from(sorted(OTHER_DICTIONARY)),
)
def test_a_dictionary_depends_on_what_it_is_made_of_and_on_nothing_else(tmp_path_factory, same, other):
    storage = Storage(tmp_path_factory.getbasetemp() / "never")
    base = plan_of(storage, {}).dictionaries[0]
    changed = {key: SAME_DICTIONARY[key] for key in same}
    assert plan_of(storage, changed).dictionaries[0].path == base.path
    changed[other] = OTHER_DICTIONARY[other]
    assert plan_of(storage, changed).dictionaries[0].path != base.path


def test_deconfounders_share_one_dictionary_and_its_features(storage):
    plan = plan_of(storage, *({"deconfounder": name} for name in CARDS))
    assert len(plan.dictionaries) == 1
    assert sorted(view.request.view for view in plan.views) == ["body", "context", "masked_context"]
    features, dictionary = plan.dictionaries[0].features.folder, plan.dictionaries[0].path
    for planned in plan.trials:
        card, paths = CARDS[planned.trial.experiment.deconfounder], planned.trial.paths
        assert paths.dictionary == (str(dictionary) if card.uses_dictionary else None)
        assert paths.context == (str(features) if card.trains_with else None)
        assert paths.context_inputs == card.trains_with
    assert len({planned.trial.signature for planned in plan.trials}) == len(CARDS)
    assert plan_of(storage, {"deconfounder": "clef"}).dictionaries == ()
    used = weight_digests(experiment(deconfounder="clef"), None)
    assert "backbone" in used
    assert "backbone" not in weight_digests(experiment(**VANILLA), None)


def test_settings_share_what_they_can(storage):
    sizes = [{"dictionary__size": size} for size in (4, 8, 16)]
    plan = plan_of(storage, VANILLA, *sizes, seeds=(0, 1))
    assert [planned.settings.size for planned in plan.dictionaries] == [4, 8, 16]
    assert len({planned.features.key for planned in plan.dictionaries}) == 1
    assert len(plan.views) == 3
    alone = plan_of(storage, {"dictionary__size": 8}, seeds=(5,))
    assert alone.dictionaries[0].path == plan.dictionaries[1].path


def test_the_state_of_every_trial_is_read_from_its_folder(storage):
    signatures = [planned.trial.signature for planned in plan_of(storage, VANILLA, seeds=range(5)).trials]
    done, diverged, failed, started, _ = (storage.trial(signature) for signature in signatures)
    write_json(done / "result.json", TrialResult("done", {"val/accuracy": 0.5}, 1, 2).as_dict())
    write_json(diverged / "result.json", TrialResult("diverged", epochs=1, diverged_at_step=37).as_dict())
    write_json(failed / "failure.json", {"reason": "no space left", "attempts": 3})
    started.mkdir(parents=True)
    (started / "checkpoint.pt").touch()
    before = tree(storage.root)
    trials = plan_of(storage, VANILLA, seeds=range(5)).trials
    assert [planned.state for planned in trials] == ["done", "diverged", "failed", "started", "new"]
    assert [planned.is_open for planned in trials] == [False, False, True, True, True]
    assert trials[1].reason is not None
    assert "37" in trials[1].reason
    assert trials[2].reason == "no space left"
    assert trials[0].reason is trials[3].reason is trials[4].reason is None
    assert tree(storage.root) == before


def test_a_trial_that_was_tried_again_and_ended_is_done(tmp_path):
    write_json(tmp_path / "failure.json", {"reason": "killed", "attempts": 3})
    assert trial_state(tmp_path) == ("failed", "killed")
    write_json(tmp_path / "result.json", TrialResult("done").as_dict())
    assert trial_state(tmp_path) == ("done", None)


def test_a_trial_that_was_stopped_early_is_a_state_of_its_own_and_open_to_others(storage):
    (planned,) = plan_of(storage, VANILLA).trials
    write_json(storage.trial(planned.trial.signature) / "stopped.json", {"epoch": 3, "of": 15})
    (planned,) = plan_of(storage, VANILLA).trials
    assert (planned.state, planned.reason) == ("stopped", "after epoch 3 of 15")
    assert planned.is_open


def test_fewer_subjects_are_other_subjects(storage):
    whole, part = (plan_of(storage, {"subject_limit": limit}) for limit in (None, 50))
    assert whole.subjects != part.subjects
    assert {view.folder for view in whole.views}.isdisjoint(view.folder for view in part.views)
    assert whole.dictionaries[0].path != part.dictionaries[0].path


def real(weights="random"):
    trunk = {"arch": "resnet18", "weights": weights}
    values = {
        "dataset": "caer_s",
        "trunks": {"context": trunk, "body": {"arch": "resnet18", "weights": "random"}},
        "backbone": trunk,
        "dictionary": {"size": 8},
    }
    return {"CCIM": Experiment.parse(values)}


def test_a_dictionary_cannot_be_larger_than_the_train_split(storage):
    train = WORLD.split_sizes()["train"]
    assert plan_of(storage, {"dictionary__size": train}).dictionaries[0].settings.size == train
    with pytest.raises(RequestError, match=f"--sizes {train + 1}: .* train split has {train}"):
        plan_of(storage, VANILLA, {"dictionary__size": 8}, {"dictionary__size": train + 1})
    assert plan_of(storage, {"dictionary__size": train + 1, "dictionary__source": "random"}).dictionaries
    assert plan_of(storage, VANILLA | {"dictionary__size": train + 1}).dictionaries == ()


def test_a_real_dataset_needs_its_folder(storage, tmp_path):
    with pytest.raises(RequestError, match="--dataset caer_s needs its folder: add --data-root DIR"):
        make_plan([*real().items()], (0,), storage, None)
    with pytest.raises(RequestError, match=f"--data-root: {tmp_path / 'none'}"):
        make_plan([*real().items()], (0,), storage, tmp_path / "none")


def test_a_real_dataset_is_known_by_its_content_not_by_its_place(storage, small_world, tmp_path):
    moved, changed = tmp_path / "moved", tmp_path / "changed"
    shutil.copytree(small_world, moved)
    shutil.copytree(small_world, changed)
    picture = changed / load_dataset("caer_s", changed).subjects[0].image
    picture.write_bytes(picture.read_bytes() + b"\0")
    here, there, other = (make_plan([*real().items()], (0,), storage, root) for root in (small_world, moved, changed))
    assert here.trials[0].trial.signature == there.trials[0].trial.signature
    assert [view.key for view in here.views] == [view.key for view in there.views]
    assert here.trials[0].trial.signature != other.trials[0].trial.signature
    assert not {view.key for view in here.views} & {view.key for view in other.views}


def keys(plan):
    return {view.key for view in plan.views} | {plan.trials[0].trial.signature, plan.dictionaries[0].key, plan.subjects}


def test_another_split_makes_everything_anew_and_the_same_one_nothing(storage, small_world, tmp_path):
    rows = (small_world / "splits.csv").read_text().splitlines()
    same, other = tmp_path / "same.csv", tmp_path / "other.csv"
    same.write_text("\n".join(rows))
    other.write_text("\n".join([rows[0], *(row.replace(",test_anti", ",val") for row in rows[1:])]))
    assert same.read_text() != other.read_text()
    plans = [
        make_plan([*real().items()], (0,), storage, small_world, options=LoadOptions(split_file=file))
        for file in (same, same, other)
    ]
    assert keys(plans[0]) == keys(plans[1])
    assert not keys(plans[0]) & keys(plans[2])


def test_keeping_the_overlap_of_emotic_makes_everything_anew(storage, overlapping_emotic):
    experiments = {"CCIM": real()["CCIM"].with_changes(dataset="emotic", dictionary__size=1)}
    plans = [
        make_plan([*experiments.items()], (0,), storage, overlapping_emotic, options=LoadOptions(drop_overlap=drop))
        for drop in (True, True, False)
    ]
    assert keys(plans[0]) == keys(plans[1])
    assert not keys(plans[0]) & keys(plans[2])
    assert [plan.source.train_subjects for plan in plans] == [1, 1, 2]


def test_other_weights_of_the_same_name_make_other_features(storage, small_world, tmp_path):
    plans = []
    for content in (b"some weights", b"better weights"):
        folder = tmp_path / content.decode()
        folder.mkdir()
        (folder / "resnet18_places365.safetensors").write_bytes(content)
        plans.append(make_plan([*real("places365").items()], (0,), storage, small_world, folder))
    one, other = plans
    assert one.trials[0].trial.signature != other.trials[0].trial.signature
    assert one.dictionaries[0].path != other.dictionaries[0].path
    body = [{view.key for view in plan.views if view.request.view == "body"} for plan in plans]
    assert body[0] == body[1]
    with pytest.raises(RequestError, match=r"resnet18_places365\.safetensors"):
        make_plan([*real("places365").items()], (0,), storage, small_world, tmp_path)
    without = make_plan([*real("places365").items()], (0,), storage, small_world, tmp_path, without_weights=True)
    assert without.missing_weights == (tmp_path / "resnet18_places365.safetensors",)
    assert len({plan.trials[0].trial.signature for plan in (one, other, without)}) == 3
    assert one.missing_weights == other.missing_weights == ()


def test_geometry_is_planned_once_whatever_backbone_the_dictionary_has(storage, small_world):
    base = default_experiment("caer_s", "quick", None, "emoticon").with_changes(dictionary__size=8)
    settings = [(arch, base.with_changes(backbone__arch=arch)) for arch in ("resnet152", "resnet50", "vgg16")]
    plan = make_plan(settings, (0,), storage, small_world, storage.root, without_weights=True)
    geometry = [view.request.view for view in plan.views if is_geometry(view.request.view)]
    assert sorted(geometry) == ["agents", "keypoints"]


def test_a_plan_survives_being_asked_for_from_plain_values(storage):
    trial = plan_of(storage, {}).trials[0].trial
    again = Experiment.parse(json.loads(json.dumps(trial.experiment.model_dump(mode="json"))))
    assert make_plan([("again", again)], (0,), storage, None).trials[0].trial.signature == trial.signature
