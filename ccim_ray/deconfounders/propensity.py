"""How often each category holds, over all subjects and within each context cluster.

Shape suffixes: M subjects of the train split, N prototypes, K categories.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
