"""Back-door adjustment as Eq. 2 is written: P(Y | do(X)) = sum_z P(z) P(Y | X, z), over the dictionary.

Shape suffixes: B subjects, N prototypes, K categories, D context feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccim_ray.baselines.losses import make_loss
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CLUSTER
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.deconfounders.propensity import category_shares, offsets_of_clusters


class BackDoor(Deconfounder):
    """P(Y | X, z) is fitted with each subject's own z, and averaged over the dictionary with its prior P(z) at test.

    The logits of P(Y | X, z) are the baseline's plus V z, with z the prototype, standardised over the dictionary. V is
    learnt, and starts where V z gives what a cluster's categories say without X, log P(y | z) - log P(y): from zero, X
    would learn the context first, which it shows as well, and keep it. The average is of probabilities, exactly: no
    expectation is moved into the network, which is what leads from Eq. 2 to CCIM's Eq. 4. Where the loss takes outputs
    as they are (squared errors), it is of those.
    """

    context_ND: Tensor
    prior_N: Tensor

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__(num_categories, loss, dictionary, feature_dim)
        assert dictionary is not None
        self.register_buffer("context_ND", _standardised(dictionary))
        self.register_buffer("prior_N", dictionary.prior_N.detach().clone())
        self.context_weight = nn.Parameter(torch.zeros(num_categories, dictionary.feature_dim))

    def fit(self, cluster_M: Tensor, targets_MK: Tensor) -> None:
        """Set V to where learning starts: the smallest that fits each cluster's offsets, up to one for all clusters."""
        offset_NK = offsets_of_clusters(category_shares(cluster_M, targets_MK, len(self.prior_N)), self.scale)
        centred_NK = offset_NK - self.prior_N.double() @ offset_NK
        weight_DK = torch.linalg.pinv(self.context_ND.double()) @ centred_NK
        with torch.no_grad():
            self.context_weight.copy_(weight_DK.T)

    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The training loss of P(Y | X, z) at the subject's own z."""
        own_BK = self._offsets()[context[CLUSTER]]
        return make_loss(self.loss_name)(logits_BK + own_BK, targets_BK)

    def forward(self, logits_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Logits of sum_z P(z) P(Y | X, z)."""
        offsets_NK = self._offsets()
        if self.scale == "value":
            return logits_BK + self.prior_N @ offsets_NK
        given_z_BNK = logits_BK.float()[:, None] + offsets_NK
        log_prior_N1 = self.prior_N.log()[:, None]
        if self.scale == "softmax":
            return torch.logsumexp(log_prior_N1 + given_z_BNK.log_softmax(2), 1)
        holds_BK = torch.logsumexp(log_prior_N1 + F.logsigmoid(given_z_BNK), 1)
        fails_BK = torch.logsumexp(log_prior_N1 + F.logsigmoid(-given_z_BNK), 1)
        return holds_BK - fails_BK

    def _offsets(self) -> Tensor:
        return self.context_ND @ self.context_weight.T


def _standardised(dictionary: ConfounderDictionary) -> Tensor:
    """Prototypes less their mean over the dictionary, divided by their standard deviation, dimension by dimension."""
    prior_N1, prototypes_ND = dictionary.prior_N[:, None].double(), dictionary.prototypes_ND.detach().double()
    centred_ND = prototypes_ND - (prior_N1 * prototypes_ND).sum(0)
    deviation_D = (prior_N1 * centred_ND.square()).sum(0).sqrt()
    return torch.where(deviation_D > 0, centred_ND / deviation_D, 0.0).float()
