"""The four baselines of the paper: what each reads, and how the literature trains it (no torch here).

The paper trained them "consistent with the details reported in their original papers", and says no more. So each card
says where its values are from: "published" is in the model's own paper or code, "second-hand" in what others write of
it, "chosen" in neither. Trunks and training are as published where that is known. Where a published model is trained
from scratch, its head mode reads features of a pre-trained network instead. SGD has a momentum of 0.9.
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
        "epochs": 14,
        "batch_size": 52,
        "augmentation": "none",
    },
    losses={"emotic": "weighted_mse"},
)
"""Kosti et al., TPAMI 2019.

- Training: published, the authors' code: SGD at 0.01, a tenth of it every 7 epochs (``step_epochs``), decay 5e-4, 14
  epochs, batches of 2 x 26, no augmentation. Their released model is said to have had 21 epochs, and a common
  re-implementation has Adam, 15 epochs, flips and other colours; nothing of either is taken.
- Trunks: of that re-implementation, ResNet-18 on Places365 and on ImageNet. The published ones come without weights.
- Loss: published for EMOTIC, its part for the categories; elsewhere chosen.
"""

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
        "epochs": 14,
        "batch_size": 64,
        "augmentation": "none",
    },
    losses={"emotic": "weighted_mse"},
    approximate="regions, graph and layer widths are not published",
)
"""Zhang, Liang and Ma, ICME 2019.

- Training: rate 1e-3, decay 5e-4 and batches of 64 second-hand, from a replication of a later paper that lists them.
  Optimiser, schedule, epochs, augmentation and loss chosen: EMOT-Net's.
- Trunks: VGG16 second-hand, from a later paper's comparison; their weights chosen: Places365 for the context, as that
  is what a context is to tell, and ImageNet for the body.
"""

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
    approximate="its context is pooled by a sum, its input sizes and epochs are not of the paper",
)
"""Lee et al., ICCV 2019.

- Training: published: rate 5e-3, a tenth of it every 4 epochs, batches of 32, flips and other contrast and colours,
  from scratch, cross-entropy for one label. SGD second-hand, from re-implementations, which use Nesterov's. Weight
  decay and epochs chosen: after 15 epochs the rate is a thousandth, and more would change little.
- Pictures: faces of 96 and contexts of 112 pixels, which the paper has for videos and public code for pictures, too;
  the paper's own size for pictures is 224.
- ``context_pooling``: chosen, against the text, which says average pooling: see ``caer_net.CaerNet``.
"""

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
"""Mittal et al., CVPR 2020.

- Training: Adam at 1e-4, batches of 32 and 75 epochs second-hand, from a replication of a later paper that lists them.
  Constant rate, no weight decay, flips, and equal weights of both losses (``modality_weight``) chosen.
- Loss: multi-label soft margin second-hand for several labels; cross-entropy for one label chosen.
- ``sociodynamic``: both are published. "depth", which scored higher there, is taken wherever there are depth pictures,
  "agents" elsewhere, as it needs boxes alone.
"""

CARDS = {card.name: card for card in (EMOT_NET, GCN_CNN, CAER_NET, EMOTICON)}
