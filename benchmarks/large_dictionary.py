"""A dictionary from features that are never held together: memory and time as the rows grow tenfold.

    python benchmarks/large_dictionary.py [--rows 32768] [--factors 1 5 10] [--sizes 64 256] [--json FILE]

Writes shards of 128 features as extraction does, then clusters them block by block in Ray tasks, as
jobs/build_dictionary.py does with features that take more than 30 % of a node's memory. Peak memory is the largest
resident set of any process that works on it, tasks and the one that adds up, its start included: "beyond the start"
is without what a process has after its imports. Starting the tasks' processes takes seconds whatever the rows, and
Lloyd's iterations differ with them, so linear time is judged by one iteration in which every size is still improved:
the fastest, for whatever else runs only adds; the median is given beside it. Handing out its tasks takes a time of its
own, so of three numbers of rows the milliseconds that a row adds are compared, between the larger two and between the
smaller two. Choose rows that fill whole blocks, as many for each CPU: the defaults are 2, 10 and 20 blocks. At the
first number of rows the dictionary is checked against the one made in memory: 99 % of the features in the same
cluster, inertia within 0.1 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measurement import machine, write_figures

from ccim_ray import large_dictionaries
from ccim_ray.confounders import ConfounderDictionary, fit_dictionaries
from ccim_ray.console import say
from ccim_ray.context_clusters import nearest_prototypes
from ccim_ray.feature_blocks import FeatureBlock, feature_blocks, read_together
from ccim_ray.large_dictionaries import fit_large_dictionaries
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.dictionaries import in_ray_tasks
from ccim_ray.plan import SHARD_SUBJECTS
from ccim_ray.prepared import write_shard


def resident_mib() -> float:
    """Largest resident set that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def with_peak(task: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the task gives, and the peak of its process after imports and after the task."""
    import sklearn.cluster  # noqa: F401  what a task imports is not the task's memory

    start = resident_mib()
    return task(), start, resident_mib()


@ray.remote(num_cpus=1, max_calls=1)  # a process of its own: its peak is this fit's
def measured_fit(blocks: list[FeatureBlock], sizes: list[int], components: int, folder: str) -> dict[str, Any]:
    """Fit block by block; the dictionaries, seconds, those of every iteration of Lloyd's, and peaks in MiB."""
    starts, peaks, iterations = [resident_mib()], [0.0], []

    def in_order(tasks: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        tasks, began = list(tasks), time.perf_counter()
        for made, start, peak in in_ray_tasks(partial(with_peak, task) for task in tasks):
            starts.append(start)
            peaks.append(peak)
            yield made
        if tasks[0].func is large_dictionaries._assigned:  # tasks are partials
            iterations.append(time.perf_counter() - began)

    started = time.perf_counter()
    made = fit_large_dictionaries(blocks, in_order, Path(folder), sizes, 0, components)
    seconds = time.perf_counter() - started
    peak = {"tasks": max(peaks), "adding": resident_mib(), "start": min(starts)}
    return {"made": made, "seconds": seconds, "iterations": iterations, **peak}


def write_features(folder: Path, rows: int, width: int) -> None:
    """Shards of a mixture of 64 clusters; each shard is a function of its number, so more rows begin with the same."""
    centres = np.random.default_rng(0).normal(0, 1, (64, width)).astype(np.float32)
    folder.mkdir()
    for number in range(-(-rows // SHARD_SUBJECTS)):
        rng = np.random.default_rng([1, number])
        count = min(SHARD_SUBJECTS, rows - number * SHARD_SUBJECTS)
        features = centres[rng.integers(0, 64, count)] + rng.standard_normal((count, width), dtype=np.float32)
        ids = [f"{number}-{row}" for row in range(count)]
        write_shard(folder / f"shard-{number:06d}.parquet", ids, features, [None] * count)


def check_same(blocks: list[FeatureBlock], made: dict[int, ConfounderDictionary], components: int) -> dict[int, float]:
    """Share of the features that are in the same cluster as of the dictionary made in memory, by size."""
    features = read_together(blocks)
    same = {}
    for size, expected in fit_dictionaries(features, list(made), 0, components).items():
        found, wanted = (nearest_prototypes(features, one) for one in (made[size], expected))
        same[size] = float(np.mean(found == wanted))
        inertias = [float(one.provenance["inertia"]) for one in (made[size], expected)]
        if same[size] < 0.99 or abs(inertias[0] / inertias[1] - 1) > 1e-3:
            raise SystemExit(f"N = {size}: {same[size]:.1%} in the same cluster, inertias {inertias}: not the same")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    join_cluster()
    rows_of_json: list[dict[str, Any]] = []
    start = 0.0
    say(f"{machine()}; {flags.width} wide, N = {flags.sizes}, {flags.components} components")
    for factor in flags.factors:
        rows = factor * flags.rows
        with tempfile.TemporaryDirectory() as temporary:
            shards, projected = Path(temporary) / "shards", Path(temporary) / "projected"
            projected.mkdir()
            write_features(shards, rows, flags.width)
            blocks = feature_blocks(shards, np.ones(rows, bool))
            found = ray.get(measured_fit.remote(blocks, flags.sizes, flags.components, str(projected)))
            # Ray keeps the processes of tasks: the start is that of the first fit, whatever they held since.
            start = found["start"] if not rows_of_json else start
            same = check_same(blocks, found["made"], flags.components) if not rows_of_json else None
        iterations = [int(made.provenance["iterations"]) for made in found["made"].values()]
        of_all_sizes = found["iterations"][: min(iterations)]
        row = {
            "rows": rows,
            "features_MiB": round(rows * flags.width * 4 / 2**20, 1),
            "blocks": len(blocks),
            "peak_MiB": round(max(found["tasks"], found["adding"]), 1),
            "beyond_the_start_MiB": round(max(found["tasks"], found["adding"]) - start, 1),
            "seconds": round(found["seconds"], 2),
            "iterations": max(iterations),
            "iterations_of_all_sizes": len(of_all_sizes),
            "iteration_ms": round(min(of_all_sizes) * 1e3, 2),
            "median_iteration_ms": round(statistics.median(of_all_sizes) * 1e3, 2),
        }
        if same:
            row["same_cluster_as_in_memory"] = {size: round(share, 4) for size, share in same.items()}
        rows_of_json.append(row)
        say(json.dumps(row))
    write_figures(flags.json, "large_dictionary", "cpu", rows_of_json, 1)


if __name__ == "__main__":
    main()
