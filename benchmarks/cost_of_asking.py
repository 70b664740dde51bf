"""What it costs to ask: seconds of ``--help`` and ``--plan`` of every job that trains, start of Python included.

    python benchmarks/cost_of_asking.py [--repeats 5] [--json FILE]

``python -c pass`` is given beside them: what no program can go below. The plan is of the embedded world, nothing
prepared. One call of each is discarded as warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurement import machine, write_figures

ROOT = Path(__file__).parent.parent
JOBS = (
    "sweep_dict_size",
    "train",
    "compare_baselines",
    "run_ablations",
    "compare_deconfounders",
    "preview_heads",
    "tune_hyperparameters",
    "inspect_models",
)


def seconds_of(command: list[str], repeats: int) -> float:
    """Median wall time of a command."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    print(machine())
    rows = [{"command": "python -c pass", "seconds": round(seconds_of([sys.executable, "-c", "pass"], 5), 2)}]
    with tempfile.TemporaryDirectory() as storage:
        for job in JOBS:
            for asked in (["--help"], ["--plan", "--storage", storage]):
                seconds = seconds_of([sys.executable, f"jobs/{job}.py", *asked], flags.repeats)
                rows.append({"command": f"jobs/{job}.py {asked[0]}", "seconds": round(seconds, 2)})
    for row in rows:
        print(f"{row['seconds']:6.2f} s  {row['command']}", flush=True)
    write_figures(flags.json, "cost_of_asking", "cpu", rows, flags.repeats)


if __name__ == "__main__":
    main()
