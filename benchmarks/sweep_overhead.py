"""What a sweep costs beside the work of its trials: wall time over the sum of the trials' own work.

    python benchmarks/sweep_overhead.py [--trials 8] [--repeats 5]

Prepares the embedded world once, then runs the same head trials (a) by the sweep's trial runner over Ray Tune and
(b) by as many processes as the sweep has trials at a time, each warmed up and with its share of the trials one after
the other: the work itself, on cores that are as busy. Both sides train the same trials to the same results, which is
checked. What (a) takes more than (b) is orchestration, given in seconds a trial of one process. It does not grow with
the work, so of trials of 30 s the quotient is one plus a thirtieth of it: that figure is calculated. One run of each
is discarded as warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measurement import machine, write_figures

from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.pipeline.trials import run_trials
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.resources import TrialResources
from ccim_ray.storage import Storage
from ccim_ray.trial_folder import Trial, read_result

_ONE_AFTER_THE_OTHER = """
import pickle, sys
from ccim_ray.trial import run_trial, threads_of_a_trial
threads_of_a_trial()
with open(sys.argv[1], "rb") as file:
    first, *trials = pickle.load(file)
run_trial(first)  # warm-up: imports and the allocator
print("ready", flush=True)
sys.stdin.readline()
for trial in trials:
    run_trial(trial)
print("done", flush=True)
"""


def elsewhere(trials: list[Trial], folder: Path) -> list[Trial]:
    """The same trials, to be trained anew in other folders."""
    return [replace(t, paths=replace(t.paths, folder=str(folder / t.signature))) for t in trials]


def seconds_of_the_work(trials: list[Trial], folder: Path, at_a_time: int) -> float:
    """Train in ``at_a_time`` warmed-up processes of one thread, from a common start to the end of the last."""
    processes = []
    for number in range(at_a_time):
        mine = elsewhere(trials[number::at_a_time], folder / "work")
        told = folder / f"{number}.pickle"
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_bytes(pickle.dumps([*elsewhere(trials[number : number + 1], folder / "warm_up"), *mine]))
        command = [sys.executable, "-c", _ONE_AFTER_THE_OTHER, str(told)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True))
    for process in processes:
        process.stdout.readline()
    started = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    seconds = time.perf_counter() - started
    for process in processes:
        process.wait()
    if said != ["done\n"] * at_a_time:
        raise SystemExit("a process of the work itself failed; its error stands above")
    return seconds


def seconds_of_the_sweep(trials: list[Trial], folder: Path, at_a_time: int) -> float:
    """Train by the sweep's runner over Ray Tune."""
    cluster = join_cluster()
    storage = Storage.open(str(folder))
    started = time.perf_counter()
    resources = TrialResources(max_concurrent=at_a_time)
    run_trials(elsewhere(trials, folder / "trials"), storage, cluster, resources, lambda trial, reason: None)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        storage = Storage.open(str(root / "storage"))
        base = default_experiment("confounded_scenes", "quick", WorldSettings(images=flags.images)).with_changes(
            dictionary__size=128
        )
        plan = make_plan([("CCIM N=128", base)], tuple(range(flags.trials)), storage, None)
        prepare(plan, storage, cluster, None)
        trials = [planned.trial for planned in plan.trials]
        at_a_time = min(cluster.cpus, flags.trials)
        work, sweep = [], []
        for repeat in range(flags.repeats + 1):
            folder = root / str(repeat)
            seconds = (seconds_of_the_work(trials, folder, at_a_time), seconds_of_the_sweep(trials, folder, at_a_time))
            for trial in trials:
                ours = read_result(folder / "trials" / trial.signature)
                alone = read_result(folder / "work" / trial.signature)
                if not ours or not alone or ours.metrics != alone.metrics:
                    raise SystemExit(f"{trial.signature}: the two sides trained different models")
            shutil.rmtree(folder)
            if repeat:  # the first is warm-up
                work.append(seconds[0])
                sweep.append(seconds[1])
            say(f"  {repeat or 'warm-up'}: work {seconds[0]:.1f} s, sweep {seconds[1]:.1f} s")
    ideal, wall = statistics.median(work), statistics.median(sweep)
    row = {
        "trials": flags.trials,
        "at_a_time": at_a_time,
        "work_wall_s": round(ideal, 2),
        "sweep_wall_s": round(wall, 2),
        "wall_over_ideal": round(wall / ideal, 3),
        "orchestration_s_per_trial": round((wall - ideal) / flags.trials * at_a_time, 3),
        "wall_over_ideal_of_30_s": round(1 + (wall - ideal) / flags.trials * at_a_time / 30, 3),
    }
    say(f"{machine()}\n{json.dumps(row, indent=1)}")
    write_figures(flags.json, "sweep_overhead", "cpu", [row])


if __name__ == "__main__":
    main()
