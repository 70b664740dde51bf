"""One trial, top to bottom: a plain function that knows no Ray. Under DDP every rank calls it.

Shape suffixes: B batch, S subjects, K categories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ccim_ray.baselines.losses import make_loss
from ccim_ray.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_tensors,
    save_weights,
)
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.journal import Journal
from ccim_ray.metrics import evaluate
from ccim_ray.prepared import TrialInputs
from ccim_ray.recogniser import Recogniser
from ccim_ray.trial_folder import Metrics, TrialResult

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Process:
    """Which of the trial's processes this is."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


ALONE = Process()


def train(
    experiment: Experiment,
    inputs: TrialInputs,
    build: Callable[[], Recogniser],
    folder: Path,
    process: Process = ALONE,
    on_epoch: Callable[[int, Metrics], None] = lambda epoch, metrics: None,
) -> TrialResult:
    """Train, select on validation, test once; resume from ``folder`` where a checkpoint lies.

    Randomness (initial weights, order, dropout, flips) is a function of (seed, epoch, rank), so an interrupted
    run that starts again repeats the unfinished epoch exactly, and ends bitwise equal on CPU.

    Args:
        build: makes the untrained model; called after seeding.
        folder: holds the checkpoint, the best weights and the journal; written by rank 0 alone.
        on_epoch: told of every finished epoch, on rank 0.
    """
    torch.manual_seed(_seed_of(experiment.seed, -1, 0))
    recogniser = build().to(process.device)
    parameters = [p for p in recogniser.parameters() if p.requires_grad]
    optimiser = _make_optimiser(experiment, parameters)
    loss_of = make_loss(experiment.loss)
    state = load_checkpoint(folder / "checkpoint.pt", recogniser, optimiser) or Checkpoint()
    if process.rank == 0:
        with Journal(folder / "journal.jsonl") as journal:
            journal.rewind(state.epoch - 1)
    model = _distribute(recogniser, process)

    train_rows = inputs.rows("train")
    if len(train_rows) < 2 * process.world_size:
        raise RequestError(
            f"the train split has {len(train_rows)} usable subjects, and batch norm needs two for each of "
            f"{process.world_size} workers; add images"
        )
    batch = min(experiment.batch_size, len(train_rows) // process.world_size * process.world_size)
    steps_per_epoch = len(train_rows) // batch
    total_steps = steps_per_epoch * experiment.epochs
    key = f"val/{inputs.index.metric}"

    while state.epoch < experiment.epochs and not state.stopped:
        started = time.perf_counter()
        torch.manual_seed(_seed_of(experiment.seed, state.epoch, process.rank))
        model.train()
        losses: list[Tensor] = []
        for step, rows in enumerate(_batches(train_rows, batch, experiment.seed, state.epoch, process)):
            inputs_of_batch, targets_BK = _to_device(inputs, rows, process.device)
            if experiment.trainable == "all":
                inputs_of_batch = _flip_half(inputs_of_batch)
            rate = experiment.learning_rate * learning_rate_factor(
                experiment.schedule, state.epoch, state.epoch * steps_per_epoch + step, total_steps
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(process.device.type, torch.bfloat16, experiment.amp and process.device.type == "cuda"):
                logits_BK = model(inputs_of_batch)
            loss = loss_of(logits_BK.float(), targets_BK)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, experiment.gradient_clip)
            optimiser.step()
            losses.append(torch.where(torch.isfinite(norm), loss.detach(), torch.nan))

        losses_of_epoch = _mean_over_ranks(torch.stack(losses), process)
        finite = torch.isfinite(losses_of_epoch)
        metrics: Metrics = {"train/loss": float(losses_of_epoch.mean()), key: math.nan}
        if process.rank == 0 and bool(finite.all()):
            metrics |= _score_split(recogniser, inputs, "val", process.device)[1]
        metrics = _from_rank_0(metrics, process)
        if not math.isfinite(metrics[key]):
            first_step = int((~finite).nonzero()[0]) if not bool(finite.all()) else steps_per_epoch - 1
            seconds = state.seconds + time.perf_counter() - started
            diverged_at = state.epoch * steps_per_epoch + first_step
            return TrialResult("diverged", epochs=state.epoch, diverged_at_step=diverged_at, seconds=seconds)

        if state.best_value is None or metrics[key] > state.best_value:
            state.best_value, state.best_epoch = metrics[key], state.epoch
            if process.rank == 0:
                save_weights(folder / "best.safetensors", recogniser)
        state.stopped = experiment.patience is not None and state.epoch - (state.best_epoch or 0) >= experiment.patience
        state.epoch += 1
        state.seconds += time.perf_counter() - started
        if process.rank == 0:
            with Journal(folder / "journal.jsonl") as journal:
                journal.append(state.epoch - 1, metrics)
            save_checkpoint(folder / "checkpoint.pt", state, recogniser, optimiser)
            on_epoch(state.epoch - 1, metrics)

    if process.rank != 0:
        return TrialResult("done")
    load_weights(folder / "best.safetensors", recogniser)
    final: Metrics = {}
    scores: dict[str, Tensor] = {}
    for split in ("val", *inputs.index.test_splits):
        scores[split], values = _score_split(recogniser, inputs, split, process.device)
        scores[f"{split}/targets"] = torch.from_numpy(inputs.index.targets[inputs.rows(split)])
        final |= values
    save_tensors(folder / "scores.safetensors", scores)
    return TrialResult("done", final, state.best_epoch, state.epoch, None, state.seconds)


def learning_rate_factor(schedule: str, epoch: int, step: int, total_steps: int) -> float:
    """Share of the base rate at a step: a function of position alone, so a resumed run needs no state for it.

    ``one_cycle``: linear warm-up over the first 15 % of the steps, then a cosine to zero. ``step``: a tenth after
    every seven epochs, as EMOT-Net was trained. ``constant``: one.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return float(0.1 ** (epoch // 7))
    warm_up = max(1, round(0.15 * total_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total_steps - warm_up)))


@torch.no_grad()
def score_rows(
    recogniser: Recogniser, inputs: TrialInputs, rows: npt.NDArray[np.int64], device: torch.device
) -> npt.NDArray[np.float32]:
    """Logits (S, K) float32 of the given rows, in evaluation mode."""
    recogniser.eval()
    scores = []
    for start in range(0, len(rows), EVALUATION_BATCH):
        batch, _ = _to_device(inputs, rows[start : start + EVALUATION_BATCH], device)
        scores.append(recogniser(batch).float().cpu().numpy())
    return np.concatenate(scores) if scores else np.zeros((0, len(inputs.index.categories)), np.float32)


def _score_split(
    recogniser: Recogniser, inputs: TrialInputs, split: str, device: torch.device
) -> tuple[Tensor, Metrics]:
    """Logits (S, K) of the split's usable subjects, and its metrics, named ``split/metric``.

    There are no metrics where the split has no usable subject, or the model gives a value that is not finite.
    """
    rows = inputs.rows(split)
    scores_SK = score_rows(recogniser, inputs, rows, device)
    if len(rows) == 0 or not np.isfinite(scores_SK).all():
        return torch.from_numpy(scores_SK), {}
    values = evaluate(scores_SK, inputs.index.targets[rows], inputs.index.categories, inputs.index.multi_label)
    return torch.from_numpy(scores_SK), {f"{split}/{name}": value for name, value in values.items()}


def _seed_of(seed: int, epoch: int, rank: int) -> int:
    """Independent streams for every (seed, epoch, rank), whatever the seeds are."""
    return int(np.random.SeedSequence([seed, epoch + 1, rank]).generate_state(1, np.uint64)[0] >> 1)


def _batches(
    rows: npt.NDArray[np.int64], batch: int, seed: int, epoch: int, process: Process
) -> Iterator[npt.NDArray[np.int64]]:
    """This rank's share of every whole batch; the remainder of an epoch is left out, as batch norm asks for."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    for start in range(0, len(order) - batch + 1, batch):
        yield order[start : start + batch][process.rank :: process.world_size]


def _to_device(
    inputs: TrialInputs, rows: npt.NDArray[np.int64], device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    views = {name: torch.from_numpy(view.take(rows)).to(device) for name, view in inputs.views.items()}
    return views, torch.from_numpy(inputs.index.targets[rows]).to(device)


def _flip_half(views: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mirror a random half of the batch, every view of a subject alike; pictures are (B, H, W, C)."""
    first = next(iter(views.values()))
    mirrored_B = torch.rand(len(first)).lt(0.5).to(first.device)[:, None, None, None]
    return {name: torch.where(mirrored_B, view.flip(2), view) for name, view in views.items()}


def _make_optimiser(experiment: Experiment, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if experiment.optimiser == "sgd":
        return torch.optim.SGD(parameters, experiment.learning_rate, momentum=0.9, weight_decay=experiment.weight_decay)
    return torch.optim.AdamW(parameters, experiment.learning_rate, weight_decay=experiment.weight_decay)


def _distribute(recogniser: Recogniser, process: Process) -> nn.Module:
    if process.world_size == 1:
        return recogniser
    devices = [process.device] if process.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(recogniser, device_ids=devices)


def _mean_over_ranks(values: Tensor, process: Process) -> Tensor:
    if process.world_size > 1:
        dist.all_reduce(values)
        values = values / process.world_size
    return values.cpu()


def _from_rank_0(metrics: Metrics, process: Process) -> Metrics:
    if process.world_size == 1:
        return metrics
    box = [metrics]
    dist.broadcast_object_list(box, src=0)
    return box[0]
