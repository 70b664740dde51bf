"""What share of a training step goes to input: each baseline end to end, against the same steps on a resident batch.

    python benchmarks/input_share.py [--baselines NAME ...] [--images 1200] [--repeats 5] [--device cpu] [--json FILE]

Input is reading the views from the memory-mapped shards, moving them to the device, and augmentation. Both sides run
the trainer's own loop over as many steps, in turns; the share is one minus resident over whole, the median. Input
alone, nothing else running, is given beside it: what it would cost if nothing overlapped. One turn of each is discarded
as warm-up. On a GPU the trunks are those of the literature at their own picture sizes, untrained; on a CPU it is the
same measure with the embedded world's tiny trunks, whose steps are short, so that input weighs more. Pictures are the
embedded world's, from shards that were just written, hence cached by the system.

A share that is small with tiny trunks is smaller yet with large ones on the same processor. Of a GPU it says nothing.
The share of every turn is taken by itself; where its range is wide or reaches below zero, the machine was busy with
other things, and "alone", input alone over input and resident step, is the steadier figure.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

import torch
from measurement import LOAD_BEFORE
from rich.table import Table

from ccim_ray.augmentation import augment
from ccim_ray.batches import Batch, Batches, on_device
from ccim_ray.console import console, say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.environment import environment_tags
from ccim_ray.experiment import Experiment
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage, write_json
from ccim_ray.training import make_optimiser, train_epoch
from ccim_ray.trial import build_recogniser, threads_of_a_trial
from ccim_ray.trial_folder import Trial

BASELINES = ("emot_net", "gcn_cnn", "caer_net", "emoticon")
LIMIT = 0.05


def experiment_of(baseline: str, images: int, on_gpu: bool) -> Experiment:
    """The baseline end to end on the embedded world; on a GPU with the literature's trunks and batch size."""
    ours = default_experiment("confounded_scenes", "quick", WorldSettings(images=images), baseline, "all")
    if not on_gpu:
        return ours.with_changes(batch_size=64, dictionary__size=64)
    options = ours.baseline_options
    paper = default_experiment("caer_s", "paper", None, baseline, "all", options)
    trunks = {view: {"arch": trunk.arch, "weights": "random"} for view, trunk in paper.trunks.items()}
    return ours.with_changes(
        trunks=trunks, batch_size=paper.batch_size, augmentation=paper.augmentation, dictionary__size=64
    )


def measure(trial: Trial, repeats: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of a step: whole, on a resident batch, and of input alone; the medians of several turns."""
    experiment, inputs = trial.experiment, trial.paths.read()
    torch.manual_seed(0)
    model = build_recogniser(experiment, len(inputs.index.categories), inputs.dictionary).to(device)
    optimiser = make_optimiser(experiment, model)
    batches = Batches(inputs.rows("train"), experiment.batch_size)
    steps = len(batches)

    def loaded(epoch: int) -> Iterable[Batch]:
        return on_device(inputs, batches.of_epoch(epoch), device)

    def train(of: Experiment, some: Iterable[Batch]) -> None:
        train_epoch(model, None, optimiser, of, some, 0, steps, multi_label=False)

    def input_alone(epoch: int) -> None:
        for views, _ in loaded(epoch):
            augment(views, experiment.augmentation)

    unchanged = experiment.with_changes(augmentation="none")
    kept = next(iter(loaded(0)))
    whole, resident, alone = [], [], []
    for turn in range(repeats + 1):
        whole.append(milliseconds(lambda: train(experiment, loaded(turn)), steps, device))  # noqa: B023 run at once
        resident.append(milliseconds(lambda: train(unchanged, repeat(kept, steps)), steps, device))
        alone.append(milliseconds(lambda: input_alone(turn), steps, device))  # noqa: B023 run at once
    medians = [statistics.median(of_turns[1:]) for of_turns in (whole, resident, alone)]  # the first is warm-up
    shares = [1 - without / with_input for with_input, without in zip(whole[1:], resident[1:], strict=True)]
    return {
        "batch_size": experiment.batch_size,
        "whole_ms": round(medians[0], 2),
        "resident_ms": round(medians[1], 2),
        "input_alone_ms": round(medians[2], 2),
        "input_share": round(statistics.median(shares), 4),
        "input_share_least": round(min(shares), 4),
        "input_share_most": round(max(shares), 4),
        "input_share_without_overlap": round(medians[2] / (medians[1] + medians[2]), 4),
    }


def milliseconds(work: Callable[[], None], steps: int, device: torch.device) -> float:
    """Wall time of the work for one step."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    work()
    wait()
    return (time.perf_counter() - started) * 1e3 / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baselines", nargs="+", default=BASELINES, choices=BASELINES, metavar="NAME")
    parser.add_argument("--images", type=int, default=1200, help="pictures of the embedded world")
    parser.add_argument("--repeats", type=int, default=5, help="turns that are measured, each an epoch")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="by default a GPU where there is one")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    flags = parser.parse_args()
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave the flag out to measure on the CPU")
    device = torch.device(flags.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    threads_of_a_trial()
    with tempfile.TemporaryDirectory() as temporary:
        storage = Storage.open(temporary)
        settings = [(name, experiment_of(name, flags.images, device.type == "cuda")) for name in flags.baselines]
        plan = make_plan(settings, (0,), storage, None)
        prepare(plan, storage, join_cluster(), None)
        by_baseline = {}
        for planned in plan.trials:
            say(f"  Measuring {planned.baseline}: {flags.repeats + 1} turns")
            by_baseline[planned.baseline] = measure(planned.trial, flags.repeats, device)
    machine = environment_tags([torch.cuda.get_device_name()] if device.type == "cuda" else [])
    console.print(table_of(by_baseline, machine, device))
    figures = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": [round(value, 2) for value in LOAD_BEFORE],
        "device": device.type,
        "machine": {name.removeprefix("ccim."): value for name, value in machine.items()},
        "images": flags.images,
        "repeats": flags.repeats,
        "limit": LIMIT,
        "baselines": by_baseline,
    }
    if flags.json:
        write_json(flags.json, figures)


def table_of(by_baseline: dict[str, dict[str, float]], machine: dict[str, str], device: torch.device) -> Table:
    """Times of a step and the share of input, one row a baseline."""
    table = Table(title=f"Input's share of a training step, times in ms (less than {LIMIT:.0%} wanted)")
    for heading in ("baseline", "batch", "step", "resident", "input", "share", "of turns", "alone"):
        table.add_column(heading, justify="left" if heading == "baseline" else "right", no_wrap=True)
    for name, found in by_baseline.items():
        times = (f"{found[key]:.1f}" for key in ("whole_ms", "resident_ms", "input_alone_ms"))
        turns = f"{found['input_share_least']:.1%} to {found['input_share_most']:.1%}"
        shares = (f"{found['input_share']:.1%}", turns, f"{found['input_share_without_overlap']:.1%}")
        table.add_row(name, str(found["batch_size"]), *times, *shares)
    processor = f"one core of {machine['ccim.cpu_count']} x {machine['ccim.cpu_model']}, tiny trunks"
    table.caption = machine.get("ccim.gpus", processor) + f"; torch {machine['ccim.version.torch']}"
    return table


if __name__ == "__main__":
    main()
