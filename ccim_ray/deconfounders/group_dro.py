"""GroupDRO: what is trained on is the loss of the groups that fare worst.

Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, Algorithm 1.
Shape suffixes: B subjects of a batch, M subjects of the train split, N prototypes, K categories, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from ccim_ray.baselines.losses import loss_terms
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CLUSTER
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.deconfounders.propensity import category_shares

STEP_SIZE = 0.02
"""eta: in every step a group's weight is multiplied by exp(eta x its loss)."""


class GroupDRO(Deconfounder):
    """Groups of (category, does it hold, does the subject's context cluster favour that); at test nothing is changed.

    A cluster favours what is more frequent in it than overall. Clusters themselves would be no groups to look at: the
    shortcut lies in the pair of cluster and category, of which N x K would leave most with a handful of subjects. With
    one category a subject, it is in the group of its own category; with several, each category puts it in a group.

    ``weight_G`` sums to one over the groups that the train split has. It is a buffer, so an interrupted trial goes on
    with it; under DDP all processes see the groups of the whole batch, and their weights stay equal.
    """

    weight_G: Tensor
    favoured_2NK: Tensor

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__(num_categories, loss, dictionary, feature_dim)
        assert dictionary is not None
        self.register_buffer("weight_G", torch.full((4 * num_categories,), 1 / (4 * num_categories)))
        self.register_buffer("favoured_2NK", torch.zeros(2, dictionary.size, num_categories, dtype=torch.bool))

    def fit(self, cluster_M: Tensor, targets_MK: Tensor) -> None:
        """Find what each cluster favours, and give the groups that there are equal weights."""
        overall_K, by_cluster_NK = category_shares(cluster_M, targets_MK, self.favoured_2NK.shape[1])
        self.favoured_2NK.copy_(torch.stack([by_cluster_NK < overall_K, by_cluster_NK > overall_K]))
        group_MK = self.groups(cluster_M, targets_MK)
        found_G = torch.zeros(len(self.weight_G)).scatter_(0, group_MK[self._counted(targets_MK)], 1.0)
        self.weight_G.copy_(found_G / found_G.sum())

    def groups(self, cluster_B: Tensor, targets_BK: Tensor) -> Tensor:
        """Number of the group of each subject and category, (B, K) int64: 4 k + 2 holds + favoured."""
        holds_BK = targets_BK > 0
        favoured_BK = torch.where(holds_BK, self.favoured_2NK[1][cluster_B], self.favoured_2NK[0][cluster_B])
        first_K = 4 * torch.arange(targets_BK.shape[1], device=targets_BK.device)
        return first_K + 2 * holds_BK.long() + favoured_BK.long()

    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """sum_g weight_g loss_g, after the weights have moved to the groups with the larger loss in this batch.

        Scaled so that it is the training loss where all groups have the same.
        """
        counted_BK = self._counted(targets_BK)
        group_T = self.groups(context[CLUSTER], targets_BK)[counted_BK]
        terms_T = loss_terms(self.loss_name, logits_BK, targets_BK)[counted_BK]
        sum_G = torch.zeros_like(self.weight_G).index_add(0, group_T, terms_T)
        size_G = torch.bincount(group_T, minlength=len(sum_G)).float()
        whole_sum_G, whole_size_G, processes = sum_G.detach().clone(), size_G, 1
        if dist.is_initialized() and dist.get_world_size() > 1:
            processes = dist.get_world_size()
            dist.all_reduce(whole_sum_G)
            dist.all_reduce(whole_size_G)
        per_subject = 1 if self.scale == "softmax" else targets_BK.shape[1]
        whole_size_G = whole_size_G.clamp(min=1)
        with torch.no_grad():
            raised_G = self.weight_G * torch.exp(STEP_SIZE * per_subject * whole_sum_G / whole_size_G)
            self.weight_G.copy_(raised_G / raised_G.sum())
        # DDP takes the mean of the processes' gradients, so each gives its share times their number.
        return (self.weight_G * sum_G / whole_size_G).sum() * per_subject * processes

    def _counted(self, targets_BK: Tensor) -> Tensor:
        """Which categories put a subject in a group: its own, or with several all of them."""
        return targets_BK > 0 if self.scale == "softmax" else torch.ones_like(targets_BK, dtype=torch.bool)
