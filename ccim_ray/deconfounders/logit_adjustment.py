"""Logit adjustment by context: training is told how the cluster shifts the categories, so that the model need not.

Shape suffixes: B subjects of a batch, M subjects of the train split, N prototypes, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ccim_ray.baselines.losses import make_loss
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CLUSTER
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.deconfounders.propensity import category_shares, offsets_of_clusters


class LogitAdjustment(Deconfounder):
    """Trains on the logits plus log P(y | z) - log P(y), z the subject's context cluster; tests without.

    After Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, with the prior of each cluster relative
    to that of all, so that what is left is a model for the train split's P(y). Several categories: each by itself,
    logit P(y | z) - logit P(y). Where the loss takes outputs as they are (squared errors): P(y | z) - P(y).
    """

    offset_NK: Tensor

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__(num_categories, loss, dictionary, feature_dim)
        assert dictionary is not None
        self.register_buffer("offset_NK", torch.zeros(dictionary.size, num_categories))

    def fit(self, cluster_M: Tensor, targets_MK: Tensor) -> None:
        """Estimate the offsets on the train split."""
        shares = category_shares(cluster_M, targets_MK, len(self.offset_NK))
        self.offset_NK.copy_(offsets_of_clusters(shares, self.scale))

    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The training loss of the adjusted logits."""
        return make_loss(self.loss_name)(logits_BK + self.offset_NK[context[CLUSTER]], targets_BK)
