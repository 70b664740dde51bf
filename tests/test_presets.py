"""Every preset of every dataset is a valid experiment that its own data can bear."""

import pytest

from ccim_ray.baselines.cards import CARDS
from ccim_ray.baselines.registry import inputs_of
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.registry import DATASETS
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import is_geometry
from ccim_ray.perception.weight_files import available_weights
from ccim_ray.presets import PRESETS, default_experiment, preset

LIKES = ("caer_s", "emotic", "groupwalk")
LOSSES = {"caer_s": "cross_entropy", "emotic": "weighted_mse", "groupwalk": "soft_margin"}


OPTIONS = [("emot_net", {}), ("gcn_cnn", {}), ("caer_net", CARDS["caer_net"].options)]
OPTIONS += [("emoticon", {"sociodynamic": value}) for value in ("agents", "depth")]


def of_world(name, like, *more):
    return default_experiment(
        "confounded_scenes", name, WorldSettings(like=like, images=preset(name).world_images), *more
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("like", LIKES)
def test_the_embedded_world_is_large_enough_for_what_the_preset_varies(name, like):
    experiment = of_world(name, like)
    train = experiment.world.split_sizes()["train"]
    assert train >= 4 * max(preset(name).sizes)
    assert train >= experiment.batch_size
    assert experiment.dictionary.size <= max(preset(name).sizes)
    assert experiment.trainable == "head"
    assert experiment.workers == 1
    assert experiment.loss == LOSSES[like]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "confounded_scenes"])
def test_real_datasets_follow_the_paper(name, dataset):
    experiment = default_experiment(dataset, name, None)
    assert experiment.world is None
    assert (experiment.backbone.arch, experiment.backbone.weights) == ("resnet152", "places365")
    assert experiment.loss == LOSSES[dataset]
    assert (experiment.ccim.output_dim, experiment.ccim.attention_dim) == (128, 256)
    limit = preset(name).subject_limit
    assert experiment.subject_limit == limit
    assert limit is None or limit >= max(preset(name).sizes)
    if name == "paper":
        assert experiment.dictionary.size == {"caer_s": 128, "emotic": 256, "groupwalk": 256}[dataset]
        assert preset(name).sizes == (64, 128, 256, 512, 1024)
        assert limit is None
        assert experiment.trainable == "all"


@pytest.mark.parametrize("name", PRESETS)
def test_every_backbone_named_by_a_preset_can_exist(name):
    experiments = [of_world(name, like) for like in LIKES]
    experiments += [default_experiment(dataset, name, None) for dataset in LIKES]
    for experiment in experiments:
        for backbone in (*experiment.trunks.values(), experiment.backbone):
            assert backbone.weights in available_weights(backbone.arch)


def trunks_of_cards():
    """Every (architecture, weights) that a card names, for the head or end to end."""
    items = [item for name, options in OPTIONS for item in inputs_of(name, options)]
    named = {item.trunk_for(trainable) for item in items for trainable in ("head", "all")} - {None}
    return sorted(named)


@pytest.mark.parametrize(("arch", "weights"), trunks_of_cards())
def test_every_trunk_named_by_a_card_can_exist(arch, weights):
    assert weights in available_weights(arch)


def test_the_options_looked_at_here_are_those_of_every_card():
    assert {name for name, _ in OPTIONS} == set(CARDS)
    assert {(name, key) for name, options in OPTIONS for key in options} == {
        (card.name, key) for card in CARDS.values() for key in card.options
    }


@pytest.mark.parametrize(("baseline", "options"), OPTIONS)
@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("dataset", LIKES)
def test_every_baseline_has_a_trunk_for_each_picture_that_it_reads(baseline, options, trainable, dataset):
    of_data = default_experiment(dataset, "paper", None, baseline, trainable, options)
    imitated = of_world("quick", dataset, baseline, trainable, options)
    items = inputs_of(baseline, options)
    for experiment in (of_data, imitated):
        assert list(experiment.trunks) == [item.view for item in items if not is_geometry(item.view)]
        assert (experiment.baseline, experiment.trainable) == (baseline, trainable)
        assert experiment.baseline_options == options
        assert experiment.modality_weight == (1.0 if baseline == "emoticon" else 0.0)
        mean_squares = dataset == "emotic" and baseline in ("emot_net", "gcn_cnn")
        usual = {"caer_s": "cross_entropy", "emotic": "soft_margin", "groupwalk": "soft_margin"}[dataset]
        assert experiment.loss == ("weighted_mse" if mean_squares else usual)
    for item in items:
        if item.trunk:
            trunk = of_data.trunks[item.view]
            assert (trunk.arch, trunk.weights) == item.trunk_for(trainable)
            # No picture of the embedded world goes through a network that was trained on others.
            assert imitated.trunks[item.view].weights not in ("places365", "imagenet")
    if trainable == "head":
        assert all(trunk.weights != "random" for trunk in (*of_data.trunks.values(), *imitated.trunks.values()))
        assert {trunk.arch for trunk in imitated.trunks.values()} == {"thin_resnet"}


def test_training_is_the_literatures_on_real_datasets_alone():
    paper = default_experiment("emotic", "paper", None, "emoticon")
    assert (paper.optimiser, paper.schedule, paper.learning_rate, paper.epochs) == ("adam", "constant", 1e-4, 75)
    assert default_experiment("emotic", "quick", None, "emoticon").epochs == preset("quick").epochs
    caer_net = default_experiment("caer_s", "paper", None, "caer_net")
    assert (caer_net.schedule, caer_net.step_epochs, caer_net.augmentation) == ("step", 4, "flip_colour")
    assert of_world("quick", "caer_s", "emoticon").optimiser == of_world("quick", "caer_s").optimiser == "adamw"


def test_emoticon_reads_the_depth_that_only_the_embedded_world_knows():
    assert of_world("quick", "caer_s", "emoticon").baseline_options == {"sociodynamic": "depth"}
    assert default_experiment("caer_s", "quick", None, "emoticon").baseline_options == {"sociodynamic": "agents"}
    told = of_world("quick", "caer_s", "emoticon", None, {"sociodynamic": "agents"})
    assert told.baseline_options == {"sociodynamic": "agents"}
    assert "depth" not in told.trunks


def test_presets_grow():
    smoke, quick, paper = (preset(name) for name in ("smoke", "quick", "paper"))
    assert smoke.world_images < quick.world_images < paper.world_images
    assert smoke.epochs < quick.epochs < paper.epochs
    assert len(smoke.seeds) < len(quick.seeds) < len(paper.seeds)
    assert len(quick.seeds) == 3
    assert quick.sizes == (64, 128, 256, 512, 1024)


def test_unknown_names_are_told_with_the_known_ones():
    with pytest.raises(RequestError, match="--preset tiny: .*smoke, quick, paper"):
        preset("tiny")
    with pytest.raises(RequestError, match="--dataset imagenet: .*confounded_scenes, emotic, caer_s, groupwalk"):
        default_experiment("imagenet", "quick", None)
