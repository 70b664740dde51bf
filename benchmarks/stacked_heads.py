"""Heads trained as one stack against the same trials one after the other in one process.

    python benchmarks/stacked_heads.py [--device cuda] [--sizes 64 256 1024] [--seeds 8] [--repeats 5] [--json FILE]

The trials are those of preview_heads.py with these sizes and seeds, at the batches and epochs of preset quick, on
features that are made up: what they are changes no cost. Both sides read the same files, keep what they read, and
write the same files into new folders; both are the platform's own, run_trial and run_stack. Checked before the ratio
is printed: for every trial, the two sides' logits on the test splits differ by less than 5 % of the largest (AdamW
carries rounding further than the products do; the tests hold SGD to 0.01 %). One run of the first setting with all
its seeds is warm-up of each. On a CPU, where the head grid does not stack, it says why.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measurement import machine, write_figures
from safetensors.torch import load_file

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import architecture
from ccim_ray.prepared import ResidentInputs, TrialPaths, write_shard, write_subject_index
from ccim_ray.presets import default_experiment
from ccim_ray.stacked_trials import run_stack, stacks_of
from ccim_ray.training import Process
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import Trial
from search_spaces.heads import heads_space

AGREEMENT = 0.05
VIEWS = ("context", "body")


def made_up_trials(folder: Path, images: int, sizes: Sequence[int], seeds: int) -> list[Trial]:
    """The preview's trials, and the files that they read."""
    settings = WorldSettings(images=images, image_size=64)
    write_world(settings, folder / "world")
    dataset = load_dataset("confounded_scenes", folder / "world")
    write_subject_index(dataset, folder / "subjects.parquet")
    ids = [subject.subject_id for subject in dataset.subjects]
    base = default_experiment("confounded_scenes", "quick", settings)
    width = architecture(base.backbone.arch).feature_dim
    generator = np.random.default_rng(0)
    for view in VIEWS:
        rows = generator.random((len(ids), width), np.float32)
        write_shard(folder / view / "shard-00000.parquet", ids, rows, [None] * len(ids))
    for size in sizes:
        ConfounderDictionary.random(size, width).save(folder / f"{size}.safetensors")
    trials = []
    for place, experiment in enumerate(heads_space(sizes).settings(base).values()):
        dictionary = str(folder / f"{experiment.dictionary.size}.safetensors")
        paths = TrialPaths(
            folder="",
            subjects=str(folder / "subjects.parquet"),
            views={view: str(folder / view) for view in VIEWS},
            dictionary=dictionary if experiment.deconfounder == "ccim" else None,
        )
        trials += [Trial(experiment.with_changes(seed=seed), f"{place}-{seed}", paths) for seed in range(seeds)]
    return trials


def elsewhere(trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """The same trials, in new folders."""
    return [replace(t, paths=replace(t.paths, folder=str(folder / t.signature))) for t in trials]


def setting(trial: Trial) -> Experiment:
    """The experiment but for its seed: trials that share it are in one stack."""
    return trial.experiment.with_changes(seed=0)


def largest_difference(ours: Sequence[Trial], theirs: Sequence[Trial]) -> float:
    """Of all logits, relative to the largest of their trial and split."""
    worst = 0.0
    for one, other in zip(ours, theirs, strict=True):
        found, expected = (load_file(Path(t.paths.folder) / "scores.safetensors") for t in (one, other))
        for name, of in expected.items():
            worst = max(worst, float((found[name] - of).abs().max() / of.abs().max().clamp(min=1e-6)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 256, 1024))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave the flag out to measure on the CPU")
    threads_of_a_trial()
    process, resident = Process(device=torch.device(flags.device)), ResidentInputs()
    seconds: dict[str, list[float]] = {"stacked": [], "one_after_the_other": []}
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        trials = made_up_trials(root, flags.images, flags.sizes, flags.seeds)
        stacks = stacks_of(elsewhere(trials, root / "none"))
        say(f"{machine(flags.device)}; {len(trials)} trials in {len(stacks)} stacks")
        for repeat in range(flags.repeats + 1):
            chosen = trials if repeat else [one for one in trials if setting(one) == setting(trials[0])]
            ours, theirs = (elsewhere(chosen, root / f"{side}-{repeat}") for side in ("ours", "theirs"))
            started = time.perf_counter()
            for stack in stacks_of(ours):
                run_stack(stack, process, resident.read)
            between = time.perf_counter()
            for trial in theirs:
                run_trial(trial, process, read=resident.read, checkpoint_seconds=10.0)
            taken = between - started, time.perf_counter() - between
            worst = max(worst, largest_difference(ours, theirs))
            if worst > AGREEMENT:
                raise SystemExit(f"logits differ by {worst:.1%} of the largest: the two sides trained different models")
            say(f"  {repeat or 'warm-up'}: stacked {taken[0]:.1f} s, one after the other {taken[1]:.1f} s")
            for of, value in zip(seconds.values(), taken, strict=True):
                of += [value] if repeat else []
    medians = {side: statistics.median(of) for side, of in seconds.items()}
    row = {
        "trials": len(trials),
        "stacks": len(stacks),
        **{f"{side}_s": round(value, 2) for side, value in medians.items()},
        "ratio": round(medians["one_after_the_other"] / medians["stacked"], 2),
        "largest_difference_of_logits": round(worst, 6),
    }
    say(json.dumps(row, indent=1))
    write_figures(flags.json, "stacked_heads", flags.device, [row], flags.repeats)


if __name__ == "__main__":
    main()
