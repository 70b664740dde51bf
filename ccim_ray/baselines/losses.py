"""Training losses. Shape suffixes: B subjects, K categories."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ccim_ray.errors import RequestError

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K) float, targets (B, K) float multi-hot) -> scalar float32."""


def cross_entropy(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Mean cross-entropy for targets that name one category each (one-hot rows)."""
    return F.cross_entropy(logits_BK.float(), targets_BK.argmax(1))


def category_weights(targets_BK: Tensor, c: float = 1.2) -> Tensor:
    """w_i = 1 / ln(c + p_i), (K,), with p_i the share of the batch in which category i holds.

    Kosti et al. 2019, Eq. 3, p_i read as a proportion: 5.485 for an absent category, 1.268 for one that
    always holds.
    """
    return 1 / torch.log(c + targets_BK.float().mean(0))


def weighted_mse(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """EMOT-Net's discrete loss: sum_i w_i (logit_i - target_i)^2, averaged over the batch.

    The weights are those of this batch (``category_weights``). Outputs are linear, without a sigmoid.
    """
    errors_BK = (logits_BK.float() - targets_BK.float()).square()
    return (errors_BK * category_weights(targets_BK)).sum(1).mean()


def soft_margin(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Binary cross-entropy of each category by itself, averaged over categories and batch."""
    return F.multilabel_soft_margin_loss(logits_BK.float(), targets_BK.float())


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "weighted_mse": weighted_mse,
    "soft_margin": soft_margin,
}


def make_loss(name: str) -> Loss:
    """The loss called ``name``; RequestError names the known ones."""
    if name not in LOSSES:
        raise RequestError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
