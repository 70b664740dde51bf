"""EmotiCon: the subject's face and pose, the scene around it, and the people near it. Approximate.

Mittal et al., "EmotiCon: Context-Aware Multimodal Emotion Recognition Using Frege's Principle", CVPR 2020, of which
there is no public code. Fixed by the literature: the three streams, what each is built from, 26 dimensions each, and
the loss. Chosen here:

- a trunk's features of the face stand in for OpenFace's, and a skeleton of 18 joints for one of 25;
- face and pose are fused by a linear layer; what is multiplicative is the loss on their own predictions and the
  scene's (``losses.multiplicative``), without which those heads get no gradient;
- the scene's attention branch, and what it attends to, stand behind the trunk's last map;
- people are joined by exp(-distance) of their boxes' centres, and the graph is read at the subject;
- the layers' widths; no normalisation in the small graphs; a stream ends in a linear layer.

Shape suffixes: B subjects, D feature dimensions of a view, V joints of the skeleton (18), N agents, C channels,
F dimensions of a stream (26), H joint dimensions, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ccim_ray.baselines.graphs import GraphConvolution, mean_over_present, normalise_adjacency
from ccim_ray.baselines.interface import JointWithModalities, require_views
from ccim_ray.perception.geometry import JOINTS

BONES = (
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),  # neck, nose, eyes, ears
    *((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)),  # arms
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),  # hips and legs
)
"""Pairs of joints that a bone connects, in the OpenPose COCO order of ``Subject.keypoints``."""

FACE_DIM = 128
POSE_CHANNELS = (2, 32, 64, 64)
DEPTH_DIM = 1000
AGENT_CHANNELS = (4, 64, 64)
AGENT_DIM = 100


class EmotiCon(nn.Module):
    """Three contexts of a subject -> joint feature h, their concatenation, and what three modalities predict.

    Args:
        feature_dims: D of each view in ``views``.
        num_categories: K.
        sociodynamic: what the third stream sees: the boxes of the ``agents``, or a picture of ``depth``, both of which
            are published. "agents" where nothing is said, as not every dataset has depth.
        stream_dim: F, dimensions of each stream; 26 in the paper whatever K is, hence H = 78 (d_h).

    Attributes:
        views: the picture views, which depend on ``sociodynamic``.

    Raises:
        ValueError: a view has no feature dimension.
    """

    modalities: ClassVar[tuple[str, ...]] = ("face", "pose", "scene")

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_categories: int,
        *,
        sociodynamic: Literal["agents", "depth"] = "agents",
        stream_dim: int = 26,
    ) -> None:
        super().__init__()
        self.views = ("face", "masked_context", *(["depth"] if sociodynamic == "depth" else []))
        require_views("EmotiCon", self.views, feature_dims)
        self.joint_dim = 3 * stream_dim
        self.sociodynamic = sociodynamic
        self.face = _two_layers(feature_dims["face"], FACE_DIM, stream_dim)
        self.pose = PoseStream(stream_dim)
        self.face_prediction = nn.Linear(stream_dim, num_categories)
        self.pose_prediction = nn.Linear(stream_dim, num_categories)
        self.fusion = nn.Linear(2 * stream_dim, stream_dim)
        self.scene = SceneStream(feature_dims["masked_context"], num_categories, stream_dim)
        self.neighbours = (
            _two_layers(feature_dims["depth"], DEPTH_DIM, stream_dim)
            if sociodynamic == "depth"
            else AgentStream(stream_dim)
        )

    def forward(self, features: Mapping[str, Tensor]) -> JointWithModalities:
        """Joint feature h (B, H) and logits (B, 3, K) of face, pose and scene, float.

        ``features`` holds ``face`` (B, D), ``keypoints`` (B, 18, 3), ``masked_context`` (B, D, height, width), and
        ``depth`` (B, D) or ``agents`` (B, N, 5).
        """
        face_BF, pose_BF = self.face(features["face"]), self.pose(features["keypoints"])
        subject_BF = self.fusion(torch.cat([face_BF, pose_BF], dim=1))
        scene_BF, scene_logits_BK = self.scene(features["masked_context"])
        neighbours_BF = self.neighbours(features[self.sociodynamic])
        logits = [self.face_prediction(face_BF), self.pose_prediction(pose_BF), scene_logits_BK]
        return JointWithModalities(torch.cat([subject_BF, scene_BF, neighbours_BF], dim=1), torch.stack(logits, dim=1))


class PoseStream(nn.Module):
    """Spatial graph convolutions over the skeleton, as those of ST-GCN (Yan et al. 2018) on a single frame.

    Every layer weighs the edges by its own learned importance, as there: it is what tells a wrist from an ankle.
    Joints that are not known are no nodes.
    """

    skeleton_VV: Tensor

    def __init__(self, stream_dim: int) -> None:
        super().__init__()
        self.register_buffer("skeleton_VV", skeleton_adjacency(), persistent=False)
        layers = range(len(POSE_CHANNELS) - 1)
        self.layers = nn.ModuleList(GraphConvolution(POSE_CHANNELS[k], POSE_CHANNELS[k + 1]) for k in layers)
        self.importance = nn.ParameterList(torch.ones(JOINTS, JOINTS) for _ in layers)
        self.output = nn.Linear(POSE_CHANNELS[-1], stream_dim)

    def forward(self, keypoints_BV3: Tensor) -> Tensor:
        """Stream (B, F) float from keypoints (B, 18, 3): x, y relative to the body's box, 1 where known else 0."""
        known_BV = keypoints_BV3[..., 2] > 0
        adjacency_BVV = normalise_adjacency(self.skeleton_VV, known_BV)
        nodes = keypoints_BV3[..., :2]
        for layer, importance_VV in zip(self.layers, self.importance, strict=True):
            nodes = layer(nodes, adjacency_BVV * importance_VV)
        stream_BF: Tensor = self.output(mean_over_present(nodes, known_BV))
        return stream_BF


def skeleton_adjacency() -> Tensor:
    """(18, 18) float: 1 where a bone connects two joints, and on the diagonal."""
    adjacency_VV = torch.eye(JOINTS)
    for first, second in BONES:
        adjacency_VV[first, second] = adjacency_VV[second, first] = 1
    return adjacency_VV


class SceneStream(nn.Module):
    """Attention branch network (Fukui et al., CVPR 2019) on the picture without the subject.

    The attention branch predicts the categories by itself; its attention a scales the map to (1 + a) times itself.
    """

    def __init__(self, channels: int, num_categories: int, stream_dim: int) -> None:
        super().__init__()
        self.category_maps = nn.Sequential(
            nn.Conv2d(channels, num_categories, 1, bias=False), nn.BatchNorm2d(num_categories), nn.ReLU()
        )
        self.prediction = nn.Linear(num_categories, num_categories)
        self.attention = nn.Sequential(
            nn.Conv2d(num_categories, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid()
        )
        self.output = nn.Linear(channels, stream_dim)

    def forward(self, context_map: Tensor) -> tuple[Tensor, Tensor]:
        """Stream (B, F) and the attention branch's logits (B, K), float, from a map (B, D, height, width)."""
        category_maps = self.category_maps(context_map)
        attended_map = context_map * (1 + self.attention(category_maps))
        return self.output(attended_map.mean((2, 3))), self.prediction(category_maps.mean((2, 3)))


class AgentStream(nn.Module):
    """Two graph convolutions over the people of the picture, joined the closer they are; read at the subject."""

    def __init__(self, stream_dim: int) -> None:
        super().__init__()
        layers = range(len(AGENT_CHANNELS) - 1)
        self.layers = nn.ModuleList(GraphConvolution(AGENT_CHANNELS[k], AGENT_CHANNELS[k + 1]) for k in layers)
        self.output = _two_layers(AGENT_CHANNELS[-1], AGENT_DIM, stream_dim)

    def forward(self, agents_BN5: Tensor) -> Tensor:
        """Stream (B, F) float from agents (B, N, 5): x1, y1, x2, y2 relative to the picture, and 1 where there is one.

        Row 0 is the subject. The order of the others does not matter, and neither do rows without an agent.
        """
        nodes, present_BN = agents_BN5[..., :4], agents_BN5[..., 4] > 0
        adjacency_BNN = normalise_adjacency(agent_adjacency(nodes), present_BN)
        for layer in self.layers:
            nodes = layer(nodes, adjacency_BNN)
        stream_BF: Tensor = self.output(nodes[:, 0])
        return stream_BF


def agent_adjacency(boxes_BN4: Tensor) -> Tensor:
    """exp(-distance between the boxes' centres), (B, N, N) float; 1 on the diagonal."""
    centres_BN2 = (boxes_BN4[..., :2] + boxes_BN4[..., 2:]) / 2
    return torch.exp(-(centres_BN2[:, :, None] - centres_BN2[:, None, :]).norm(dim=3))


def _two_layers(channels_in: int, hidden: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels_in, hidden), nn.ReLU(), nn.Linear(hidden, channels_out))
