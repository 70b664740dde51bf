"""The signature tells trials apart exactly where their results can differ."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment

DIGESTS = {"context": "c0", "body": "b0", "backbone": "p0"}

VALUES = {
    "dataset": "confounded_scenes",
    "world": {"like": "caer_s", "images": 600},
    "trunks": {
        "context": {"arch": "thin_resnet", "weights": "scenes"},
        "body": {"arch": "thin_resnet", "weights": "bodies"},
    },
    "backbone": {"arch": "thin_resnet", "weights": "scenes"},
}

CHANGES = {
    "world__like": "emotic",
    "world__images": 601,
    "world__bias": 0.7,
    "world__ambiguity": 0.4,
    "world__annotator_bias": 0.1,
    "world__image_size": 64,
    "world__seed": 1,
    "subject_limit": 100,
    "trunks__context__arch": "resnet18",
    "trunks__context__weights": "random",
    "trunks__body__arch": "resnet18",
    "trunks__body__weights": "random",
    "trainable": "all",
    "loss": "weighted_mse",
    "modality_weight": 1.0,
    "optimiser": "sgd",
    "schedule": "step",
    "step_epochs": 4,
    "learning_rate": 0.001,
    "weight_decay": 0.0,
    "gradient_clip": 1.0,
    "epochs": 16,
    "batch_size": 128,
    "patience": 3,
    "precision": "float32",
    "compile": True,
    "seed": 1,
}
"""A value other than the default for every field that decides the result of any trial."""

CHANGES_OF_PICTURES = {
    "augmentation": "none",
    "channels_last": False,
}

CHANGES_OF_DECONFOUNDER = {
    "ccim__attention": "additive",
    "ccim__use_lambda": False,
    "ccim__use_prior": False,
    "ccim__context_weights": "renormalised",
    "ccim__output_dim": 64,
    "ccim__attention_dim": 64,
    "dictionary__size": 64,
    "dictionary__source": "random",
    "dictionary__prior": "shuffled",
    "dictionary__pca_components": 32,
    "dictionary__seed": 1,
    "backbone__arch": "resnet50",
    "backbone__weights": "places365",
    "masking": "none",
}


def experiment(**changes):
    return Experiment.parse(VALUES).with_changes(**changes)


def signature(of, data="data"):
    return of.signature(data, DIGESTS)


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}__")
        else:
            yield f"{prefix}{key}"


def test_every_field_is_looked_at_here():
    apart = {"dataset", "baseline", "baseline_options__width", "deconfounder", "workers"}
    every = leaves(experiment(baseline_options={"width": 3}).model_dump())
    assert set(every) == {*CHANGES, *CHANGES_OF_DECONFOUNDER, *CHANGES_OF_PICTURES, *apart}


@pytest.mark.parametrize("deconfounder", ["none", "ccim"])
@pytest.mark.parametrize("key", CHANGES)
def test_the_signature_changes_with_what_can_change_a_result(deconfounder, key):
    base = experiment(deconfounder=deconfounder)
    assert signature(base.with_changes(**{key: CHANGES[key]})) != signature(base)


@pytest.mark.parametrize("key", CHANGES_OF_DECONFOUNDER)
def test_settings_of_ccim_count_only_with_ccim(key):
    change = {key: CHANGES_OF_DECONFOUNDER[key]}
    with_ccim, vanilla = experiment(deconfounder="ccim"), experiment(deconfounder="none")
    assert signature(with_ccim.with_changes(**change)) != signature(with_ccim)
    assert signature(vanilla.with_changes(**change)) == signature(vanilla)
    assert vanilla.with_changes(**change).parameters() == vanilla.parameters()


@pytest.mark.parametrize(
    ("deconfounder", "unused"),
    [
        ("backdoor", {"ccim"}),
        ("ipw", {"ccim"}),
        ("logit_adjustment", {"ccim"}),
        ("group_dro", {"ccim"}),
        ("clef", {"ccim", "dictionary"}),
    ],
)
def test_settings_of_the_context_count_where_a_deconfounder_uses_them(deconfounder, unused):
    base = experiment(deconfounder=deconfounder)
    for key, value in CHANGES_OF_DECONFOUNDER.items():
        same = key.split("__")[0] in unused
        assert (signature(base.with_changes(**{key: value})) == signature(base)) == same, key


def test_an_unknown_deconfounder_is_named_with_those_there_are():
    with pytest.raises(RequestError, match="^--deconfounder magic: there is no such deconfounder; .* none, .*clef$"):
        experiment(deconfounder="magic")


@pytest.mark.parametrize("key", CHANGES_OF_PICTURES)
def test_settings_of_pictures_count_only_end_to_end(key):
    change = {key: CHANGES_OF_PICTURES[key]}
    head, everything = experiment(), experiment(trainable="all")
    assert signature(everything.with_changes(**change)) != signature(everything)
    assert signature(head.with_changes(**change)) == signature(head)


def test_the_model_the_workers_the_data_and_the_weights_count():
    base = experiment(trainable="all")
    others = [
        signature(base.with_changes(deconfounder="none")),
        signature(base.model_copy(update={"baseline": "another"})),
        signature(base.with_changes(baseline_options={"width": 3})),
        signature(base.with_changes(workers=2)),
        signature(base, data="other data"),
        base.signature("data", DIGESTS | {"context": "c1"}),
        base.signature("data", DIGESTS | {"backbone": "p1"}),
    ]
    assert len({signature(base), *others}) == 8


def test_without_lambda_there_is_no_attention_to_choose():
    base = experiment(ccim__use_lambda=False)
    assert signature(base.with_changes(ccim__attention="additive")) == signature(base)
    assert signature(base.with_changes(ccim__attention_dim=64)) == signature(base)


def test_a_random_dictionary_has_no_principal_components():
    base = experiment(dictionary__source="random")
    assert signature(base.with_changes(dictionary__pca_components=32)) == signature(base)
    assert signature(base.with_changes(dictionary__prior="shuffled")) == signature(base)
    assert signature(base.with_changes(dictionary__seed=1)) != signature(base)


def test_a_setting_that_came_later_leaves_older_signatures_as_they_were():
    essence = experiment().essence()
    assert set(essence["ccim"]) == {"attention", "use_lambda", "use_prior", "output_dim", "attention_dim"}
    assert set(essence["dictionary"]) == {"size", "source", "pca_components", "seed"}
    changed = experiment(ccim__context_weights="renormalised", dictionary__prior="uniform").essence()
    assert (changed["ccim"]["context_weights"], changed["dictionary"]["prior"]) == ("renormalised", "uniform")


ALL_CHANGES = CHANGES | CHANGES_OF_DECONFOUNDER | CHANGES_OF_PICTURES


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(ALL_CHANGES))), st.sampled_from(["none", "ccim"]), st.randoms())
def test_the_signature_is_of_the_values_not_of_how_they_came_about(keys, deconfounder, random):
    changes = {key: ALL_CHANGES[key] for key in keys}
    shuffled = list(changes.items())
    random.shuffle(shuffled)
    at_once = experiment(deconfounder=deconfounder, **changes)
    one_by_one = experiment()
    for key, value in shuffled:
        one_by_one = one_by_one.with_changes(**{key: value})
    one_by_one = one_by_one.with_changes(deconfounder=deconfounder)
    from_disk = Experiment.parse(json.loads(json.dumps(at_once.model_dump(mode="json"))))
    assert at_once == one_by_one == from_disk
    assert signature(at_once) == signature(one_by_one) == signature(from_disk)
    assert re.fullmatch("[0-9a-f]{16}", signature(at_once))


def test_parameters_have_the_keys_of_the_contract():
    parameters = experiment(seed=3, dictionary__size=64).parameters()
    expected = {
        "dataset": "confounded_scenes",
        "baseline": "emot_net",
        "seed": "3",
        "trainable": "head",
        "deconfounder": "ccim",
        "ccim.enabled": "True",
        "ccim.attention": "dot_product",
        "ccim.use_lambda": "True",
        "ccim.use_prior": "True",
        "dictionary.size": "64",
        "dictionary.source": "clusters",
        "backbone.arch": "thin_resnet",
        "backbone.weights": "scenes",
        "masking": "subject",
        "epochs": "15",
        "batch_size": "256",
        "learning_rate": "0.002",
        "world.bias": "0.8",
        "trunks.body.weights": "bodies",
    }
    assert expected.items() <= parameters.items()
    vanilla = experiment(deconfounder="none").parameters()
    assert vanilla["ccim.enabled"] == "False"
    assert not any(key.startswith(("dictionary.", "backbone.", "masking")) for key in vanilla)


def test_a_change_reaches_a_nested_key_and_leaves_the_original():
    base = experiment()
    changed = base.with_changes(dictionary__size=64, trunks__body__weights="random", world__bias=0.5)
    assert (changed.dictionary.size, changed.trunks["body"].weights, changed.world.bias) == (64, "random", 0.5)
    assert changed.trunks["context"] == base.trunks["context"]
    assert base == experiment()
    assert base.world == WorldSettings(images=600)


def test_an_experiment_cannot_be_changed_in_place():
    base = experiment()
    with pytest.raises(ValidationError):
        base.seed = 1
    with pytest.raises(ValidationError):
        base.dictionary.size = 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learnig_rate": 0.1}, ("learnig_rate", "0.1")),
        ({"dictionary__sise": 64}, ("dictionary.sise", "64")),
        ({"dictionary__size": 0}, ("dictionary.size", "0")),
        ({"dictionry__size": 64}, ("dictionry",)),
        ({"learning_rate": -1.0}, ("learning_rate", "-1.0")),
        ({"learning_rate": float("nan")}, ("learning_rate", "nan")),
        ({"batch_size": 1}, ("batch_size", "1")),
        ({"epochs": 2.5}, ("epochs", "2.5")),
        ({"ccim__attention": "softmax"}, ("ccim.attention", "'softmax'", "additive")),
        ({"precision": "half"}, ("precision", "'half'", "bfloat16")),
        ({"augmentation": "rotate"}, ("augmentation", "'rotate'", "flip_colour")),
        ({"modality_weight": -1.0}, ("modality_weight", "-1.0")),
        ({"trunks__boddy__weights": "random"}, ("trunks.boddy",)),
        ({"trainable": "some"}, ("trainable", "'some'", "head")),
        ({"world__bias": 2.0}, ("world.bias", "2.0")),
        ({"world": None}, ("world", "confounded_scenes")),
        ({"dataset": "emotic"}, ("world", "confounded_scenes")),
        ({"workers": 2}, ("--workers-per-trial", "--trainable all")),
        ({"trainable": "all", "workers": 4, "batch_size": 7}, ("--batch-size 7", "4")),
    ],
)
def test_a_wrong_value_is_one_line_that_names_key_and_value(changes, named):
    with pytest.raises(RequestError) as error:
        experiment(**changes)
    message = str(error.value)
    assert all(part in message for part in named)
    assert "\n" not in message
    assert len(message) < 200
