"""CAER-Net-S: the face and the context without it, weighed against each other for every subject.

Lee et al., "Context-Aware Emotion Recognition Networks", ICCV 2019: two encoding streams, attention inference in the
context's, adaptive fusion. The encoders are the views' trunks (perception/encoders.py). The paper's 1 x 1 convolutions
of pooled features are linear layers here, which is the same. Chosen here:

- the attended map is summed; the text averages it, though a softmax over the positions already does;
- the hidden layers of the two fusion branches have a ReLU, without which 128 channels would do no more than one;
- the streams have no batch norm before they are fused, as in the text; re-implementations add it.

Shape suffixes: B subjects, D feature dimensions of a view, H joint dimensions, P positions of a map, 2 streams: face,
context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ccim_ray.baselines.interface import require_views

ATTENTION_DIM = 128
FUSION_DIM = 128


class CaerNet(nn.Module):
    """Pooled face features and the map of the face-hidden context -> joint feature h.

    Args:
        feature_dims: D of each view in ``views``.
        num_categories: K; the classifier is not part of this block, so it changes nothing.
        joint_dim: H; 128 in the paper (d_h).
        dropout: share of h that is dropped in training.
        stream_batch_norm: normalise both streams before they are fused, as re-implementations do because the
            streams' scales differ.
        second_attention_relu: ReLU behind the second attention layer, as the paper says; re-implementations without
            it let a position fall below the others' floor.
        context_pooling: "sum" of the attended map, or its "mean", as the text has it: the same divided by the number
            of positions, which leaves a context about 1/49 of the face's size.

    Raises:
        ValueError: a view has no feature dimension.
    """

    views: ClassVar[tuple[str, ...]] = ("face", "face_hidden_context")

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_categories: int,
        *,
        joint_dim: int = 128,
        dropout: float = 0.5,
        stream_batch_norm: bool = False,
        second_attention_relu: bool = True,
        context_pooling: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        require_views("CAER-Net", self.views, feature_dims)
        face_dim, context_dim = (feature_dims[view] for view in self.views)
        self.joint_dim = joint_dim
        self.context_pooling = context_pooling
        self.attention = ContextAttention(context_dim, second_relu=second_attention_relu)
        self.face_norm = nn.BatchNorm1d(face_dim) if stream_batch_norm else nn.Identity()
        self.context_norm = nn.BatchNorm1d(context_dim) if stream_batch_norm else nn.Identity()
        self.fusion = AdaptiveFusion(face_dim, context_dim)
        self.joint = nn.Sequential(nn.Linear(face_dim + context_dim, joint_dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Joint feature h (B, H) float from ``face`` (B, D) and ``face_hidden_context`` (B, D, height, width)."""
        face_BD, context_map = features["face"], features["face_hidden_context"]
        attended_BDP = self.attention(context_map).flatten(1)[:, None] * context_map.flatten(2)
        context_BD = attended_BDP.sum(2) if self.context_pooling == "sum" else attended_BDP.mean(2)
        joint_BH: Tensor = self.joint(self.fusion(self.face_norm(face_BD), self.context_norm(context_BD)))
        return joint_BH


class ContextAttention(nn.Module):
    """Attention inference: 3x3 convolutions to 128 and to 1 channel, then softmax over the positions.

    Args:
        channels: D of the map.
        second_relu: ReLU behind the second convolution.
    """

    def __init__(self, channels: int, *, second_relu: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, ATTENTION_DIM, 3, padding=1, bias=False),
            nn.BatchNorm2d(ATTENTION_DIM),
            nn.ReLU(),
            nn.Conv2d(ATTENTION_DIM, 1, 3, padding=1, bias=False),
            nn.BatchNorm2d(1),
            nn.ReLU() if second_relu else nn.Identity(),
        )

    def forward(self, context_map: Tensor) -> Tensor:
        """Attention (B, height, width) float that sums to one, from the map (B, D, height, width)."""
        logits = self.layers(context_map).squeeze(1)
        return torch.softmax(logits.flatten(1), dim=1).view_as(logits)


class AdaptiveFusion(nn.Module):
    """Scales each stream by its share of a softmax over the two streams' own scores.

    Args:
        face_dim, context_dim: D of the streams.
    """

    def __init__(self, face_dim: int, context_dim: int) -> None:
        super().__init__()
        self.face_score = _score(face_dim)
        self.context_score = _score(context_dim)

    def forward(self, face_BD: Tensor, context_BD: Tensor) -> Tensor:
        """Both streams, scaled and concatenated: (B, face_dim + context_dim) float."""
        scores_B2 = torch.cat([self.face_score(face_BD), self.context_score(context_BD)], dim=1)
        share_B2 = torch.softmax(scores_B2, dim=1)
        return torch.cat([share_B2[:, :1] * face_BD, share_B2[:, 1:] * context_BD], dim=1)


def _score(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, FUSION_DIM), nn.ReLU(), nn.Linear(FUSION_DIM, 1))
