"""Dictionaries of five sizes from one set of features, against a scikit-learn PCA and K-Means for each size.

    python benchmarks/dictionaries.py [--rows 34000] [--repeats 5] [--json FILE]

Both sides take the same features, numbers of components, starts and seed, and as many threads. Features are unit
vectors of a rectified mixture of 256 clusters, 2048 wide. Checked before the ratio is printed: every dictionary's
inertia, computed for both by the same code, is within 1 % of scikit-learn's. Each side's peak memory is that of a
process that does nothing else, beyond its memory with the features loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measurement import machine, write_figures
from numpy.typing import NDArray

from ccim_ray.confounders import fit_dictionaries

SIZES = (64, 128, 256, 512, 1024)
COMPONENTS = 256


def mixture(rows: int, dimensions: int = 2048, clusters: int = 256) -> NDArray[np.float32]:
    """Features as a rectified network gives them: non-negative, of unit length, around cluster centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters, dimensions)).astype(np.float32)
    features = centres[rng.integers(0, clusters, rows)]
    features += rng.standard_normal((rows, dimensions), dtype=np.float32)
    np.maximum(features, 0, out=features)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def by_scikit_learn(features_MD: NDArray[np.float32]) -> dict[int, NDArray[np.float64]]:
    """What one would write for each size: PCA, K-Means, the mean of every cluster's features."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    prototypes = {}
    for size in SIZES:
        projected_MP = PCA(COMPONENTS, random_state=0).fit_transform(features_MD)
        labels_M = KMeans(size, n_init=1, random_state=0).fit(projected_MP).labels_
        prototypes[size] = np.stack([features_MD[labels_M == i].mean(0, dtype=np.float64) for i in range(size)])
    return prototypes


def by_us(features_MD: NDArray[np.float32]) -> dict[int, NDArray[np.float64]]:
    """The platform's: one PCA, first centres from a sample of the rows."""
    fitted = fit_dictionaries(features_MD, SIZES, pca_components=COMPONENTS)
    return {size: dictionary.prototypes_ND.double().numpy() for size, dictionary in fitted.items()}


SIDES = {"scikit_learn": by_scikit_learn, "ours": by_us}


def inertia(features_MD: NDArray[np.float32], prototypes_ND: NDArray[np.float64]) -> float:
    """Sum of squared distances of the features to their nearest prototype, in feature space."""
    prototypes = prototypes_ND.astype(np.float32)
    norms_N = (prototypes**2).sum(1)
    total = 0.0
    for rows in np.array_split(features_MD, 16):
        total += float(np.sum((rows**2).sum(1) + (norms_N - 2 * rows @ prototypes.T).min(1), dtype=np.float64))
    return total


def alone(side: str, path: Path) -> None:
    """In a process of its own: fit once and print seconds and peak memory; leave the prototypes beside the features."""
    features = np.load(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    prototypes = SIDES[side](features)
    seconds = time.perf_counter() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / features.nbytes
    inertias = [inertia(features, prototypes[size]) for size in SIZES]
    print(json.dumps({"seconds": seconds, "peak_over_features": peak, "inertias": inertias}))


def run_alone(side: str, path: Path) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, __file__, "--alone", side, str(path)], stdout=subprocess.PIPE, check=True, text=True
    )
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=34_000, help="as many as EMOTIC has persons")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--alone", nargs=2, metavar=("SIDE", "FILE"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.alone:
        return alone(flags.alone[0], Path(flags.alone[1]))
    print(f"{machine()}; {flags.rows} x 2048 float32, N in {SIZES}, threads {os.environ.get('OMP_NUM_THREADS', 'all')}")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        path, few = Path(folder) / "features.npy", Path(folder) / "few.npy"
        np.save(path, mixture(flags.rows))
        np.save(few, mixture(2 * max(SIZES)))
        for side in SIDES:  # warm-up: what a process imports is in the system's cache, as the features are
            run_alone(side, few)
        for repeat in range(flags.repeats):
            for side, of_side in runs.items():
                of_side.append(run_alone(side, path))
            print(f"  {repeat + 1}: " + ", ".join(f"{side} {of[-1]['seconds']:.1f} s" for side, of in runs.items()))
    ours, theirs = runs["ours"][0]["inertias"], runs["scikit_learn"][0]["inertias"]
    worst = max(a / b for a, b in zip(ours, theirs, strict=True))
    if worst > 1.01:
        raise SystemExit(f"an inertia is {worst:.4f} times scikit-learn's: the two sides did not do the same")
    seconds = {side: statistics.median(run["seconds"] for run in of_side) for side, of_side in runs.items()}
    row = {
        "rows": flags.rows,
        **{f"{side}_s": round(value, 2) for side, value in seconds.items()},
        "ratio": round(seconds["scikit_learn"] / seconds["ours"], 2),
        "worst_inertia_ratio": round(worst, 4),
        "peak_over_features": round(statistics.median(run["peak_over_features"] for run in runs["ours"]), 2),
    }
    print(json.dumps(row, indent=1))
    write_figures(flags.json, "dictionaries", "cpu", [row], flags.repeats)
    return None


if __name__ == "__main__":
    main()
