"""The head grid against the same trials one by one, and against the pure compute of the heads.

    python benchmarks/head_grid.py [--sizes 64 256 1024] [--seeds 1] [--repeats 3] [--jobs 1] [--json FILE]

Extracts features of the embedded world and fits the dictionaries once. The trials are all those of preview_heads.py
with these sizes and seeds. Each repeat, one after the other:

    grid      the trials as preview_heads.py trains them, from nothing to the last result
    separate  the same trials by a sweep's runner, each a trial of Ray Tune; as many at a time
    compute   the optimiser's steps alone, forward, backward and update on batches that lie in memory, in as many
              processes at a time, warmed up, with one thread each; no evaluation, no files

and then, --jobs times, whole commands on the same storage, the start of Python, Ray and MLflow and the report included:

    grid_command   `python jobs/preview_heads.py`, which trains all these trials anew
    one_job        `python jobs/train.py` of one head of the middle size, and nothing beside it
    jobs_together  as many of those at once as the grid has trials at a time, to the end of the last

The grid as a command is compared with as many jobs as it has trials, one after the other, and as many at a time as the
grid's own trials; of a job are seconds measured, of all of them calculated.

Checked before a ratio is printed: grid, separate and grid_command end in the same weights, byte for byte, and the same
metrics.
Recording in MLflow is timed by itself; in the job it runs beside the training. One run of each is warm-up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ray
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
from ccim_ray.tracking import Tracker, default_tracking_uri
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


def seconds_of_commands(commands: Sequence[Sequence[str]]) -> float:
    """Jobs that are started at once, to the end of the last."""
    started = time.perf_counter()
    running = [subprocess.Popen([sys.executable, *of], stdout=subprocess.DEVNULL, cwd=ROOT) for of in commands]
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise SystemExit("a job failed; its error stands above")
    return time.perf_counter() - started


def whole_commands(
    storage: Storage, flags: argparse.Namespace, trials: Sequence[Trial], ours: Sequence[Trial], at_a_time: int
) -> dict[str, list[float]]:
    """Seconds of the grid as a command, of one job, and of jobs at once, --jobs times each."""
    Tracker(default_tracking_uri(storage.root), "benchmark/heads", storage.root / "mlflow-artifacts")  # the database
    common = ["--images", str(flags.images), "--storage", str(storage.root), "--seeds"]
    heads = ["jobs/preview_heads.py", *common, *map(str, range(flags.seeds)), "--sizes", *map(str, flags.sizes)]
    seeds = itertools.count(1000)  # each job trains a head that no other has trained

    def job() -> list[str]:
        size = sorted(flags.sizes)[len(flags.sizes) // 2]
        return ["jobs/train.py", *common, str(next(seeds)), "--dictionary-size", str(size)]

    found: dict[str, list[float]] = {"grid_command": [], "one_job": [], "jobs_together": []}
    for repeat in range(flags.jobs):
        for trial in trials:
            shutil.rmtree(trial.paths.folder, ignore_errors=True)
        found["grid_command"].append(seconds_of_commands([heads]))
        check_equal(ours, trials)
        found["one_job"].append(seconds_of_commands([job()]))
        found["jobs_together"].append(seconds_of_commands([job() for _ in range(at_a_time)]))
        say(f"  {repeat + 1}: " + ", ".join(f"{name} {of[-1]:.1f} s" for name, of in found.items()))
    return found


def check_equal(ours: Sequence[Trial], theirs: Sequence[Trial]) -> None:
    """The two sides trained the same models."""
    for one, other in zip(ours, theirs, strict=True):
        folders = Path(one.paths.folder), Path(other.paths.folder)
        results = [read_result(folder) for folder in folders]
        weights = [(folder / "best.safetensors").read_bytes() for folder in folders]
        if not results[0] or not results[1] or results[0].metrics != results[1].metrics or weights[0] != weights[1]:
            raise SystemExit(f"{one.signature}: grid and separate trial ended differently")


def prepared(
    storage: Storage, images: int, sizes: Sequence[int], seeds: int, cluster: ClusterResources
) -> list[PlannedTrial]:
    """The preview's trials, with all that they read."""
    base = default_experiment("confounded_scenes", "quick", WorldSettings(images=images))
    plan = make_plan(list(heads_space(sizes).settings(base).items()), tuple(range(seeds)), storage, None)
    prepare(plan, storage, cluster, None)
    return list(plan.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000, help="pictures of the embedded world")
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 256, 1024), help="N of the dictionaries")
    parser.add_argument("--seeds", type=int, default=1, help="of every setting: two and six for each N")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="turns of the whole commands; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    runs: dict[str, list[float]] = {"grid": [], "separate": [], "compute": [], "recording": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        storage = Storage.open(str(root / "storage"))
        planned = prepared(storage, flags.images, flags.sizes, flags.seeds, cluster)
        trials = [each.trial for each in planned]
        at_a_time = min(cluster.cpus, len(trials))
        resources = TrialResources(max_concurrent=at_a_time, gpus_per_worker=0)
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
            if repeat:  # its processes warm up themselves
                seconds["compute"] = seconds_of_compute(trials[chosen], at_a_time)
            seconds["recording"] = seconds_of_recording(planned[chosen], grid, folder)
            say(f"  {repeat or 'warm-up'}: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
            for name, of in runs.items():
                of += [seconds[name]] if repeat else []
        ray.shutdown()  # the commands start their own
        if flags.jobs:
            runs |= whole_commands(storage, flags, trials, grid, at_a_time)
    of = {name: statistics.median(values) for name, values in runs.items()}
    one_by_one, together = (of[name] * len(trials) if flags.jobs else None for name in ("one_job", "jobs_together"))
    row = {
        "trials": len(trials),
        "at_a_time": at_a_time,
        **{f"{name}_s": round(value, 2) for name, value in of.items()},
        "separate_over_grid": round(of["separate"] / of["grid"], 2),
        "jobs_one_by_one_over_grid_command": round(one_by_one / of["grid_command"], 2) if one_by_one else None,
        "jobs_together_over_grid_command": round(together / at_a_time / of["grid_command"], 2) if together else None,
        "grid_over_compute": round(of["grid"] / of["compute"], 3),
        "recording_over_grid": round(of["recording"] / of["grid"], 3),
    }
    print(json.dumps(row, indent=1))
    write_figures(flags.json, "head_grid", "cpu", [row], {name: len(values) for name, values in runs.items()})


if __name__ == "__main__":
    main()
