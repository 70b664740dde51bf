"""A step of our trial end to end: against the same step on a resident batch, and against plain PyTorch DDP.

    python benchmarks/training_input.py [--images 600] [--epochs 10] [--repeats 5] [--json FILE]

* resident: the trainer's loop with its input, and on one batch that stays in memory, in turns: input_share.py's
  measure, for EMOT-Net on the embedded world's tiny trunks. On a CPU nothing overlaps, so this is the worst case.
* plain DDP: the same model in two processes of one thread over gloo, started by torch.multiprocessing, its loop
  written here: a DataLoader over the same prepared crops, the same batches, augmentation and dropout, validation and
  a checkpoint after every epoch, as a trial has them. Ours is a trial in a group of Ray Train. Losses of every epoch
  are checked equal within 0.1 % before the ratio is printed.

Epochs are timed on the first process, the first left out as warm-up; so starting Ray Train, about ten seconds a
trial, is not in the ratio and given beside it. Ours runs between two runs of the plain side, for a machine that others
share changes its speed by a tenth within a minute: the ratio is that of the medians, that of the two plain runs is
given beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from input_share import experiment_of, measure
from measurement import machine, write_figures
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ccim_ray.augmentation import augment
from ccim_ray.batches import Batches
from ccim_ray.console import say
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.pipeline.trials import run_trials
from ccim_ray.plan import make_plan
from ccim_ray.prepared import TrialInputs
from ccim_ray.resources import TrialResources
from ccim_ray.storage import Storage
from ccim_ray.training import learning_rate_factor, make_optimiser, seed_of
from ccim_ray.trial import build_recogniser, threads_of_a_trial
from ccim_ray.trial_folder import Trial

WORKERS = 2
AGREEMENT = 1e-3


class PreparedBatches(Dataset):
    """Batches of prepared crops; an item is a whole batch, since the crops lie in shards that are cut as one."""

    def __init__(self, inputs: TrialInputs, rows_of_batches: list[np.ndarray]) -> None:
        self.inputs, self.rows_of_batches = inputs, rows_of_batches

    def __len__(self) -> int:
        return len(self.rows_of_batches)

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        rows = self.rows_of_batches[number]
        views = {name: torch.from_numpy(view.take(rows)) for name, view in self.inputs.views.items()}
        return views, torch.from_numpy(self.inputs.index.targets[rows])


def loader_of(inputs: TrialInputs, rows_of_batches: list[np.ndarray]) -> DataLoader:
    # A generator of its own: the loader's seed would be drawn from the stream that dropout draws from.
    return DataLoader(PreparedBatches(inputs, rows_of_batches), batch_size=None, generator=torch.Generator())


def plain_process(rank: int, port: int, trial: Trial, out: str) -> None:
    """One process of the plain side; the first writes the losses and the end of every epoch."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
    experiment, inputs = trial.experiment, trial.paths.read()
    torch.manual_seed(seed_of(experiment.seed, -1, 0))
    recogniser = build_recogniser(experiment, len(inputs.index.categories), inputs.dictionary)
    optimiser = make_optimiser(experiment, recogniser)
    model = nn.parallel.DistributedDataParallel(recogniser)
    batches = Batches(inputs.rows("train"), experiment.batch_size, experiment.seed, rank, WORKERS)
    losses, ends = [], []
    for epoch in range(experiment.epochs):
        torch.manual_seed(seed_of(experiment.seed, epoch, rank))
        of_epoch = plain_epoch(model, optimiser, experiment, inputs, batches, epoch)
        dist.all_reduce(of_epoch)
        if rank == 0:
            validate(recogniser, inputs)
            torch.save({"model": recogniser.state_dict(), "optimiser": optimiser.state_dict()}, f"{out}.pt")
            losses.append(float(of_epoch.mean()) / WORKERS)
            ends.append(time.time())
    if rank == 0:
        Path(out).write_text(json.dumps({"losses": losses, "ends": ends}))
    dist.barrier()
    dist.destroy_process_group()


def plain_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    experiment: Experiment,
    inputs: TrialInputs,
    batches: Batches,
    epoch: int,
) -> Tensor:
    model.train()
    losses = []
    loaded = loader_of(inputs, list(batches.of_epoch(epoch)))
    for step, (views, targets_BK) in enumerate(loaded, start=epoch * len(batches)):
        factor = learning_rate_factor(experiment, epoch, step, experiment.epochs * len(batches))
        for group in optimiser.param_groups:
            group["lr"] = experiment.learning_rate * factor
        loss = F.cross_entropy(model(augment(views, experiment.augmentation)).logits_BK, targets_BK)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), experiment.gradient_clip)
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.no_grad()
def validate(recogniser: nn.Module, inputs: TrialInputs) -> float:
    recogniser.eval()
    rows = inputs.rows("val")
    right = 0
    for views, targets_BK in loader_of(inputs, [rows[start : start + 512] for start in range(0, len(rows), 512)]):
        right += int((recogniser(views).logits_BK.argmax(1) == targets_BK.argmax(1)).sum())
    return right / len(rows)


def epochs_of(ends: list[float]) -> list[float]:
    """Seconds between the ends of two epochs."""
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def by_plain_ddp(trial: Trial, folder: Path) -> tuple[list[float], list[float], float]:
    """Losses and ends of every epoch, and seconds in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    torch.multiprocessing.spawn(plain_process, (port, trial, str(folder / "plain.json")), nprocs=WORKERS)
    found = json.loads((folder / "plain.json").read_text())
    return found["losses"], found["ends"], time.perf_counter() - started


def by_us(trial: Trial, storage: Storage) -> tuple[list[float], list[float], float]:
    """The same of a trial in a group of Ray Train."""
    failures = []
    started = time.perf_counter()
    run_trials([trial], storage, join_cluster(), TrialResources(1), lambda _, reason: failures.append(reason))
    seconds = time.perf_counter() - started
    if any(failures):
        raise SystemExit(f"our trial failed: {failures[0]}")
    lines = read_journal(Path(trial.paths.folder) / "journal.jsonl")
    return [line.metrics["train/loss"] for line in lines], [line.time for line in lines], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="pictures of the embedded world")
    parser.add_argument("--epochs", type=int, default=10, help="of the comparison with DDP, the first is warm-up")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the comparison with a resident batch")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    if flags.epochs < 2:
        parser.error("--epochs: at least 2, for the first is warm-up")
    threads_of_a_trial()
    with tempfile.TemporaryDirectory() as temporary:
        storage = Storage.open(temporary)
        alone = experiment_of("emot_net", flags.images, on_gpu=False)
        both = alone.with_changes(workers=WORKERS, epochs=flags.epochs)
        plan = make_plan([("one process", alone), ("two processes", both)], (0,), storage, None)
        prepare(plan, storage, join_cluster(), None)
        single, group = (planned.trial for planned in plan.trials)
        resident = measure(single, flags.repeats, torch.device("cpu"))
        plain = by_plain_ddp(group, Path(temporary))
        ours = by_us(group, storage)
        again = by_plain_ddp(group, Path(temporary))
    difference = max(abs(a / b - 1) for a, b in zip(ours[0] * 2, plain[0] + again[0], strict=True))
    if difference > AGREEMENT:
        raise SystemExit(f"losses differ by {difference:.2%}: the two sides did not train the same model")
    before, after = epochs_of(plain[1]), epochs_of(again[1])
    ours_epoch_s, plain_epoch_s = statistics.median(epochs_of(ours[1])), statistics.median(before + after)
    row = {
        "over_resident": round(resident["resident_ms"] / resident["whole_ms"], 3),
        **{key: resident[key] for key in ("whole_ms", "resident_ms", "input_alone_ms")},
        "over_plain_ddp": round(plain_epoch_s / ours_epoch_s, 3),
        "ours_epoch_s": round(ours_epoch_s, 3),
        "plain_epoch_s": round(plain_epoch_s, 3),
        "plain_before_over_after": round(statistics.median(before) / statistics.median(after), 3),
        "ours_with_start_s": round(ours[2], 1),
        "plain_with_start_s": round(plain[2], 1),
        "largest_difference_of_losses": round(difference, 8),
    }
    say(f"{machine()}\n{json.dumps(row, indent=1)}")
    repeats = {"with a resident batch": flags.repeats, "plain DDP": 2, "our group": 1}
    write_figures(flags.json, "training_input", "cpu", [row], repeats)


if __name__ == "__main__":
    main()
