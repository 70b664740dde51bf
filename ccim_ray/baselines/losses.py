"""Training losses. Shape suffixes: B subjects, M modalities, K categories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

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
    always holds. The authors' code and a common re-implementation put in the count of the positives, by default of the
    whole train split.
    """
    return 1 / torch.log(c + targets_BK.float().mean(0))


def weighted_mse(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """EMOT-Net's discrete loss: sum_i w_i (logit_i - target_i)^2, averaged over the batch.

    The weights are those of this batch (``category_weights``). Under DDP that is this process's share of it, as in
    batch norm: several workers weigh rare categories otherwise than one, which the signature knows. Outputs are linear,
    without a sigmoid.
    """
    errors_BK = (logits_BK.float() - targets_BK.float()).square()
    return (errors_BK * category_weights(targets_BK)).sum(1).mean()


def soft_margin(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Binary cross-entropy of each category by itself, averaged over categories and batch."""
    return F.multilabel_soft_margin_loss(logits_BK.float(), targets_BK.float())


def multiplicative(modality_logits_BMK: Tensor, targets_BK: Tensor, *, single_label: bool, beta: float = 2.0) -> Tensor:
    """EmotiCon's loss on what every modality predicts by itself: -sum_m p_m^(beta / (M - 1)) ln p_m, a scalar float32.

    Mittal et al. 2020. p_m is the probability that modality m gives the truth. Single label: softmax of
    the true category, averaged over the batch. Else each category by itself: sigmoid where it holds, one minus that
    where it does not, averaged over categories and batch as in ``soft_margin``.

    The factor p_m^(...) trusts a modality as far as it is right, and is held constant: the derivative of the whole
    product pushes every p_m below exp(-(M - 1) / beta) towards zero, away from the truth.

    Args:
        modality_logits_BMK: float; M of 2 or more, else ValueError.
        targets_BK: float, 0 or 1.
        beta: how strongly; the sources at hand do not state it.
    """
    modalities = modality_logits_BMK.shape[1]
    if modalities < 2:
        raise ValueError(f"the multiplicative loss weighs modalities against each other; it was given {modalities}")
    logits_BMK = modality_logits_BMK.float()
    if single_label:
        true_B11 = targets_BK.argmax(1)[:, None, None].expand(-1, modalities, 1)
        log_p = F.log_softmax(logits_BMK, dim=2).gather(2, true_B11)
    else:
        log_p = F.logsigmoid(torch.where(targets_BK[:, None] > 0, logits_BMK, -logits_BMK))
    trust = (log_p.detach() * beta / (modalities - 1)).exp()
    return -(trust * log_p).sum(1).mean()


def loss_terms(name: str, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """What each subject and category adds to the loss called ``name``, (B, K) float32.

    The loss is their sum over categories, averaged over subjects. RequestError for an unknown loss.
    """
    targets_BK = targets_BK.float()
    if name == "cross_entropy":
        return -targets_BK * logits_BK.float().log_softmax(1)
    if name == "weighted_mse":
        return (logits_BK.float() - targets_BK).square() * category_weights(targets_BK)
    make_loss(name)
    terms_BK = F.binary_cross_entropy_with_logits(logits_BK.float(), targets_BK, reduction="none")
    return terms_BK / targets_BK.shape[1]


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


Scale = Literal["softmax", "sigmoid", "value"]
"""What makes probabilities of logits; "value": they are taken for the targets' 0 and 1 themselves."""

_SCALES: dict[str, Scale] = {"cross_entropy": "softmax", "soft_margin": "sigmoid", "weighted_mse": "value"}


def loss_scale(name: str) -> Scale:
    """On what scale a model that was trained with the loss called ``name`` gives its logits."""
    make_loss(name)
    return _SCALES[name]
