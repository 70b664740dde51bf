"""A baseline is found by its name, here or in another installed package, and takes the options that it has."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from plug_in_package import install_package, lines_of

from ccim_ray.baselines.card import TRAINING_SETTINGS, Input
from ccim_ray.baselines.cards import CARDS
from ccim_ray.baselines.registry import baseline_card, baseline_names, build_baseline, checked_options, inputs_of
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment


def test_the_four_of_the_paper_are_known_first():
    assert baseline_names()[:4] == ("emot_net", "gcn_cnn", "caer_net", "emoticon")
    for name in CARDS:
        assert baseline_card(name).name == name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RequestError, match="^--baseline emotnet: .*emot_net, gcn_cnn, caer_net, emoticon"):
        baseline_card("emotnet")
    with pytest.raises(RequestError, match="--baseline emotnet"):
        build_baseline("emotnet", {}, 7)


def test_emot_net_is_built_for_the_given_features():
    baseline = build_baseline("emot_net", {"context": 5, "body": 3}, 7)
    assert baseline.joint_dim == 256
    assert baseline({"context": torch.zeros(2, 5), "body": torch.zeros(2, 3)}).shape == (2, 256)


def test_options_have_defaults_and_an_unknown_one_lists_those_there_are():
    emoticon = baseline_card("emoticon")
    assert checked_options(emoticon, {}) == {"sociodynamic": "agents"}
    assert checked_options(emoticon, {"sociodynamic": "depth"}) == {"sociodynamic": "depth"}
    assert emoticon.options == {"sociodynamic": "agents"}
    with pytest.raises(RequestError, match="^--baseline emoticon has no option 'socio'; its options: sociodynamic$"):
        inputs_of("emoticon", {"socio": "depth"})
    with pytest.raises(RequestError, match="^--baseline emot_net has no option 'depth'; its options: none$"):
        build_baseline("emot_net", {"context": 5, "body": 3}, 7, {"depth": True})


def test_an_option_decides_what_is_read_and_a_wrong_value_is_refused():
    views = {
        value: [item.view for item in inputs_of("emoticon", {"sociodynamic": value})] for value in ("agents", "depth")
    }
    assert views["agents"] == ["face", "keypoints", "masked_context", "agents"]
    assert views["depth"] == ["face", "keypoints", "masked_context", "depth"]
    assert inputs_of("emoticon", {}) == inputs_of("emoticon", {"sociodynamic": "agents"})
    for wrong in ("people", 1, True):
        with pytest.raises(RequestError, match=f"sociodynamic={wrong}: choose agents or depth"):
            inputs_of("emoticon", {"sociodynamic": wrong})


@pytest.mark.parametrize("name", CARDS)
def test_a_model_built_without_its_card_is_the_one_that_the_card_describes(name):
    module, _, class_name = baseline_card(name).module.partition(":")
    parameters = inspect.signature(getattr(import_module(module), class_name)).parameters
    assert list(parameters)[:2] == ["feature_dims", "num_categories"]
    for option, default in baseline_card(name).options.items():
        assert parameters[option].default == default, option
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", CARDS)
def test_a_card_names_each_view_once_and_settings_that_exist(name):
    card = baseline_card(name)
    for options in ({}, *({key: value} for key, value in card.options.items())):
        views = [item.view for item in inputs_of(name, options)]
        assert len(set(views)) == len(views)
    assert set(card.training) <= set(TRAINING_SETTINGS) <= set(Experiment.model_fields)


def test_geometry_and_it_alone_has_no_trunk():
    trunk = ("resnet18", "imagenet")
    for view, form, of in (
        ("agents", "geometry", trunk),
        ("agents", "pooled", trunk),
        ("face", "geometry", None),
        ("face", "map", None),
    ):
        with pytest.raises(ValueError, match=f"{view} as {form}"):
            Input(view, form, of)
    assert Input("agents", "geometry").trunk_for("head") is None
    assert Input("face", "map", trunk).trunk_for("head") == trunk


def test_the_frozen_trunk_is_for_the_head_alone():
    item = Input("depth", "pooled", ("depth_cnn", "random"), frozen_trunk=("resnet18", "imagenet"))
    assert item.trunk_for("head") == ("resnet18", "imagenet")
    assert item.trunk_for("all") == ("depth_cnn", "random")


PROGRAM = """
import torch
from ccim_ray.baselines.registry import baseline_card, baseline_names, build_baseline, inputs_of

print(*baseline_names())
print(inputs_of("face_net", {})[0].view, build_baseline("face_net", {"face": 5}, 7, {"width": 3}).joint_dim)
print(baseline_card("emot_net").module)
for name in ("no_card", "other_name", "no_object", "no_module"):
    print(refusal(baseline_card, name))
print(refusal(inputs_of, "face_net", {"depth": 2}))
print(refusal(build_baseline, "lost_class", {}, 7))
"""


def test_another_installed_package_brings_a_baseline(tmp_path: Path):
    install_package(tmp_path)
    lines = lines_of(PROGRAM, tmp_path)
    assert lines[0].startswith("emot_net gcn_cnn caer_net emoticon face_net lost_class no_card")
    assert lines[1] == "face 3"
    assert lines[2] == "ccim_ray.baselines.emot_net:EmotNet"  # no other package takes the place of our own
    starts = (
        "error: --baseline no_card: the entry point other_package:FaceNet is the class FaceNet, not a BaselineCard",
        "error: --baseline other_name: the entry point other_package:FACE_NET is a BaselineCard of the name 'face_net'",
        "error: --baseline no_object: the entry point other_package:NOTHING cannot be loaded",
        "error: --baseline no_module: the entry point absent_package:CARD cannot be loaded (ModuleNotFoundError: ",
        "error: --baseline face_net has no option 'depth'; its options: width",
        "error: --baseline lost_class: its class other_package:Gone cannot be loaded",
    )
    assert len(lines) == 3 + len(starts)
    for line, start in zip(lines[3:], starts, strict=True):
        assert line.startswith(start)
