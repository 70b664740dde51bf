"""CLEF: the context's direct effect is learnt by a branch of its own, and subtracted at test.

Yang et al., "Robust Emotion Recognition in Context Debiasing", CVPR 2024, with the fusion and losses of Niu et al.,
"Counterfactual VQA", CVPR 2021, which it builds on. Shape suffixes: B subjects, K categories, D context feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CONTEXT_FEATURES
from ccim_ray.deconfounders.interface import Deconfounder


class Clef(Deconfounder):
    """Factual log sigmoid(Y_x + Y_c), counterfactual log sigmoid(kappa + Y_c); TIE = TE - NDE is their difference.

    Y_x are the baseline's logits. Y_c are a linear branch's over the features of the masked context; the published
    branch is a ResNet that is trained too. kappa, one value a category for all subjects, starts out uniform and stands
    for a baseline that has seen nothing.

    The losses are its own whatever the experiment's: L = CE(factual) + CE(Y_c) + KL(factual || counterfactual), the
    last training kappa alone; with one category a subject cross-entropies of a softmax, else binary ones.
    """

    def __init__(
        self, num_categories: int, loss: str, dictionary: ConfounderDictionary | None, feature_dim: int
    ) -> None:
        super().__init__(num_categories, loss, dictionary, feature_dim)
        if self.scale == "value":
            self.scale = "sigmoid"
        self.normalise = nn.BatchNorm1d(feature_dim, affine=False)
        self.context_weight = nn.Parameter(torch.zeros(num_categories, feature_dim))
        self.context_bias = nn.Parameter(torch.zeros(num_categories))
        self.kappa = nn.Parameter(torch.zeros(num_categories))

    def loss(self, logits_BK: Tensor, targets_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Factual and context cross-entropy, and the divergence that sets kappa."""
        context_BK = self._context_logits(context)
        counterfactual_BK = self.kappa + context_BK.detach()
        factual_BK = logits_BK + context_BK
        if self.scale == "softmax":
            category_B = targets_BK.argmax(1)
            factual_log_BK = F.logsigmoid(factual_BK).log_softmax(1)
            counterfactual_log_BK = F.logsigmoid(counterfactual_BK).log_softmax(1)
            losses = F.nll_loss(factual_log_BK, category_B) + F.cross_entropy(context_BK, category_B)
            apart = _divergence(factual_log_BK.detach(), counterfactual_log_BK).sum(1).mean()
            return losses + apart
        losses = F.binary_cross_entropy_with_logits(factual_BK, targets_BK)
        losses = losses + F.binary_cross_entropy_with_logits(context_BK, targets_BK)
        fixed_BK = factual_BK.detach()
        holds_BK = _divergence(F.logsigmoid(fixed_BK), F.logsigmoid(counterfactual_BK))
        fails_BK = _divergence(F.logsigmoid(-fixed_BK), F.logsigmoid(-counterfactual_BK))
        return losses + (holds_BK + fails_BK).mean()

    def forward(self, logits_BK: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """TIE, zero where the baseline says no more than kappa."""
        context_BK = self._context_logits(context)
        return F.logsigmoid(logits_BK.float() + context_BK) - F.logsigmoid(self.kappa + context_BK)

    def _context_logits(self, context: Mapping[str, Tensor]) -> Tensor:
        features_BD: Tensor = self.normalise(context[CONTEXT_FEATURES])
        return F.linear(features_BD, self.context_weight, self.context_bias)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p (log p - log q), element by element."""
    return log_p.exp() * (log_p - log_q)
