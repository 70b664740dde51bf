"""The head grid against the same trials one by one, and against the pure compute of the heads.

    python benchmarks/head_grid.py [--variants 24] [--repeats 3] [--jobs 2] [--json FILE]

Extracts features of the embedded world and fits the dictionaries once. Then, each repeat, one after the other:

    grid      the trials as preview_heads.py trains them, from nothing to the last result
    separate  the same trials by a sweep's runner, each a trial of Ray Tune; as many at a time
    compute   the optimiser's steps alone, forward, backward and update on batches that lie in memory, in as many
              processes at a time, warmed up, with one thread each; no evaluation, no files
    jobs      --jobs of the same trials, each a `python jobs/train.py`, one after the other; seconds of one

Checked before a ratio is printed: grid and separate end in the same weights, byte for byte, and the same metrics.
Recording in MLflow is timed by itself; in the job it runs beside the training. One run of each is warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from measurement import machine, write_figures

from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.head_grid import run_head_grid
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.pipeline.trials import run_trials
from ccim_ray.plan import PlannedTrial, make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.recording import Recorder
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.storage import Storage
from ccim_ray.tracking import Tracker
from ccim_ray.trial_folder import Trial, read_result
from search_spaces.heads import heads_space

ROOT = Path(__file__).parents[1]

_COMPUTE = """
import pickle, sys, time, torch
from ccim_ray.batches import Batches, on_device
from ccim_ray.prepared import ResidentInputs
from ccim_ray.training import make_optimiser, train_epoch
from ccim_ray.trial import build_recogniser, threads_of_a_trial
threads_of_a_trial()
resident, seconds = ResidentInputs(), 0.0
trials = pickle.load(sys.stdin.buffer)
for place, trial in enumerate([trials[0], *trials]):  # the first is warm-up
    experiment, inputs = trial.experiment, resident.read(trial.paths)
    model = build_recogniser(experiment, len(inputs.index.categories), inputs.dictionary)
    optimiser = make_optimiser(experiment, model)
    batches = Batches(inputs.rows("train"), experiment.batch_size, experiment.seed)
    lying = list(on_device(inputs, batches.of_epoch(0), torch.device("cpu")))
    started = time.perf_counter()
    for epoch in range(experiment.epochs):
        train_epoch(model, None, optimiser, experiment, lying, epoch, len(batches), inputs.index.multi_label)
    seconds += (time.perf_counter() - started) * (place > 0)
print(seconds)
"""


def elsewhere(trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """The same trials, to be trained anew in other folders."""
    return [replace(t, paths=replace(t.paths, folder=str(folder / t.signature))) for t in trials]


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_of_compute(trials: Sequence[Trial], at_a_time: int) -> float:
    """Of the slowest of ``at_a_time`` processes that share the trials; starting and reading are not in it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _COMPUTE]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) for _ in range(at_a_time)]
    for share, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(trials[share::at_a_time]))
        process.stdin.close()
    found = []
    for process in processes:
        assert process.stdout is not None
        found.append(float(process.stdout.read()))
        if process.wait():
            raise SystemExit("a process of the pure compute failed")
    return max(found)


def seconds_of_recording(planned: Sequence[PlannedTrial], trials: Sequence[Trial], folder: Path) -> float:
    """All that MLflow gets of ended trials, in a new database."""
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "benchmark/heads", folder / "artifacts")
    parent = tracker.open_parent("benchmark", "benchmark", {}, {})
    ended = [replace(each, trial=trial, state="done") for each, trial in zip(planned, trials, strict=True)]
    recorder = Recorder(tracker, lambda: parent, ended, {}, numbers_only=True)

    def record() -> None:
        recorder.start()
        recorder.close("FINISHED")

    return seconds_of(record)


def seconds_of_a_job(storage: Storage, images: int, count: int) -> float | None:
    """Median of ``count`` commands that train one head each."""
    flags = ["--images", str(images), "--deconfounder", "none", "--storage", str(storage.root)]
    found = []
    for seed in range(1000, 1000 + count):
        command = [sys.executable, str(ROOT / "jobs" / "train.py"), *flags, "--seeds", str(seed)]
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
        found.append(time.perf_counter() - started)
    return statistics.median(found) if found else None


def check_equal(ours: Sequence[Trial], theirs: Sequence[Trial]) -> None:
    """The two sides trained the same models."""
    for one, other in zip(ours, theirs, strict=True):
        folders = Path(one.paths.folder), Path(other.paths.folder)
        results = [read_result(folder) for folder in folders]
        weights = [(folder / "best.safetensors").read_bytes() for folder in folders]
        if not results[0] or not results[1] or results[0].metrics != results[1].metrics or weights[0] != weights[1]:
            raise SystemExit(f"{one.signature}: grid and separate trial ended differently")


def prepared(
    storage: Storage, images: int, sizes: Sequence[int], variants: int, cluster: ClusterResources
) -> list[PlannedTrial]:
    """The first ``variants`` of the preview's trials, spread over its settings, with all that they read."""
    base = default_experiment("confounded_scenes", "quick", WorldSettings(images=images))
    plan = make_plan(list(heads_space(sizes).settings(base).items()), (0, 1, 2, 3), storage, None)
    prepare(plan, storage, cluster, None)
    step = max(1, len(plan.trials) // variants)
    return list(plan.trials[::step][:variants])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--images", type=int, default=8000, help="pictures of the embedded world")
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 128, 256, 512, 1024), help="N of the dictionaries")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trials that are run as jobs of their own")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    at_a_time = min(cluster.cpus, flags.variants)
    resources = TrialResources(max_concurrent=at_a_time, gpus_per_worker=0)
    runs: dict[str, list[float]] = {"grid": [], "separate": [], "compute": [], "recording": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        storage = Storage.open(str(root / "storage"))
        planned = prepared(storage, flags.images, flags.sizes, flags.variants, cluster)
        trials = [each.trial for each in planned]
        say(f"{machine()}; {len(trials)} trials of {trials[0].experiment.epochs} epochs, {at_a_time} at a time")
        for repeat in range(flags.repeats + 1):
            chosen = slice(None) if repeat else slice(0, at_a_time)
            grid, separate = (elsewhere(trials[chosen], root / f"{name}-{repeat}") for name in ("grid", "separate"))

            def by_grid(trials: list[Trial] = grid) -> None:
                run_head_grid(trials, cluster, resources, lambda trial, reason: None)

            def by_tune(trials: list[Trial] = separate) -> None:
                run_trials(trials, storage, cluster, resources, lambda trial, reason: None)

            seconds = {"grid": seconds_of(by_grid), "separate": seconds_of(by_tune)}
            check_equal(grid, separate)
            folder = root / f"record-{repeat}"
            folder.mkdir()
            seconds["compute"] = seconds_of_compute(trials[chosen], at_a_time)
            seconds["recording"] = seconds_of_recording(planned[chosen], grid, folder)
            say(f"  {repeat or 'warm-up'}: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
            for name, of in runs.items():
                of += [seconds[name]] if repeat else []
        job = seconds_of_a_job(storage, flags.images, flags.jobs)
    of = {name: statistics.median(values) for name, values in runs.items()}
    row = {
        "trials": len(trials),
        "at_a_time": at_a_time,
        **{f"{name}_s": round(value, 2) for name, value in of.items()},
        "one_job_s": round(job, 2) if job else None,
        "separate_over_grid": round(of["separate"] / of["grid"], 2),
        "jobs_one_by_one_over_grid": round(job * len(trials) / of["grid"], 2) if job else None,
        "grid_over_compute": round(of["grid"] / of["compute"], 3),
        "recording_over_grid": round(of["recording"] / of["grid"], 3),
    }
    print(json.dumps(row, indent=1))
    write_figures(flags.json, "head_grid", "cpu", [row])


if __name__ == "__main__":
    main()
