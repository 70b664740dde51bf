"""The four baselines of the paper: what each reads, and how the literature trains it (no torch here).

Where a published model is trained from scratch, its head mode reads features of a pre-trained network instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.errors import RequestError

_PLACES, _IMAGENET = ("resnet18", "places365"), ("resnet18", "imagenet")
_CONTEXT_VGG, _BODY_VGG = ("vgg16", "places365"), ("vgg16", "imagenet")
_CAER_FACE, _CAER_CONTEXT = ("caer_face", "random"), ("caer_context", "random")
_DEPTH_CNN = ("depth_cnn", "random")


def _emot_net_inputs(options: Mapping[str, Any]) -> tuple[Input, ...]:
    return Input("context", "pooled", _PLACES), Input("body", "pooled", _IMAGENET)


def _gcn_cnn_inputs(options: Mapping[str, Any]) -> tuple[Input, ...]:
    return (
        Input("context", "map", _CONTEXT_VGG),
        Input("regions", "geometry"),
        Input("body", "pooled", _BODY_VGG),
    )


def _caer_net_inputs(options: Mapping[str, Any]) -> tuple[Input, ...]:
    return (
        Input("face", "pooled", _CAER_FACE, frozen_trunk=_IMAGENET),
        Input("face_hidden_context", "map", _CAER_CONTEXT, frozen_trunk=_PLACES),
    )


def _emoticon_inputs(options: Mapping[str, Any]) -> tuple[Input, ...]:
    shared = (
        Input("face", "pooled", _IMAGENET),
        Input("keypoints", "geometry"),
        Input("masked_context", "map", _PLACES),
    )
    if options["sociodynamic"] == "agents":
        return (*shared, Input("agents", "geometry"))
    if options["sociodynamic"] == "depth":
        return (*shared, Input("depth", "pooled", _DEPTH_CNN, frozen_trunk=_IMAGENET))
    raise RequestError(f"--baseline-options sociodynamic={options['sociodynamic']}: choose agents or depth")


EMOT_NET = BaselineCard(
    name="emot_net",
    title="EMOT-Net",
    module="ccim_ray.baselines.emot_net:EmotNet",
    inputs=_emot_net_inputs,
    training={
        "optimiser": "sgd",
        "schedule": "step",
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "epochs": 15,
        "batch_size": 52,
        "augmentation": "flip",
    },
    losses={"emotic": "weighted_mse"},
)
"""Kosti et al., TPAMI 2019, with the residual trunks of re-implementations."""

GCN_CNN = BaselineCard(
    name="gcn_cnn",
    title="GCN-CNN",
    module="ccim_ray.baselines.gcn_cnn:GcnCnn",
    inputs=_gcn_cnn_inputs,
    training={
        "optimiser": "sgd",
        "schedule": "step",
        "learning_rate": 1e-3,
        "weight_decay": 5e-4,
        "epochs": 15,
        "batch_size": 64,
        "augmentation": "flip",
    },
    losses={"emotic": "weighted_mse"},
    approximate="regions, graph and layer widths are not published",
)
"""Zhang, Liang, Ma, ICME 2019. Epochs and schedule are not published: EMOT-Net's."""

CAER_NET = BaselineCard(
    name="caer_net",
    title="CAER-Net",
    module="ccim_ray.baselines.caer_net:CaerNet",
    inputs=_caer_net_inputs,
    options={"stream_batch_norm": False, "second_attention_relu": True, "context_pooling": "sum"},
    training={
        "optimiser": "sgd",
        "schedule": "step",
        "step_epochs": 4,
        "learning_rate": 5e-3,
        "weight_decay": 5e-4,
        "epochs": 15,
        "batch_size": 32,
        "augmentation": "flip_colour",
    },
)
"""Lee et al., ICCV 2019. Optimiser and epochs are not published."""

EMOTICON = BaselineCard(
    name="emoticon",
    title="EmotiCon",
    module="ccim_ray.baselines.emoticon:EmotiCon",
    inputs=_emoticon_inputs,
    options={"sociodynamic": "agents"},
    optional_views={"depth": {"sociodynamic": "depth"}},
    training={
        "optimiser": "adam",
        "schedule": "constant",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "epochs": 75,
        "batch_size": 32,
        "augmentation": "flip",
        "modality_weight": 1.0,
    },
    approximate="its face, gait and depth networks are replaced, as no implementation is published",
)
"""Mittal et al., CVPR 2020."""

CARDS = {card.name: card for card in (EMOT_NET, GCN_CNN, CAER_NET, EMOTICON)}
