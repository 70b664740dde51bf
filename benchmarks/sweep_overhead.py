"""What a sweep costs beside the work of its trials: wall time over the sum of the trials' own work.

    python benchmarks/sweep_overhead.py [--trials 8] [--repeats 5]

Prepares the embedded world once, then runs the same head trials (a) by the sweep's trial runner over Ray Tune and
(b) one after the other in a process of its own that has been warmed up, which is the work itself. Both sides train
the same trials to the same results, which is checked. (a) is divided by (b) over the number of trials at a time;
what is left is orchestration, given in seconds a trial. It does not grow with the work, so of trials of 30 s the
quotient is one plus a thirtieth of it: that figure is calculated. One run of each is discarded as warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
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
import pickle, sys, time
from ccim_ray.trial import run_trial, threads_of_a_trial
threads_of_a_trial()
first, *trials = pickle.load(sys.stdin.buffer)
run_trial(first)  # warm-up: imports and the allocator
started = time.perf_counter()
for trial in trials:
    run_trial(trial)
print(time.perf_counter() - started)
"""


def elsewhere(trials: list[Trial], folder: Path) -> list[Trial]:
    """The same trials, to be trained anew in other folders."""
    return [replace(t, paths=replace(t.paths, folder=str(folder / t.signature))) for t in trials]


def seconds_of_the_work(trials: list[Trial], folder: Path) -> float:
    """Train one after the other in a warmed-up process with one thread."""
    import pickle

    warm_up = elsewhere(trials[:1], folder / "warm_up")
    payload = pickle.dumps([*warm_up, *elsewhere(trials, folder / "work")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _ONE_AFTER_THE_OTHER]
    ended = subprocess.run(command, input=payload, stdout=subprocess.PIPE, env=environment, check=True)
    return float(ended.stdout)


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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        storage = Storage.open(str(root / "storage"))
        base = default_experiment("confounded_scenes", "quick", WorldSettings(images=4000)).with_changes(
            dictionary__size=128
        )
        plan = make_plan([("CCIM N=128", base)], tuple(range(flags.trials)), storage, None)
        prepare(plan, storage, cluster, None)
        trials = [planned.trial for planned in plan.trials]
        at_a_time = min(cluster.cpus, flags.trials)
        work, sweep = [], []
        for repeat in range(flags.repeats + 1):
            folder = root / str(repeat)
            seconds = (seconds_of_the_work(trials, folder), seconds_of_the_sweep(trials, folder, at_a_time))
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
    ideal = statistics.median(work) / at_a_time
    wall = statistics.median(sweep)
    row = {
        "trials": flags.trials,
        "at_a_time": at_a_time,
        "work_s": round(statistics.median(work), 2),
        "sweep_wall_s": round(wall, 2),
        "wall_over_ideal": round(wall / ideal, 3),
        "orchestration_s_per_trial": round((wall - ideal) / flags.trials * at_a_time, 3),
        "wall_over_ideal_of_30_s": round(1 + (wall - ideal) / flags.trials * at_a_time / 30, 3),
    }
    say(f"{machine()}\n{json.dumps(row, indent=1)}")
    write_figures(flags.json, "sweep_overhead", "cpu", [row])


if __name__ == "__main__":
    main()
