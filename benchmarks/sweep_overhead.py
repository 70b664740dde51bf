"""What a sweep costs beside the work of its trials: wall time over the sum of the trials' own work.

    python benchmarks/sweep_overhead.py [--trials 8] [--epochs 15] [--repeats 5] [--json FILE]

Prepares the embedded world once, then runs the same head trials (a) as a sweep does, by its trial runner over Ray Tune
with its recorder, which logs epochs, figures and models in MLflow, to the last record; and (b) by as many processes as
the sweep has trials at a time, warmed up and each with its share of the trials one after the other: the work itself,
on cores that are as busy. Both sides train the same trials to the same results, which is checked. What (a) takes more
than (b) is orchestration, given in seconds a trial of one process. Once a sweep, and not in it: the start of Ray and
of MLflow's database before, the tables and figures after.

Trials of preset quick take about a second here. Orchestration hardly grows with the work, so of trials of 30 s the
quotient is one plus a thirtieth of it: that figure is calculated. It is measured with

    python benchmarks/sweep_overhead.py --trials 4 --epochs 600 --repeats 5

(choose the epochs by "trial_s", a trial's own seconds, which is printed), where "wall_over_ideal" is the quotient. One
run of each is discarded as warm-up.
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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measurement import machine, write_figures

from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.pipeline.trials import run_trials
from ccim_ray.plan import PlannedTrial, make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.recording import Recorder
from ccim_ray.resources import TrialResources
from ccim_ray.storage import Storage
from ccim_ray.tracking import Tracker
from ccim_ray.trial_folder import Trial, read_result

_ONE_AFTER_THE_OTHER = """
import pickle, sys
from ccim_ray.trial import run_trial, threads_of_a_trial
threads_of_a_trial()
for told in sys.stdin:  # the first run is warm-up: imports and the allocator
    with open(told.strip(), "rb") as file:
        trials = pickle.load(file)
    for trial in trials:
        run_trial(trial)
    print("done", flush=True)
"""


def elsewhere(trials: list[Trial], folder: Path) -> list[Trial]:
    """The same trials, to be trained anew in other folders."""
    return [replace(t, paths=replace(t.paths, folder=str(folder / t.signature))) for t in trials]


def workers(at_a_time: int) -> list[subprocess.Popen[str]]:
    """Processes of one thread that train what they are told, and live until they are told no more."""
    command, environment = [sys.executable, "-c", _ONE_AFTER_THE_OTHER], {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return [subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True) for _ in range(at_a_time)]


def seconds_of_the_work(trials: list[Trial], folder: Path, processes: list[subprocess.Popen[str]]) -> float:
    """Train in these processes, from a common start to the end of the last."""
    folder.mkdir(parents=True)
    for number in range(len(processes)):
        share = elsewhere(trials[number :: len(processes)], folder / "work")
        (folder / f"{number}.pickle").write_bytes(pickle.dumps(share))
    started = time.perf_counter()
    for number, process in enumerate(processes):
        process.stdin.write(f"{folder / f'{number}.pickle'}\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    if said != ["done\n"] * len(processes):
        raise SystemExit("a process of the work itself failed; its error stands above")
    return time.perf_counter() - started


def seconds_of_the_sweep(
    planned: Sequence[PlannedTrial], folder: Path, tracker: Tracker, at_a_time: int
) -> tuple[float, float]:
    """Train and record as a sweep does: seconds to the end of the last trial, and to the last record."""
    cluster = join_cluster()
    storage = Storage.open(str(folder))
    trials = elsewhere([each.trial for each in planned], folder / "trials")
    moved = [replace(each, trial=trial) for each, trial in zip(planned, trials, strict=True)]

    def open_parent() -> str:
        return tracker.open_parent(str(folder), str(folder), {}, {})

    started = time.perf_counter()
    with Recorder(tracker, open_parent, moved, {}).following(lambda: "FINISHED") as recorder:
        resources = TrialResources(max_concurrent=at_a_time)
        run_trials(trials, storage, cluster, resources, lambda trial, reason: recorder.end(trial.signature))
        trained = time.perf_counter()
    return trained - started, time.perf_counter() - started


def own_seconds(folder: Path, trials: Sequence[Trial]) -> list[float]:
    """Of each trial by its own clock, on the side of the work itself; refuses sides that trained different models."""
    found = []
    for trial in trials:
        ours, alone = (read_result(folder / side / trial.signature) for side in ("trials", "work"))
        if not ours or not alone or ours.metrics != alone.metrics:
            raise SystemExit(f"{trial.signature}: the two sides trained different models")
        found.append(alone.seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, help="of a trial, as many as preset quick has by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        storage = Storage.open(str(root / "storage"))
        base = default_experiment("confounded_scenes", "quick", WorldSettings(images=flags.images))
        base = base.with_changes(dictionary__size=128, epochs=flags.epochs or base.epochs)
        plan = make_plan([("CCIM N=128", base)], tuple(range(flags.trials)), storage, None)
        prepare(plan, storage, cluster, None)
        trials = [planned.trial for planned in plan.trials]
        at_a_time = min(cluster.cpus, flags.trials)
        tracker = Tracker(f"sqlite:///{root}/mlflow.db?timeout=60", "benchmark/sweep", root / "artifacts")
        processes = workers(at_a_time)
        work, trained, recorded, alone = [], [], [], []
        for repeat in range(flags.repeats + 1):
            folder = root / str(repeat)
            of_work = seconds_of_the_work(trials, folder, processes)
            of_sweep = seconds_of_the_sweep(plan.trials, folder, tracker, at_a_time)
            seconds = own_seconds(folder, trials)
            shutil.rmtree(folder)
            if repeat:  # the first is warm-up
                work.append(of_work)
                trained.append(of_sweep[0])
                recorded.append(of_sweep[1])
                alone += seconds
            say(f"  {repeat or 'warm-up'}: work {of_work:.1f} s, sweep {of_sweep[0]:.1f} s, recorded {of_sweep[1]:.1f}")
        for process in processes:
            process.communicate()
    ideal, wall = statistics.median(work), statistics.median(recorded)
    orchestration = (wall - ideal) / flags.trials * at_a_time
    row = {
        "trials": flags.trials,
        "at_a_time": at_a_time,
        "epochs": base.epochs,
        "trial_s": round(statistics.median(alone), 2),
        "work_wall_s": round(ideal, 2),
        "trained_wall_s": round(statistics.median(trained), 2),
        "sweep_wall_s": round(wall, 2),
        "wall_over_ideal": round(wall / ideal, 3),
        "orchestration_s_per_trial": round(orchestration, 3),
        "wall_over_ideal_of_30_s": round(1 + orchestration / 30, 3),
    }
    say(f"{machine()}\n{json.dumps(row, indent=1)}")
    write_figures(flags.json, "sweep_overhead", "cpu", [row], flags.repeats)


if __name__ == "__main__":
    main()
