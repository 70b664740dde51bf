"""Inverse-propensity weighting: subjects count as if category and context had been drawn apart.

Shape suffixes: B subjects of a batch, M subjects of the train split, N prototypes, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ccim_ray.baselines.losses import loss_terms
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CLUSTER
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.deconfounders.propensity import category_shares

LARGEST_WEIGHT = 20.0
"""Clipping: no subject counts more than so many, before weights are scaled to a mean of one."""


class InversePropensityWeighting(Deconfounder):
    """Weighs each subject's loss by P(y) / P(y | z), z its context cluster; at test nothing is changed.

    One category a subject: one weight, that of its category. Several: a weight for each category, of whether it holds.
    Propensities are smoothed (``propensity.PSEUDO_SUBJECTS``) and weights clipped (LARGEST_WEIGHT), which trades some
    of the bias back for less variance; the mean weight over the train split is one.
    """

    weight_2NK: Tensor

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__(num_categories, loss, dictionary, feature_dim)
        assert dictionary is not None
        # Row 0: where the category does not hold; row 1: where it does.
        self.register_buffer("weight_2NK", torch.ones(2, dictionary.size, num_categories))

    def fit(self, cluster_M: Tensor, targets_MK: Tensor) -> None:
        """Estimate the weights on the train split."""
        overall_K, by_cluster_NK = category_shares(cluster_M, targets_MK, self.weight_2NK.shape[1])
        ratios_2NK = torch.stack([(1 - overall_K) / (1 - by_cluster_NK), overall_K / by_cluster_NK])
        weight_2NK = ratios_2NK.clamp(max=LARGEST_WEIGHT)
        weight_MK = _of_subjects(weight_2NK, cluster_M, targets_MK)
        if self.scale == "softmax":
            weight_2NK /= weight_MK[targets_MK > 0].mean()
        else:
            weight_2NK /= weight_MK.mean(0)
        self.weight_2NK.copy_(weight_2NK)

    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The training loss with each of its terms weighted."""
        weight_BK = _of_subjects(self.weight_2NK, context[CLUSTER], targets_BK)
        return (weight_BK * loss_terms(self.loss_name, logits_BK, targets_BK)).sum(1).mean()


def _of_subjects(weight_2NK: Tensor, cluster_B: Tensor, targets_BK: Tensor) -> Tensor:
    return torch.where(targets_BK > 0, weight_2NK[1][cluster_B], weight_2NK[0][cluster_B])
