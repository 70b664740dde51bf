"""One trial, top to bottom: a plain function that knows no Ray. Under DDP every rank calls it.

Shape suffixes: B batch, S subjects, P subjects seen in two scenes, K categories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ccim_ray.augmentation import augment
from ccim_ray.baselines.losses import make_loss, multiplicative
from ccim_ray.batches import Batch, Batches, on_device
from ccim_ray.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_tensors,
    save_weights,
)
from ccim_ray.deconfounders.interface import Deconfounder
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.journal import Journal
from ccim_ray.metrics import evaluate, evaluate_agents, evaluate_groups, evaluate_scene_swap
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
    checkpoint_seconds: float = 0.0,
) -> TrialResult:
    """Train, select on validation, test once; resume from ``folder`` where a checkpoint lies.

    Randomness (initial weights, order, dropout, flips) is a function of (seed, epoch, rank), so an interrupted
    run that starts again repeats the unfinished epoch exactly, and ends bitwise equal on CPU.

    Args:
        build: makes the untrained model; called after seeding.
        folder: holds the checkpoint, the best weights and the journal; written by rank 0 alone.
        on_epoch: told of every finished epoch, on rank 0.
        checkpoint_seconds: shortest time between two checkpoints; 0 writes one after every epoch.
    """
    checkpoint_written = time.perf_counter()
    torch.manual_seed(seed_of(experiment.seed, -1, 0))
    recogniser = build().to(process.device)
    optimiser = make_optimiser(experiment, recogniser)
    state = load_checkpoint(folder / "checkpoint.pt", recogniser, optimiser) or Checkpoint()
    if process.rank == 0:
        with Journal(folder / "journal.jsonl") as journal:
            journal.rewind(state.epoch - 1)
    model = _distribute(recogniser, experiment, process)

    batches = Batches(inputs.rows("train"), experiment.batch_size, experiment.seed, process.rank, process.world_size)
    key = f"val/{inputs.index.metric}"

    while state.epoch < experiment.epochs and not state.stopped:
        started = time.perf_counter()
        torch.manual_seed(seed_of(experiment.seed, state.epoch, process.rank))
        loaded = on_device(inputs, batches.of_epoch(state.epoch), process.device)
        with tf32_where_asked(experiment, process.device):
            losses = train_epoch(
                model,
                recogniser.deconfounder,
                optimiser,
                experiment,
                loaded,
                state.epoch,
                len(batches),
                inputs.index.multi_label,
            )

        losses_of_epoch = _mean_over_ranks(losses, process)
        finite = torch.isfinite(losses_of_epoch)
        metrics: Metrics = {"train/loss": float(losses_of_epoch.mean()), key: math.nan}
        if process.rank == 0 and bool(finite.all()):
            metrics |= _score_split(recogniser, inputs, "val", process.device)[1]
        metrics = _from_rank_0(metrics, process)
        if not math.isfinite(metrics[key]):
            in_epoch = int((~finite).nonzero()[0]) if not bool(finite.all()) else len(batches) - 1
            seconds = state.seconds + time.perf_counter() - started
            diverged_at = state.epoch * len(batches) + in_epoch
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
            if time.perf_counter() - checkpoint_written >= checkpoint_seconds:
                save_checkpoint(folder / "checkpoint.pt", state, recogniser, optimiser)
                checkpoint_written = time.perf_counter()
            on_epoch(state.epoch - 1, metrics)

    if process.rank != 0:
        return TrialResult("done")
    load_weights(folder / "best.safetensors", recogniser)
    final = test_splits(recogniser, inputs, folder, process.device)
    return TrialResult("done", final, state.best_epoch, state.epoch, None, state.seconds)


def train_epoch(
    model: nn.Module,
    deconfounder: Deconfounder | None,
    optimiser: torch.optim.Optimizer,
    experiment: Experiment,
    batches: Iterable[Batch],
    epoch: int,
    steps: int,
    multi_label: bool,
) -> Tensor:
    """One pass over the batches; returns this rank's loss of every step, NaN where the gradient was not finite.

    Args:
        batches: on the model's device.
        steps: of an epoch, for the learning rate.
    """
    model.train()
    loss_of = make_loss(experiment.loss)
    losses = []
    for step, (views, targets_BK) in enumerate(batches, start=epoch * steps):
        if experiment.trainable == "all":
            views = augment(views, experiment.augmentation)
        factor = learning_rate_factor(experiment, epoch, step, experiment.epochs * steps)
        for group in optimiser.param_groups:
            group["lr"] = experiment.learning_rate * factor
        with torch.autocast(targets_BK.device.type, torch.bfloat16, in_bfloat16(experiment, targets_BK.device)):
            prediction = model(views)
        logits_BK = prediction.logits_BK.float()
        loss = deconfounder.loss(logits_BK, targets_BK, views) if deconfounder else loss_of(logits_BK, targets_BK)
        if prediction.modality_logits_BMK is not None:
            by_modality = prediction.modality_logits_BMK.float()
            modality_loss = multiplicative(by_modality, targets_BK, single_label=not multi_label)
            loss = loss + experiment.modality_weight * modality_loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), experiment.gradient_clip)
        optimiser.step()
        losses.append(torch.where(torch.isfinite(norm), loss.detach(), torch.nan))
    return torch.stack(losses)


def test_splits(recogniser: Recogniser, inputs: TrialInputs, folder: Path, device: torch.device) -> Metrics:
    """Metrics of val and of every test split; the scores behind them go to ``scores.safetensors``."""
    final: Metrics = {}
    scores: dict[str, Tensor] = {}
    for split in ("val", *inputs.index.test_splits):
        scores[split], values = _score_split(recogniser, inputs, split, device)
        scores[f"{split}/targets"] = torch.from_numpy(inputs.index.targets[inputs.rows(split)])
        final |= values
        swapped, values = _score_counterfactuals(recogniser, inputs, split, scores[split], device)
        scores |= swapped
        final |= values
    save_tensors(folder / "scores.safetensors", scores)
    return final


def in_bfloat16(experiment: Experiment, device: torch.device) -> bool:
    """Whether the model is run in bfloat16 there; CCIM stays in float32."""
    return experiment.precision == "bfloat16" or (experiment.precision == "auto" and device.type == "cuda")


@contextmanager
def tf32_where_asked(experiment: Experiment, device: torch.device) -> Iterator[None]:
    """Inside the block a GPU may round the factors of float32 products and convolutions to TF32, for precision tf32.

    Of other precisions, and on a CPU, nothing changes: torch's own default then holds, TF32 in convolutions alone.
    How much time it saves and how far results move has not been measured.
    """
    if experiment.precision != "tf32" or device.type != "cuda":
        yield
        return
    # torch.compile reads these older settings; setting them sets fp32_precision too, and not the other way about.
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = True
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def learning_rate_factor(experiment: Experiment, epoch: int, step: int, total_steps: int) -> float:
    """Share of the base rate at a step: a function of position alone, so a resumed run needs no state for it.

    ``one_cycle``: linear warm-up over the first 15 % of the steps, then a cosine to zero. ``step``: a tenth after
    every ``step_epochs``. ``constant``: one.
    """
    if experiment.schedule == "constant":
        return 1.0
    if experiment.schedule == "step":
        return float(0.1 ** (epoch // experiment.step_epochs))
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
    batches = (rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH))
    scores = [recogniser(views).logits_BK.float().cpu().numpy() for views, _ in on_device(inputs, batches, device)]
    return np.concatenate(scores) if scores else np.zeros((0, len(inputs.index.categories)), np.float32)


def _score_split(
    recogniser: Recogniser, inputs: TrialInputs, split: str, device: torch.device
) -> tuple[Tensor, Metrics]:
    """Logits (S, K) of the split's usable subjects, and its metrics, named ``split/metric``.

    There are no metrics where the split has no usable subject, nor for val where the model gives a value that is not
    finite: training has diverged. Raises RequestError for such a value in a test split.
    """
    rows = inputs.rows(split)
    scores_SK = score_rows(recogniser, inputs, rows, device)
    bad = int((~np.isfinite(scores_SK)).any(axis=1).sum())
    if bad and split != "val":
        raise RequestError(f"{split}: {bad} of {len(rows)} subjects get scores that are NaN or infinite")
    return torch.from_numpy(scores_SK), metrics_of_split(inputs, split, rows, scores_SK)


def metrics_of_split(
    inputs: TrialInputs, split: str, rows: npt.NDArray[np.int64], scores_SK: npt.NDArray[np.float32]
) -> Metrics:
    """Metrics of these logits, named ``split/metric``; none where there are no rows or a value is not finite."""
    if len(rows) == 0 or not np.isfinite(scores_SK).all():
        return {}
    index = inputs.index
    values = evaluate(scores_SK, index.targets[rows], index.categories, index.multi_label)
    groups = inputs.context_groups(rows) if split != "val" else None
    if groups is not None:
        values |= evaluate_groups(scores_SK, index.targets[rows], groups, index.categories, index.multi_label)
    if index.multi_label and index.agents is not None:
        probabilities_SK = _probabilities(torch.from_numpy(scores_SK), multi_label=True)
        values |= evaluate_agents(probabilities_SK, index.targets[rows], index.agents[rows], index.categories)
    return {f"{split}/{name}": value for name, value in values.items()}


def _score_counterfactuals(
    recogniser: Recogniser, inputs: TrialInputs, split: str, logits_SK: Tensor, device: torch.device
) -> tuple[dict[str, Tensor], Metrics]:
    """Of the split's subjects who are seen in another scene too: what that changes, as metrics.

    Before them the scores that are added: ``split/counterfactual`` (P, K), logits in the other scene, and
    ``split/counterfactual_of`` (P,), the places of the same subjects in ``logits_SK``. Both are empty where nobody is
    seen twice. Raises RequestError for a value that is not finite.
    """
    found = inputs.counterfactuals(inputs.rows(split)) if split != "val" else None
    if found is None:
        return {}, {}
    places_P, rows_P = found
    swapped_PK = torch.from_numpy(score_rows(recogniser, inputs, rows_P, device))
    scores = {f"{split}/counterfactual": swapped_PK, f"{split}/counterfactual_of": torch.from_numpy(places_P)}
    factual_PK = logits_SK[places_P]
    if not bool(torch.isfinite(swapped_PK).all()):
        raise RequestError(f"{split}: subjects in another scene get scores that are NaN or infinite")
    multi_label = inputs.index.multi_label
    values = evaluate_scene_swap(
        _probabilities(factual_PK, multi_label), _probabilities(swapped_PK, multi_label), multi_label
    )
    return scores, {f"{split}/{name}": value for name, value in values.items()}


def _probabilities(logits_SK: Tensor, multi_label: bool) -> npt.NDArray[np.float64]:
    logits_SK = logits_SK.double()  # in single precision, confident answers become equal ones
    probabilities_SK: npt.NDArray[np.float64] = (logits_SK.sigmoid() if multi_label else logits_SK.softmax(1)).numpy()
    return probabilities_SK


def seed_of(seed: int, epoch: int, rank: int) -> int:
    """Independent streams for every (seed, epoch, rank), whatever the seeds are."""
    return int(np.random.SeedSequence([seed, epoch + 1, rank]).generate_state(1, np.uint64)[0] >> 1)


def make_optimiser(experiment: Experiment, model: nn.Module) -> torch.optim.Optimizer:
    """The experiment's optimiser of all the model's parameters."""
    rate, decay = experiment.learning_rate, experiment.weight_decay
    if experiment.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay)
    if experiment.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), rate, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)


def _distribute(recogniser: Recogniser, experiment: Experiment, process: Process) -> nn.Module:
    """The recogniser as it is trained: it and this share their parameters, and checkpoints hold the recogniser's."""
    model: nn.Module = recogniser
    if process.world_size > 1:
        devices = [process.device] if process.device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(recogniser, device_ids=devices)
    return torch.compile(model) if experiment.compile else model  # type: ignore[return-value]


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
