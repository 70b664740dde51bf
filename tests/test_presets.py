"""Every preset of every dataset is a valid experiment that its own data can bear."""

import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.registry import DATASETS
from ccim_ray.errors import RequestError
from ccim_ray.perception.weight_files import available_weights
from ccim_ray.presets import PRESETS, default_experiment, preset

LIKES = ("caer_s", "emotic", "groupwalk")
LOSSES = {"caer_s": "cross_entropy", "emotic": "weighted_mse", "groupwalk": "soft_margin"}


def of_world(name, like):
    return default_experiment("confounded_scenes", name, WorldSettings(like=like, images=preset(name).world_images))


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
