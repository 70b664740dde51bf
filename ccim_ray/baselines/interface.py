"""What baselines have in common. Shape suffixes: B subjects, H joint dimensions, M modalities, K categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class JointWithModalities(NamedTuple):
    """What a baseline gives whose single modalities are trained to predict, too.

    Attributes:
        joint_BH: the joint feature h, float.
        modality_logits_BMK: what each modality says by itself, float, for the loss ``multiplicative``.
    """

    joint_BH: Tensor
    modality_logits_BMK: Tensor


def require_views(baseline: str, views: Sequence[str], feature_dims: Mapping[str, int]) -> None:
    """ValueError, naming them, where views of ``baseline`` have no feature dimension."""
    missing = [view for view in views if view not in feature_dims]
    if missing:
        raise ValueError(f"{baseline} needs the views {tuple(views)}; no feature dimension for {missing}")
