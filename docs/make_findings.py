"""Prints the tables of docs/findings.md, in Markdown, from what MLflow holds of `compare_deconfounders.py`.

    python docs/make_findings.py STORAGE

STORAGE is where the commands of docs/findings.md wrote. Nothing is trained. Every sweep of deconfounders is a column; a
cell is the mean over seeds, or the mean difference to the baseline as it is, paired by seed, with its 95 % interval.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ccim_ray.logged_sweeps import LoggedSweep, collect_sweeps
from ccim_ray.statistics import paired_delta, summarise
from ccim_ray.storage import Storage
from ccim_ray.tracking.connection import default_tracking_uri
from ccim_ray.tracking.reading import read_experiments

EXPERIMENT = "confounded_scenes/deconfounders"
REFERENCE = "vanilla"
CONTROL = "W_h alone"
DEFAULT_WORLD = (0.8, 0.5)
METRICS = {
    "test_id/accuracy": "accuracy, biased as the training data are (`test_id`)",
    "test_do/accuracy": "accuracy, scene set by intervention (`test_do`)",
    "test_anti/accuracy": "accuracy, bias reversed (`test_anti`)",
    "test_do/worst_group": "accuracy within the worst scene (`test_do/worst_group`)",
    "test_do/flip_rate": "answers that another scene changes (`test_do/flip_rate`; lower is better)",
}


def world_of(sweep: LoggedSweep) -> tuple[str, float, float]:
    """Baseline, bias and ambiguity."""
    params = sweep.trials[0].run.params
    return params["baseline"], float(params["world.bias"]), float(params["world.ambiguity"])


def cell(sweep: LoggedSweep, setting: str, metric: str, reference: str = REFERENCE) -> str:
    """In percent and points: the reference's mean ± sd, another setting's difference to it with its interval."""
    ((_, results),) = sweep.results.items()

    def by_seed(of: str) -> dict[int, float]:
        return {seed: 100 * metrics[metric] for seed, metrics in results[of].items()}

    if setting == reference:
        summary = summarise(list(by_seed(setting).values()))
        return f"{summary.mean:.1f} ± {summary.sd:.1f}"
    ours, theirs = by_seed(setting), by_seed(reference)
    shared = sorted(ours.keys() & theirs.keys())
    delta = paired_delta([ours[seed] for seed in shared], [theirs[seed] for seed in shared])
    crosses_zero = delta.ci_low is None or delta.ci_high is None or delta.ci_low <= 0 <= delta.ci_high
    return f"{delta.delta:+.1f} [{delta.ci_low:.1f}, {delta.ci_high:.1f}]{' ≈' if crosses_zero else ''}"


def print_tables(sweeps: list[LoggedSweep], heads: list[str]) -> None:
    """One table for each metric: settings down, sweeps across."""
    settings = [setting for _, setting in sweeps[0].settings]
    for metric, title in METRICS.items():
        print(f"\n{title[0].upper()}{title[1:]}:\n")
        print(f"| | {' | '.join(heads)} |\n|---{'|---' * len(heads)}|")
        for setting in settings:
            print(f"| {setting} | {' | '.join(cell(sweep, setting, metric) for sweep in sweeps)} |")
        of_its_own = " | ".join(cell(sweep, "CCIM", metric, CONTROL) for sweep in sweeps)
        print(f"| *CCIM against {CONTROL}* | {of_its_own} |")


def main() -> None:
    storage = Storage.open(str(Path(sys.argv[1]).absolute()))
    (experiment,) = read_experiments(default_tracking_uri(storage.root), EXPERIMENT)
    sweeps = {world_of(sweep): sweep for sweep in sorted(collect_sweeps([experiment]), key=world_of)}
    worlds = {key: sweep for key, sweep in sweeps.items() if key[0] == "emot_net"}
    baselines = {key: sweep for key, sweep in sweeps.items() if key[1:] == DEFAULT_WORLD}
    print("## Worlds, with EMOT-Net")
    print_tables(list(worlds.values()), [f"bias {bias:g}, ambiguity {amb:g}" for _, bias, amb in worlds])
    print("\n## Baselines, with bias 0.8 and ambiguity 0.5")
    print_tables(list(baselines.values()), [name for name, _, _ in baselines])
    seeds = {len(trials) for sweep in sweeps.values() for trials in sweep.done.values()}
    print(f"\nSeeds of training a cell: {', '.join(map(str, sorted(seeds)))}.")


if __name__ == "__main__":
    main()
