"""My model: a gate decides for every subject how much the face counts beside the context."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ccim_ray.baselines.card import BaselineCard, Input


class MyModel(nn.Module):
    def __init__(self, feature_dims: Mapping[str, int], num_categories: int, width: int) -> None:
        super().__init__()
        self.joint_dim = width
        self.face = nn.Linear(feature_dims["face"], width)
        self.context = nn.Linear(feature_dims["context"], width)
        self.gate = nn.Linear(2 * width, width)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        face_BH = self.face(features["face"]).relu()
        context_BH = self.context(features["context"]).relu()
        gate_BH = self.gate(torch.cat([face_BH, context_BH], dim=1)).sigmoid()
        return gate_BH * face_BH + (1 - gate_BH) * context_BH


def inputs(options: Mapping[str, Any]) -> tuple[Input, ...]:
    return Input("face", "pooled", ("resnet18", "imagenet")), Input("context", "pooled", ("resnet18", "places365"))


MY_MODEL = BaselineCard(
    name="my_model",
    title="My model",
    module="my_models.model:MyModel",
    inputs=inputs,
    options={"width": 64},
    training={"optimiser": "adamw", "learning_rate": 1e-3, "epochs": 15, "batch_size": 64, "augmentation": "flip"},
)
