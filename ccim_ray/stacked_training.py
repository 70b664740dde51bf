"""Heads of one shape trained as one batched model: what a GPU needs, which a single head leaves idle.

Every variant keeps its own initial weights, order, dropout and gradient norm, drawn from the same streams as in
``training.train``, and its own best epoch. Only the order of sums inside the batched products differs, so results are
equal within rounding (tests/test_stacked_training.py says how near), not to the bit. How fast it is on a GPU has not
been measured.

Shape suffixes: V variants, B batch, S subjects, H joint feature, P parameters, K categories.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from ccim_ray.baselines.losses import make_loss
from ccim_ray.batches import Batches
from ccim_ray.experiment import Experiment
from ccim_ray.journal import JournalLine
from ccim_ray.prepared import TrialInputs
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import (
    EVALUATION_BATCH,
    in_bfloat16,
    learning_rate_factor,
    make_optimiser,
    metrics_of_split,
    seed_of,
    tf32_where_asked,
)

SHARED = ("ccim.dictionary_ND",)
"""Buffers that are the same for all variants of a stack, held once."""


@dataclass
class VariantProgress:
    """What one variant of a stack has come to.

    Attributes:
        lines: its journal.
        best: its tensors after the best epoch, without those that are SHARED.
        diverged_at_step: as in TrialResult; None while all is finite.
    """

    lines: list[JournalLine] = field(default_factory=list)
    best_value: float | None = None
    best_epoch: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    diverged_at_step: int | None = None
    stopped: bool = False
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it is not trained any further."""
        return self.stopped or self.diverged_at_step is not None


class _GivenDropout(nn.Module):
    """Dropout by a mask that was drawn elsewhere: inside a stack there is one stream for all variants."""

    scale_BH: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale_BH", torch.ones(()))

    def forward(self, joint_BH: Tensor) -> Tensor:
        return joint_BH * self.scale_BH if self.training else joint_BH


class HeadStack:
    """Recognisers of one shape on features, as one model.

    Args:
        recognisers: untrained, on the CPU, without trunks, of an EMOT-Net with at most one dropout.
        experiments: theirs; they differ in the seed and in ``use_prior``, in nothing else.
    """

    def __init__(
        self, recognisers: Sequence[Recogniser], experiments: Sequence[Experiment], device: torch.device
    ) -> None:
        self._experiments, self._device = experiments, device
        self._template = copy.deepcopy(recognisers[0]).to(device)
        self._rate = 0.0
        for name, module in list(self._template.named_modules()):
            if isinstance(module, nn.Dropout):
                self._rate = module.p
                self._template.set_submodule(name, _GivenDropout())
                self._mask_name = f"{name}.scale_BH"
        parameters, self.buffers = stack_module_state(list(recognisers))
        self.parameters = nn.ParameterList(of.detach().to(device) for of in parameters.values())
        self._names = list(parameters)
        self.buffers = {
            name: (of[0] if name in SHARED else of).to(device, copy=True) for name, of in self.buffers.items()
        }
        if self._template.ccim is not None and "ccim.prior_N" in self.buffers:
            self._template.ccim.use_prior = True  # a prior of ones is none
            for prior_N, experiment in zip(self.buffers["ccim.prior_N"], experiments, strict=True):
                if not experiment.ccim.use_prior:
                    prior_N.fill_(1)

    def logits_VBK(  # noqa: N802
        self, views: Mapping[str, Tensor], scale_VBH: Tensor | None, shared_views: bool
    ) -> Tensor:
        """Logits of every variant; views are (V, B, D), or (B, D) the same for all."""
        self._template.train(scale_VBH is not None)
        buffers = dict(self.buffers)
        if scale_VBH is not None and self._rate:
            buffers[self._mask_name] = scale_VBH
        axes = {name: None if name in SHARED else 0 for name in buffers}

        def of_one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], views: dict[str, Tensor]) -> Tensor:
            logits_BK: Tensor = functional_call(self._template, (parameters, buffers), (views,)).logits_BK
            return logits_BK

        parameters = dict(zip(self._names, self.parameters, strict=True))
        batched = torch.vmap(of_one, in_dims=(0, axes, None if shared_views else 0))
        with torch.autocast(self._device.type, torch.bfloat16, self._lowered(training=scale_VBH is not None)):
            logits_VBK: Tensor = batched(parameters, buffers, dict(views))
        return logits_VBK.float()

    def dropout_masks(self, epoch: int, steps: int, batch: int, width: int) -> Tensor:
        """(steps, V, B, H): what dropout would draw in each variant's own training."""
        dtype = torch.bfloat16 if self._lowered(training=True) else torch.float32
        ones_BH = torch.ones(batch, width, dtype=dtype, device=self._device)
        masks = []
        for experiment in self._experiments:
            torch.manual_seed(seed_of(experiment.seed, epoch, 0))
            masks.append(torch.stack([F.dropout(ones_BH, self._rate) for _ in range(steps)]))
        return torch.stack(masks, 1)

    def tensors_of(self, variant: int) -> dict[str, Tensor]:
        """A copy of the variant's parameters and buffers, but for those that are SHARED and the prior."""
        named = zip(self._names, self.parameters, strict=True)
        kept = {name: of[variant].detach().clone() for name, of in named}
        left_out = (*SHARED, "ccim.prior_N")
        return kept | {name: of[variant].clone() for name, of in self.buffers.items() if name not in left_out}

    def _lowered(self, *, training: bool) -> bool:
        return training and in_bfloat16(self._experiments[0], self._device)


def train_stacked(
    experiments: Sequence[Experiment], inputs: TrialInputs, recognisers: Sequence[Recogniser], device: torch.device
) -> list[VariantProgress]:
    """Train all variants, each selected on validation by itself; what each has come to, in their order.

    The loss is ``training.train_epoch``'s. All features lie on the device. Random streams are torch's global ones.
    """
    first = experiments[0]
    stack = HeadStack(recognisers, experiments, device)
    optimiser = make_optimiser(first, stack.parameters)
    orders = [Batches(inputs.rows("train"), first.batch_size, experiment.seed) for experiment in experiments]
    resident = _resident(inputs, device)
    progress = [VariantProgress() for _ in experiments]
    key, val = f"val/{inputs.index.metric}", inputs.rows("val")
    width: int = recognisers[0].baseline.joint_dim  # type: ignore[assignment]  # a member of every baseline
    for epoch in range(first.epochs):
        if all(one.ended for one in progress):
            break
        started = time.perf_counter()
        with tf32_where_asked(first, device):
            losses_VT = _train_epoch(stack, optimiser, first, resident, orders, epoch, width)
        scores = [_scores_VSK(stack, resident, rows) for rows in _in_chunks(val)]
        scores_VSK = np.concatenate(scores, 1) if scores else None
        spent = (time.perf_counter() - started) / sum(not one.ended for one in progress)
        for variant, one in enumerate(progress):
            if one.ended:
                continue
            one.seconds += spent
            losses_T = losses_VT[variant]
            finite_T = torch.isfinite(losses_T)
            metrics = {"train/loss": float(losses_T.mean()), key: math.nan}
            if scores_VSK is not None and bool(finite_T.all()):
                metrics |= metrics_of_split(inputs, "val", val, scores_VSK[variant])
            if not math.isfinite(metrics[key]):
                in_epoch = int((~finite_T).nonzero()[0]) if not bool(finite_T.all()) else len(losses_T) - 1
                one.diverged_at_step = epoch * len(losses_T) + in_epoch
                continue
            one.lines.append(JournalLine(epoch, time.time(), metrics))
            if one.best_value is None or metrics[key] > one.best_value:
                one.best_value, one.best_epoch, one.best = metrics[key], epoch, stack.tensors_of(variant)
            one.stopped = first.patience is not None and epoch - (one.best_epoch or 0) >= first.patience
    return progress


def _train_epoch(
    stack: HeadStack,
    optimiser: torch.optim.Optimizer,
    experiment: Experiment,
    resident: tuple[dict[str, Tensor], Tensor],
    orders: Sequence[Batches],
    epoch: int,
    width: int,
) -> Tensor:
    """One pass; losses (V, steps) on the CPU, NaN where the gradient was not finite."""
    views, targets_SK = resident
    steps = len(orders[0])
    rows_TVB = np.stack([np.stack(list(of.of_epoch(epoch))) for of in orders], 1)
    rows = torch.from_numpy(rows_TVB).to(targets_SK.device)
    masks = stack.dropout_masks(epoch, steps, rows.shape[2], width)
    loss_of = torch.vmap(make_loss(experiment.loss))
    losses = []
    for step in range(steps):
        factor = learning_rate_factor(experiment, epoch, epoch * steps + step, experiment.epochs * steps)
        for group in optimiser.param_groups:
            group["lr"] = experiment.learning_rate * factor
        batch = {name: of[rows[step]] for name, of in views.items()}
        loss_V = loss_of(stack.logits_VBK(batch, masks[step], shared_views=False), targets_SK[rows[step]])
        optimiser.zero_grad(set_to_none=True)
        loss_V.sum().backward()  # type: ignore[no-untyped-call]
        norm_V = clip_each([of.grad for of in stack.parameters if of.grad is not None], experiment.gradient_clip)
        optimiser.step()
        losses.append(torch.where(torch.isfinite(norm_V), loss_V.detach(), torch.nan))
    return torch.stack(losses, 1).cpu()


def clip_each(gradients: Sequence[Tensor], largest: float) -> Tensor:
    """Shorten, in place, every variant's gradient to norm ``largest``; the norms (V,) before.

    ``gradients`` are (V, ...) each. As torch.nn.utils.clip_grad_norm_ does for one model.
    """
    norms_PV = torch.stack([of.flatten(1).norm(dim=1) for of in gradients])
    norm_V: Tensor = norms_PV.norm(dim=0)
    factor_V = (largest / (norm_V + 1e-6)).clamp(max=1.0)
    for of in gradients:
        of.mul_(factor_V.view(-1, *(1 for _ in of.shape[1:])))
    return norm_V


@torch.no_grad()
def _scores_VSK(  # noqa: N802
    stack: HeadStack, resident: tuple[dict[str, Tensor], Tensor], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    chosen = torch.from_numpy(rows).to(resident[1].device)
    batch = {name: of[chosen] for name, of in resident[0].items()}
    scores: npt.NDArray[np.float32] = stack.logits_VBK(batch, None, shared_views=True).cpu().numpy()
    return scores


def _in_chunks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    return (rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH))


def _resident(inputs: TrialInputs, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    """Every view's features and the targets, on the device."""
    everyone = np.arange(len(inputs.index.subject_ids))
    views = {name: torch.from_numpy(view.take(everyone)).to(device) for name, view in inputs.views.items()}
    return views, torch.from_numpy(inputs.index.targets).to(device)
