"""EMOT-Net: context and body of the subject, fused by one block.

Kosti et al., "Context Based Emotion Recognition using EMOTIC Dataset", TPAMI 2019. Fixed by the literature: two trunks,
one for the whole picture and one for the body, whose averages are concatenated and fused by this block into 256
dimensions. Batch norm and ReLU are in the published model and not in the authors' later code. Chosen here: the
trunks are the residual ones of re-implementations; valence, arousal and dominance are not predicted.

Shape suffixes: B subjects, D feature dimensions of a view, H joint dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ccim_ray.baselines.interface import require_views


class EmotNet(nn.Module):
    """Features of the two views -> joint feature h: concat, Linear, BatchNorm, ReLU, Dropout.

    The views' trunks are separate modules, so that this block also runs on features extracted once.

    Args:
        feature_dims: D of each view in ``views``.
        num_categories: K; the classifier is not part of this block, so it changes nothing.
        joint_dim: H; 256 in the paper (d_h).
        dropout: share of h that is dropped in training.

    Raises:
        ValueError: a view has no feature dimension.
    """

    views: ClassVar[tuple[str, ...]] = ("context", "body")

    def __init__(
        self, feature_dims: Mapping[str, int], num_categories: int, *, joint_dim: int = 256, dropout: float = 0.5
    ) -> None:
        super().__init__()
        require_views("EMOT-Net", self.views, feature_dims)
        self.joint_dim = joint_dim
        self.fusion = nn.Sequential(
            nn.Linear(sum(feature_dims[view] for view in self.views), joint_dim),
            nn.BatchNorm1d(joint_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Joint feature h (B, H) float from the features (B, D) of each view."""
        joint_BH: Tensor = self.fusion(torch.cat([features[view] for view in self.views], dim=1))
        return joint_BH
