"""The paper's numbers, against its Tables 1 to 4 typed here once more."""

import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.presets import default_experiment
from ccim_ray.reports.published import published_of, published_scores
from search_spaces.dict_size import dict_size_space

PAPER = {
    "emotic": {
        "emot_net": (27.93, 30.88),
        "gcn_cnn": (28.16, 31.72),
        "caer_net": (23.85, 26.51),
        "emoticon": (35.28, 39.13),
    },
    "groupwalk": {
        "emot_net": (58.33, 60.74),
        "gcn_cnn": (53.43, 56.42),
        "caer_net": (48.51, 50.76),
        "emoticon": (65.58, 69.31),
    },
    "caer_s": {
        "emot_net": (74.51, 75.82),
        "gcn_cnn": (77.21, 78.66),
        "caer_net": (73.47, 74.81),
        "emoticon": (88.65, 91.17),
    },
}


@pytest.mark.parametrize("dataset", PAPER)
def test_scores_are_those_of_the_tables_as_fractions(dataset):
    for baseline, (vanilla, with_ccim) in PAPER[dataset].items():
        assert published_scores(dataset, baseline, False)[""] == pytest.approx(vanilla / 100, abs=1e-12)
        assert published_scores(dataset, baseline, True)[""] == pytest.approx(with_ccim / 100, abs=1e-12)


def test_what_the_paper_does_not_have_is_none():
    assert published_scores("confounded_scenes", "emot_net", True) == {}
    assert published_scores("emotic", "resnet", False) == {}


def test_categories_have_their_own_number_and_their_mean_is_the_papers():
    found = published_scores("emotic", "emoticon", True)
    categories = [value for key, value in found.items() if key.startswith("AP/")]
    assert len(categories) == 26
    assert sum(categories) / 26 == pytest.approx(found[""], abs=1e-4)
    assert len(published_scores("groupwalk", "gcn_cnn", False)) == 5


@pytest.mark.parametrize(("dataset", "metric", "size"), [("emotic", "mAP", 256), ("caer_s", "accuracy", 128)])
def test_only_the_default_size_has_a_published_number(dataset, metric, size):
    base = default_experiment(dataset, "paper", None)
    published = dict_size_space((64, 128, 256, 512, 1024)).published(base, metric)
    found = {key: value for key, value in published.items() if "/AP/" not in key[1]}
    vanilla, with_ccim = (value / 100 for value in PAPER[dataset]["emot_net"])
    assert found == pytest.approx(
        {("vanilla", f"test/{metric}"): vanilla, (f"CCIM N={size}", f"test/{metric}"): with_ccim}
    )


def test_the_embedded_world_has_no_published_number():
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=600))
    assert dict_size_space((8, 16)).published(base, "accuracy") == {}


@pytest.mark.parametrize(
    ("change", "row", "score"),
    [
        ({"ccim__attention": "additive"}, "additive_attention", 30.79),
        ({"ccim__use_lambda": False}, "without_lambda", 30.05),
        ({"ccim__use_prior": False}, "without_prior", 30.63),
        ({"dictionary__source": "random"}, "random_dictionary", 26.56),
        ({"masking": "none"}, "without_masking", 29.86),
        ({"backbone__arch": "vgg16"}, "vgg16_backbone", 28.78),
        ({"backbone__arch": "resnet50"}, "resnet50_backbone", 29.53),
        ({"backbone__weights": "imagenet"}, "imagenet_pretraining", 28.72),
    ],
)
def test_an_ablation_is_set_beside_its_own_number_of_table_4(change, row, score):
    base = default_experiment("emotic", "paper", None).with_changes(**change)
    assert published_of(base) == published_scores("emotic", "emot_net", True, row) == {"": pytest.approx(score / 100)}


@pytest.mark.parametrize(
    "change",
    [
        {"ccim__context_weights": "renormalised"},
        {"ccim__output_dim": 64},
        {"ccim__use_lambda": False, "ccim__use_prior": False},
        {"dictionary__prior": "shuffled"},
        {"dictionary__prior": "uniform"},
        {"dictionary__source": "random", "masking": "none"},
        {"backbone__arch": "resnet50", "backbone__weights": "imagenet"},
        {"deconfounder": "projection"},
    ],
)
def test_what_the_paper_did_not_try_has_no_number(change):
    assert published_of(default_experiment("emotic", "paper", None).with_changes(**change)) == {}
