"""Small baselines with inputs for them. Suffixes: B subjects, V joints, N agents or regions."""

from __future__ import annotations

from functools import partial

import torch

from ccim_ray.baselines.caer_net import CaerNet
from ccim_ray.baselines.emoticon import EmotiCon
from ccim_ray.baselines.gcn_cnn import GcnCnn

CATEGORIES = 5
DIMS = {"face": 12, "face_hidden_context": 10, "context": 9, "body": 7, "masked_context": 8, "depth": 6}
MAPS = {"face_hidden_context": (7, 7), "context": (6, 8), "masked_context": (5, 4)}

BUILD = {
    "caer_net": partial(CaerNet, DIMS, CATEGORIES),
    "caer_net as re-implemented": partial(
        CaerNet, DIMS, CATEGORIES, stream_batch_norm=True, second_attention_relu=False, context_pooling="mean"
    ),
    "gcn_cnn": partial(GcnCnn, DIMS, CATEGORIES),
    "emoticon with depth": partial(EmotiCon, DIMS, CATEGORIES, sociodynamic="depth"),
    "emoticon with agents": partial(EmotiCon, DIMS, CATEGORIES, sociodynamic="agents"),
}
"""Every baseline, as a function without arguments that draws its weights from torch's generator."""


def boxes(batch, number, generator):
    """(B, N, 4): x1, y1, x2, y2 in 0..1, each side at least 0.1."""
    corners_BN2 = 0.6 * torch.rand(batch, number, 2, generator=generator)
    return torch.cat([corners_BN2, corners_BN2 + 0.1 + 0.3 * torch.rand(batch, number, 2, generator=generator)], dim=2)


def make_inputs(batch, seed=0):
    """Every input of every baseline: ReLU-like features, joints 3 and 4 unknown, agents 4 to 8 absent."""
    generator = torch.Generator().manual_seed(seed)
    features = {
        view: torch.randn(batch, dim, *MAPS.get(view, ()), generator=generator).relu() for view, dim in DIMS.items()
    }
    keypoints_BV3 = torch.rand(batch, 18, 3, generator=generator)
    keypoints_BV3[..., 2] = 1
    keypoints_BV3[:, 3:5] = 0
    agents_BN5 = torch.cat([boxes(batch, 9, generator), torch.ones(batch, 9, 1)], dim=2)
    agents_BN5[:, 4:] = 0
    return features | {"keypoints": keypoints_BV3, "agents": agents_BN5, "regions": boxes(batch, 10, generator)}


def joint_of(output):
    """h (B, H) of what a baseline returned."""
    return getattr(output, "joint_BH", output)


def seeded(build, seed=0):
    """What ``build`` makes from this seed."""
    torch.manual_seed(seed)
    return build()
