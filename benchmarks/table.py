"""Every claim of speed in one table: runs the benchmarks, then prints what was reached beside what was to be reached.

    python benchmarks/table.py [--out runs/bench] [--device cpu] [--only NAME ...] [--show]

Each benchmark runs in a process of its own, one after the other, and leaves its figures as JSON in ``--out``; one that
fails is named, and the rest goes on. ``--show`` prints the table of the figures that are there and runs nothing. The
settings are those of "make bench", chosen to stay under 20 minutes on two cores; a benchmark's own --help names larger
ones. Exit status 1 where a benchmark failed; a figure that misses its target does not change it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ccim_ray.console import console, say

HERE = Path(__file__).parent
Figures = dict[str, Any]

SETTINGS: dict[str, tuple[str, ...]] = {
    "cost_of_asking": ("--repeats", "5"),
    "ccim_kernel": ("--repeats", "5", "--sizes", "256", "1024"),
    "extraction": ("--images", "1000", "--repeats", "5"),
    "training_input": ("--repeats", "5"),
    "sweep_overhead": ("--images", "1000", "--trials", "21", "--repeats", "5"),  # as many as the first sweep has
    "dictionaries": ("--repeats", "1"),
    "large_dictionary": ("--sizes", "64"),
    "head_grid": ("--sizes", "64", "256", "--images", "1500", "--repeats", "1", "--jobs", "1"),
    "figure_6": ("--images", "900"),
}
"""What "make bench" runs, in this order, and how; a script that is not there is left out."""

GPU_SETTINGS: dict[str, tuple[str, ...]] = {
    "ccim_kernel": ("--device", "cuda", "--repeats", "7"),
    "input_share": ("--device", "cuda"),
    "stacked_heads": ("--device", "cuda", "--sizes", "64", "128", "256", "512", "1024", "--seeds", "4"),
    "extraction": ("--device", "cuda", "--arch", "resnet152", "--images", "4000", "--workers", "1"),
}


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        script: the benchmark that measures it.
        reached: takes the figure from what the script wrote; KeyError, IndexError or None where it has none.
        to_reach: the figure wanted.
        at_most: smaller is better.
        on: "cpu", "cuda" or "" for both.
        unit: follows the figure.
    """

    stage: str
    against: str
    script: str
    reached: Callable[[Figures], float | None]
    to_reach: float
    at_most: bool = False
    on: str = ""
    unit: str = "x"

    def is_met(self, value: float) -> bool:
        """Whether the figure is the one wanted or better."""
        return value <= self.to_reach if self.at_most else value >= self.to_reach


def kernel(attention: str, size: int, key: str) -> Callable[[Figures], float | None]:
    """A figure of ccim_kernel at one size."""

    def of(figures: Figures) -> float | None:
        found = [row for row in figures["rows"] if row["attention"] == attention and row["N"] == size]
        return found[0][key]

    return of


def first_row(key: str) -> Callable[[Figures], float | None]:
    """A figure of a benchmark that has one row."""
    return lambda figures: figures["rows"][0][key]


def slowest(asked: str) -> Callable[[Figures], float | None]:
    """Seconds of the slowest command with this flag."""
    return lambda figures: max(row["seconds"] for row in figures["rows"] if row["command"].endswith(asked))


def least_share(figures: Figures) -> float | None:
    """Of input_share: the resident step over the whole one, of the baseline where input weighs most."""
    return min(found["resident_ms"] / found["whole_ms"] for found in figures["baselines"].values())


def growth_of_an_iteration(figures: Figures) -> float | None:
    """Of large_dictionary: what a row adds to an iteration between the larger two numbers of rows, over the smaller.

    None where more rows took less time: the machine was too busy to tell.
    """
    (r1, t1), (r2, t2), (r3, t3) = ((row["rows"], row["iteration_ms"]) for row in figures["rows"])
    return (t3 - t2) / (r3 - r2) / ((t2 - t1) / (r2 - r1)) if t1 < t2 < t3 else None


DOT, ADDITIVE, AUTHORS = "dot_product", "additive", "authors' broadcast form"
LOADER, BARE = "DataLoader loop, end to end", "the bare network on pictures in memory"
PLAIN_FIT = "a PCA and K-Means for each size"
TARGETS = (
    Target("CCIM step, dot product, N=1024", AUTHORS, "ccim_kernel", kernel(DOT, 1024, "step_ratio"), 50),
    Target("CCIM step, dot product, N=256", AUTHORS, "ccim_kernel", kernel(DOT, 256, "step_ratio"), 30),
    Target("its memory, N=1024", AUTHORS, "ccim_kernel", kernel(DOT, 1024, "peak_ratio"), 40),
    Target("its rate, N=1024", "bare matrix products", "ccim_kernel", kernel(DOT, 1024, "of_matmul"), 0.7),
    Target("CCIM step, additive, N=1024", AUTHORS, "ccim_kernel", kernel(ADDITIVE, 1024, "step_ratio"), 20),
    Target("its memory, N=1024", AUTHORS, "ccim_kernel", kernel(ADDITIVE, 1024, "peak_ratio"), 40),
    Target("CCIM inference, dot product, N=1024", AUTHORS, "ccim_kernel", kernel(DOT, 1024, "inference_ratio"), 400),
    Target("CCIM inference, additive, N=1024", AUTHORS, "ccim_kernel", kernel(ADDITIVE, 1024, "inference_ratio"), 40),
    Target("Extraction, start included", LOADER, "extraction", first_row("over_loader_end_to_end"), 1.0),
    Target("the same of 10,000, calculated", LOADER, "extraction", first_row("over_loader_of_10_000"), 1.0),
    Target("Extraction, steady rate", BARE, "extraction", first_row("over_bare"), 0.95),
    Target(
        "Extraction, gain of an actor", "the bare network's", "extraction", first_row("gain_over_bare"), 0.9, on="cpu"
    ),
    Target("Training step", "a resident batch", "training_input", first_row("over_resident"), 0.95, on="cpu"),
    Target("Training by Ray, 2 workers", "plain DDP", "training_input", first_row("over_plain_ddp"), 0.975, on="cpu"),
    Target("Training step", "a resident batch", "input_share", least_share, 0.95, on="cuda"),
    Target(
        "Sweep of head trials, a trial's overhead",
        "the trials' own work",
        "sweep_overhead",
        first_row("orchestration_s_per_trial"),
        2.0,
        at_most=True,
        unit=" s",
    ),
    Target(
        "Sweep of trials of 30 s, calculated from it",
        "the trials' own work",
        "sweep_overhead",
        first_row("wall_over_ideal_of_30_s"),
        1.1,
        at_most=True,
    ),
    Target("Dictionaries, N=64 to 1024", PLAIN_FIT, "dictionaries", first_row("ratio"), 3),
    Target("their inertia", PLAIN_FIT, "dictionaries", first_row("worst_inertia_ratio"), 1.01, at_most=True),
    Target(
        "their peak memory beyond the features",
        "the features",
        "dictionaries",
        first_row("peak_over_features"),
        1.5,
        at_most=True,
    ),
    Target(
        "Dictionary block by block, memory",
        "a tenth of the rows",
        "large_dictionary",
        lambda figures: figures["rows"][-1]["beyond_the_start_MiB"] / figures["rows"][0]["beyond_the_start_MiB"],
        1.1,
        at_most=True,
    ),
    Target(
        "Dictionary block by block, time a row adds",
        "the same at fewer rows",
        "large_dictionary",
        growth_of_an_iteration,
        1.1,
        at_most=True,
    ),
    Target("Head grid", "its pure compute", "head_grid", first_row("grid_over_compute"), 1.15, at_most=True, on="cpu"),
    Target(
        "Head grid, its whole command",
        "as many jobs, as many at a time",
        "head_grid",
        first_row("jobs_together_over_grid_command"),
        5,
        on="cpu",
    ),
    Target("Head grid, stacked", "one after the other", "stacked_heads", first_row("ratio"), 20, on="cuda"),
    Target("The whole of Fig. 6, smaller world", "a plain script", "figure_6", first_row("ratio"), 5),
    Target("--help, the slowest job", "", "cost_of_asking", slowest("--help"), 1.0, at_most=True, unit=" s"),
    Target("--plan, the slowest job", "", "cost_of_asking", slowest("--plan"), 3.0, at_most=True, unit=" s"),
)


def run_scripts(names: Sequence[str], settings: dict[str, tuple[str, ...]], out: Path) -> list[str]:
    """Run each script with its settings; returns one line for each that failed."""
    failed = []
    for name in names:
        started = time.monotonic()
        say(f"Running {name} {' '.join(settings[name])}")
        path = out / f"{name}.json"
        path.unlink(missing_ok=True)  # a figure of an earlier run must not stand for this one
        command = [sys.executable, str(HERE / f"{name}.py"), *settings[name], "--json", str(path)]
        with (out / f"{name}.log").open("w") as log:
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        say(f"  {time.monotonic() - started:.0f} s")
        if status or not path.exists():
            last = [line for line in (out / f"{name}.log").read_text().splitlines() if line.strip()][-1:]
            failed.append(f"{name} failed: {last[0] if last else f'status {status}'} (all in {out / name}.log)")
    return failed


def rows_of(figures: dict[str, Figures], device: str) -> list[tuple[str, str, str, str, str]]:
    """Stage, measured against, reached, to reach, met: for every target whose benchmark belongs to this device."""
    rows = []
    for target in TARGETS:
        if target.on not in ("", device) or target.script not in (GPU_SETTINGS if device == "cuda" else SETTINGS):
            continue
        try:
            value = target.reached(figures[target.script])
        except (KeyError, IndexError, ValueError):
            value = None
        wanted = f"{'at most' if target.at_most else 'at least'} {target.to_reach:g}{target.unit}"
        reached = "not measured" if value is None else f"{value:.3g}{target.unit}"
        met = "" if value is None else "yes" if target.is_met(value) else "NO"
        rows.append((target.stage, target.against, reached, wanted, met))
    return rows


def read_figures(out: Path) -> dict[str, Figures]:
    """What the scripts left in this folder, by script."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of figures and logs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these benchmarks alone")
    parser.add_argument("--show", action="store_true", help="print the table of what is there, run nothing")
    flags = parser.parse_args()
    settings = {
        name: arguments
        for name, arguments in (GPU_SETTINGS if flags.device == "cuda" else SETTINGS).items()
        if (HERE / f"{name}.py").exists()
    }
    unknown = sorted(set(flags.only or ()) - set(settings))
    if unknown:
        parser.error(f"--only {' '.join(unknown)}: choose from {', '.join(settings)}")
    failed: list[str] = []
    if not flags.show:
        if flags.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                print("error: torch finds no GPU here; make bench measures on the CPU", file=sys.stderr)
                return 2
        flags.out.mkdir(parents=True, exist_ok=True)
        failed = run_scripts(flags.only or list(settings), settings, flags.out)
    figures = read_figures(flags.out)
    from measurement import machine  # imports torch: a wrong request is told before

    table = table_of(rows_of(figures, flags.device), machine(flags.device))
    Console(highlight=False, width=max(console.width, 120)).print(table)  # a line a target, in a log too
    for line in failed:
        say(line)
    return 1 if failed else 0


def table_of(rows: Sequence[tuple[str, str, str, str, str]], of_machine: str) -> Table:
    """The table; its caption says how many targets are met."""
    table = Table(title=f"Speed, measured on {of_machine}")
    for heading in ("stage", "measured against", "reached", "to reach", "met"):
        table.add_column(heading, justify="right" if heading in ("reached", "to reach") else "left")
    for row in rows:
        table.add_row(*row)
    met = [row[-1] for row in rows]
    table.caption = f"{met.count('yes')} of {len(rows)} met, {met.count('NO')} not, {met.count('')} not measured"
    return table


if __name__ == "__main__":
    raise SystemExit(main())
