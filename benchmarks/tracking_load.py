"""Whether MLflow's database and the driver keep up with a large sweep: 1,000 trials, 200,000 points of metrics.

    python benchmarks/tracking_load.py [--trials 100 1000] [--points 200] [--repeats 1] [--json FILE]

Writes the folders of trials that have ended, with made-up journals, and has the recorder of a sweep bring a new SQLite
database up to date with them: twice, as when the same command is given again, for which everything is in it already. No
model is trained, and none recorded. Each number of trials is measured in a process of its own, warmed up by one trial:

    per trial     seconds of recording, over trials
    again         seconds of the second time, over trials
    memory        the most that the process held, above what it held with the recorder made, over trials
    database      bytes on disk, over trials

Checked before anything is printed: every trial has one run, and every point arrived once.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurement import machine, write_figures

from ccim_ray.console import say
from ccim_ray.journal import JournalLine
from ccim_ray.plan import PlannedTrial, trial_state
from ccim_ray.prepared import TrialPaths
from ccim_ray.presets import default_experiment
from ccim_ray.recording import Recorder
from ccim_ray.storage import write_json
from ccim_ray.tracking import Tracker
from ccim_ray.trial_folder import Trial, TrialResult

METRICS_AN_EPOCH = 8
FINAL_METRICS = 8
LINEAR = 1.2
"""Ten times the trials may take this much more for each of them and still be called linear."""


def ended_trials(folder: Path, trials: int, points: int) -> list[PlannedTrial]:
    """Trials that are done, each with ``points`` values in its journal and its result together."""
    base = default_experiment("caer_s", "quick", None)
    planned = []
    for number in range(trials):
        signature = f"{number:016x}"
        of_trial = folder / signature
        of_trial.mkdir(parents=True)
        lines = []
        left = points - FINAL_METRICS
        while left > 0:
            step, of_epoch = len(lines), min(left, METRICS_AN_EPOCH)
            names = ["train/loss", *(f"val/metric-{place}" for place in range(of_epoch - 1))]
            lines.append(JournalLine(step, 1.7e9 + step, dict.fromkeys(names, 1 / (step + 1))))
            left -= of_epoch
        written = ({"step": line.step, "time": line.time, "metrics": line.metrics} for line in lines)
        (of_trial / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
        final = {f"test/metric-{place}": number / trials for place in range(FINAL_METRICS)}
        write_json(of_trial / "result.json", TrialResult("done", final, epochs=len(lines)).as_dict())
        experiment = base.with_changes(seed=number)
        write_json(of_trial / "experiment.json", experiment.model_dump(mode="json"))
        trial = Trial(experiment, signature, TrialPaths(str(of_trial), "", {}, None))
        planned.append(PlannedTrial("made up", trial, *trial_state(of_trial)))
    return planned


def record(database: Path, planned: list[PlannedTrial]) -> float:
    """Seconds in which the recorder brings the database up to date."""
    tracker = Tracker(f"sqlite:///{database}?timeout=60", "benchmark/load", database.parent / "artifacts")
    started = time.perf_counter()
    parent = tracker.open_parent("load", "load", {}, {})
    recorder = Recorder(tracker, lambda: parent, planned, {}, numbers_only=True)
    recorder.start()
    recorder.close("FINISHED")
    return time.perf_counter() - started


def check(database: Path, trials: int, points: int) -> None:
    """One run a trial, and every point once."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        (runs,) = connection.execute("SELECT COUNT(*) FROM tags WHERE key = 'ccim.kind' AND value = 'trial'").fetchone()
        (found,) = connection.execute("SELECT COUNT(*) FROM metrics").fetchone()
    if (runs, found) != (trials, trials * points):
        raise SystemExit(f"{runs} runs and {found} points where {trials} and {trials * points} were measured")


def most_memory() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(trials: int, points: int) -> dict[str, float]:
    """Figures of this many trials, in this process."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warm_up = ended_trials(folder / "warm-up", 1, points)
        (folder / "first").mkdir()
        record(folder / "first" / "mlflow.db", warm_up)
        planned = ended_trials(folder / "trials", trials, points)
        before = most_memory()
        database = folder / "mlflow.db"
        seconds = record(database, planned)
        held = most_memory() - before
        again = record(database, planned)
        check(database, trials, points)
        return {
            "trials": trials,
            "points": trials * points,
            "seconds": round(seconds, 2),
            "again_s": round(again, 2),
            "ms_per_trial": round(1000 * seconds / trials, 2),
            "again_ms_per_trial": round(1000 * again / trials, 3),
            "memory_mb": round(held / 1e6, 1),
            "kb_per_trial": round(held / trials / 1e3, 1),
            "database_kb_per_trial": round(database.stat().st_size / trials / 1e3, 1),
        }


def measured_apart(trials: int, points: int) -> dict[str, float]:
    """``measure`` in a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, __file__, "--points", str(points), "--of", str(trials)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--points", type=int, default=200, help="of metrics, a trial")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    if flags.of:
        print(json.dumps(measure(flags.of, flags.points)))
        return
    say(machine())
    rows = []
    for trials in flags.trials:
        runs = [measured_apart(trials, flags.points) for _ in range(flags.repeats)]
        rows.append({name: statistics.median(run[name] for run in runs) for name in runs[0]})
        say(", ".join(f"{name} {value:g}" for name, value in rows[-1].items()))
    first, last = rows[0], rows[-1]
    summary = {
        "trials_ratio": last["trials"] / first["trials"],
        **{
            f"{name}_ratio": round(last[name] / first[name], 2)
            for name in ("ms_per_trial", "again_ms_per_trial", "kb_per_trial", "database_kb_per_trial")
            if first[name] > 0
        },
    }
    worst = max(value for name, value in summary.items() if name != "trials_ratio")
    verdict = "linear or better" if worst <= LINEAR else "worse than linear"
    say(f"{summary['trials_ratio']:g} times the trials: {verdict}")
    say(", ".join(f"{name} {value:g}" for name, value in summary.items()))
    write_figures(flags.json, "tracking_load", "cpu", [*rows, summary], flags.repeats)


if __name__ == "__main__":
    main()
