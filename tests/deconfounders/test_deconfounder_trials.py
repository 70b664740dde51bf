"""Deconfounders in whole trials: resumed to the bit, and better than none where the context misleads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.context_clusters import nearest_prototypes
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.deconfounders.registry import CARDS, deconfounder_card
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.metrics import MIN_GROUP_SUBJECTS
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.views import ViewMaker
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows, read_subject_index, write_subject_index
from ccim_ray.training import train
from ccim_ray.trial import build_recogniser, fit_deconfounder

WIDTH, SCENES, CATEGORIES = 512, 4, ("Anger", "Fear", "Happy", "Sad")
BUILT = [card.name for card in CARDS.values() if card.module]
SPLITS = {"train": 600, "val": 60, "test_do": 300}


def make_inputs(*, multi_label=False):
    """The body says the category faintly, the context says the scene, which in train and val goes with the category."""
    rng = np.random.default_rng(3)
    splits = np.repeat(list(SPLITS), list(SPLITS.values()))
    scene = rng.integers(0, SCENES, len(splits))
    biased = (splits != "test_do") & (rng.random(len(splits)) < 0.8)
    category = np.where(biased, scene, rng.integers(0, 4, len(splits)))
    targets = np.eye(4, dtype=np.float32)[category]
    if multi_label:
        targets = np.maximum(targets, rng.random(targets.shape) < 0.1).astype(np.float32)

    def view(one_hot, noise):
        features = 2 * one_hot @ rng.normal(size=(4, WIDTH)) + noise * rng.normal(size=(len(splits), WIDTH))
        return ViewRows((features.astype(np.float32),), (None,) * len(splits))

    context, body = view(np.eye(4)[scene], 1.0), view(targets, 20.0)
    features = context.take(np.arange(len(splits)))
    dictionary = ConfounderDictionary.fit(features[splits == "train"], size=6, seed=0)
    cluster = ViewRows((nearest_prototypes(features, dictionary),), context.reasons)
    index = SubjectIndex(tuple(map(str, range(len(splits)))), splits, targets, CATEGORIES, multi_label)
    views = {"context": context, "body": body, "cluster": cluster, "context_features": context}
    return TrialInputs(index, views, dictionary)


def make_experiment(**changes):
    backbone = {"arch": "thin_resnet", "weights": "random"}
    base = {
        "dataset": "caer_s",
        "trunks": {"context": backbone, "body": backbone},
        "backbone": backbone,
        "dictionary": {"size": 6},
        "epochs": 6,
        "batch_size": 100,
        "learning_rate": 0.01,
    }
    return Experiment.parse(base).with_changes(**changes)


def run(folder, inputs, on_epoch=lambda epoch, metrics: None, **changes):
    experiment = make_experiment(**changes)
    card = deconfounder_card(experiment.deconfounder)
    unused = {"cluster", "context_features"} - set(card.trains_with)
    inputs = replace(inputs, views={name: view for name, view in inputs.views.items() if name not in unused})

    def build():
        recogniser = build_recogniser(experiment, len(inputs.index.categories), inputs.dictionary)
        fit_deconfounder(recogniser, inputs)
        return recogniser

    return train(experiment, inputs, build, folder, on_epoch=on_epoch)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["group_dro", "clef"])
def test_an_interrupted_trial_ends_as_if_it_had_not_been(tmp_path, name):
    inputs = make_inputs()
    straight = run(tmp_path / "straight", inputs, deconfounder=name)

    def interrupt(epoch, metrics):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", inputs, interrupt, deconfounder=name)
    state = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["model"]
    if name == "group_dro":
        weights = state["deconfounder.weight_G"]
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        assert weights[weights > 0].std() > 0
    resumed = run(tmp_path / "killed", inputs, deconfounder=name)
    assert resumed.metrics == straight.metrics
    curves = [[line.metrics for line in read_journal(tmp_path / of / "journal.jsonl")] for of in ("straight", "killed")]
    assert curves[0] == curves[1]
    for file in ("best.safetensors", "scores.safetensors"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A world of features, and the result of the baseline there."""
    inputs = make_inputs()
    return inputs, run(tmp_path_factory.mktemp("vanilla"), inputs, deconfounder="none").metrics["test_do/accuracy"]


@pytest.mark.parametrize("name", ["backdoor", "ipw", "logit_adjustment", "group_dro"])
def test_conditioning_on_the_cluster_helps_where_the_context_misleads(tmp_path, biased, name):
    inputs, vanilla = biased
    assert run(tmp_path, inputs, deconfounder=name).metrics["test_do/accuracy"] > vanilla + 0.1


@pytest.mark.parametrize("name", BUILT)
def test_every_deconfounder_starts_from_the_weights_of_the_baseline(name):
    models = []
    for deconfounder in (name, "none"):
        torch.manual_seed(4)
        experiment = make_experiment(deconfounder=deconfounder)
        models.append(build_recogniser(experiment, 4, ConfounderDictionary.random(6, WIDTH)).state_dict())
    assert all(torch.equal(models[0][key], value) for key, value in models[1].items())


@pytest.mark.parametrize("loss", ["soft_margin", "weighted_mse"])
@pytest.mark.parametrize("name", BUILT)
def test_several_categories_are_learnt_with_every_deconfounder(tmp_path, name, loss):
    result = run(tmp_path, make_inputs(multi_label=True), deconfounder=name, loss=loss, epochs=4)
    assert result.status == "done"
    assert result.metrics["val/mAP"] > 0.5


def test_the_worst_group_is_a_scene_where_scenes_are_known_else_a_cluster(tmp_path):
    inputs = make_inputs()
    scene = np.array(["park"] * len(inputs.index.splits), dtype=object)
    test = np.flatnonzero(inputs.index.splits == "test_do")
    scene[test[:MIN_GROUP_SUBJECTS]] = "street"
    scene[test[-MIN_GROUP_SUBJECTS + 1 :]] = "too small"
    known = replace(inputs, index=replace(inputs.index, scenes=scene.astype(str)))
    metrics = run(tmp_path / "scenes", known, deconfounder="ipw").metrics
    scores = load_file(tmp_path / "scenes" / "scores.safetensors")
    right = (scores["test_do"].argmax(1) == scores["test_do/targets"].argmax(1)).numpy()
    by_scene = [right[scene[test] == name].mean() for name in ("park", "street")]
    assert metrics["test_do/worst_group"] == pytest.approx(min(by_scene))
    assert "val/worst_group" not in metrics

    metrics = run(tmp_path / "clusters", inputs, deconfounder="ipw").metrics
    cluster = inputs.views["cluster"].take(test)
    large = [right[cluster == name].mean() for name in range(6) if (cluster == name).sum() >= MIN_GROUP_SUBJECTS]
    assert metrics["test_do/worst_group"] == pytest.approx(min(large))
    assert "test_do/worst_group" not in run(tmp_path / "neither", inputs, deconfounder="none").metrics


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Features of a world of pictures with bias 0.8, as a trial of EMOT-Net's head reads them."""
    root = tmp_path_factory.mktemp("biased_world")
    write_world(WorldSettings(images=3000, image_size=64, bias=0.8), root)
    dataset = load_dataset("confounded_scenes", root)
    requests = {
        "context": ViewRequest("context", "thin_resnet", "scenes"),
        "body": ViewRequest("body", "thin_resnet", "bodies"),
        "context_features": ViewRequest("masked_context", "thin_resnet", "scenes"),
    }
    maker = ViewMaker(dataset.root, list(requests.values()), None, torch.device("cpu"))
    parts = []
    for start in range(0, len(dataset.subjects), 128):
        rows, reasons = maker.make(dataset.subjects[start : start + 128], [0, 1, 2])
        assert not any(reason for of_view in reasons for reason in of_view)
        parts.append(rows)
    write_subject_index(dataset, root / "subjects.parquet")
    index = read_subject_index(root / "subjects.parquet")
    usable = (None,) * len(index.subject_ids)
    views = {name: ViewRows((np.concatenate([part[k] for part in parts]),), usable) for k, name in enumerate(requests)}
    features = views["context_features"].take(np.arange(len(usable)))
    dictionary = ConfounderDictionary.fit(features[index.splits == "train"], size=64, seed=0)
    views["cluster"] = ViewRows((nearest_prototypes(features, dictionary),), usable)
    return TrialInputs(index, views, dictionary)


@pytest.mark.slow
def test_conditioning_recovers_what_bias_took_on_the_embedded_world_and_ccim_does_not(embedded, tmp_path):
    chosen = {"dictionary__size": 64, "epochs": 15, "learning_rate": 2e-3, "batch_size": 128}
    found = {
        name: run(tmp_path / name, embedded, deconfounder=name, **chosen).metrics
        for name in ("none", "ccim", "backdoor", "logit_adjustment", "ipw")
    }
    on_do = {name: metrics["test_do/accuracy"] for name, metrics in found.items()}
    assert on_do["backdoor"] > on_do["none"] + 0.03, on_do
    assert on_do["logit_adjustment"] > on_do["none"] + 0.03, on_do
    assert on_do["ipw"] > on_do["none"] + 0.03, on_do
    assert abs(on_do["ccim"] - on_do["none"]) < 0.03, on_do
    assert "test_do/worst_group" in found["none"] or len(embedded.rows("test_do")) < 36 * MIN_GROUP_SUBJECTS
