"""How often each category holds, over all subjects and within each context cluster.

Shape suffixes: M subjects of the train split, N prototypes, K categories.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ccim_ray.baselines.losses import Scale

PSEUDO_SUBJECTS = 2.0
"""Smoothing: each cluster is given so many subjects more, spread over the categories as all subjects are."""

FLOOR = 1e-6
"""Shares stay this far from 0 and 1: a category that no subject has, or every subject, has a logarithm too."""


class Shares(NamedTuple):
    """Shares of the subjects, float64.

    Attributes:
        overall_K: P(y_k = 1).
        by_cluster_NK: P(y_k = 1 | z_n), smoothed.
    """

    overall_K: Tensor
    by_cluster_NK: Tensor


def category_shares(cluster_M: Tensor, targets_MK: Tensor, size: int) -> Shares:
    """P(y) and P(y | z) = (n_zy + s P(y)) / (n_z + s), with s = PSEUDO_SUBJECTS, of the train split.

    The same formula serves one category a subject, where the shares of a cluster sum to one, and several, where each
    category stands by itself. Where y does not depend on z, both are equal, smoothed or not.

    Args:
        cluster_M: int64, in 0 .. size - 1.
        targets_MK: 0 or 1.
        size: N.
    """
    targets_MK = targets_MK.double()
    overall_K = targets_MK.mean(0)
    count_NK = torch.zeros(size, targets_MK.shape[1], dtype=torch.float64).index_add_(0, cluster_M, targets_MK)
    count_N1 = torch.bincount(cluster_M, minlength=size).double()[:, None]
    by_cluster_NK = (count_NK + PSEUDO_SUBJECTS * overall_K) / (count_N1 + PSEUDO_SUBJECTS)
    return Shares(overall_K.clamp(FLOOR, 1 - FLOOR), by_cluster_NK.clamp(FLOOR, 1 - FLOOR))


def offsets_of_clusters(shares: Shares, scale: Scale) -> Tensor:
    """What a cluster adds to the logits of a model that has not looked at X, (N, K) float64.

    log P(y | z) - log P(y) for one category a subject; for several logit P(y | z) - logit P(y), each by itself; and
    P(y | z) - P(y) where logits are taken for the targets' 0 and 1 themselves.
    """
    overall_K, by_cluster_NK = shares
    if scale == "softmax":
        return by_cluster_NK.log() - overall_K.log()
    if scale == "sigmoid":
        return by_cluster_NK.logit() - overall_K.logit()
    return by_cluster_NK - overall_K
