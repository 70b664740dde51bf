"""Confounder dictionaries from features larger than memory: what fit_dictionaries does, in passes over blocks.

Nothing here holds more than a block of features and sums over all: a pass is a task a block, and whoever runs the
tasks (``InOrder``) may spread them over processes or machines. Their results are added in the order of the blocks, so
the same blocks give the same bits wherever they were computed. Against fit_dictionaries on the same rows only
rounding differs: the covariance is summed in other blocks, and K-Means in float64.

Shape suffixes: R rows of one block, D width of a feature (d), P principal components, N prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ccim_ray.confounders import (
    ConfounderDictionary,
    check_sizes,
    distinct_rows,
    first_centres,
    from_clusters,
    provenance_of_clusters,
    refuse_empty_clusters,
    refuse_rows_not_finite,
    rows_drawn_from,
    rows_not_finite,
)
from ccim_ray.errors import RequestError
from ccim_ray.lloyd import (
    Clusters,
    Farthest,
    Shares,
    added_up,
    assigned,
    farthest,
    lloyd,
    nearest,
    shares_of,
    squared_distances,
)
from ccim_ray.principal_components import PrincipalComponents, Spread, components_from, spread_of

Floats = npt.NDArray[np.float32]
Read = Callable[[], Floats]
"""Reads one block of features (R, D); travels to other processes."""

_TOLERANCE = 1e-4  # scikit-learn's KMeans: of the mean variance
T = TypeVar("T")


class InOrder(Protocol):
    """Runs tasks, a bounded number at a time, and gives their results in the order of the tasks."""

    def __call__(self, tasks: Iterable[Callable[[], T]]) -> Iterator[T]: ...


@dataclass(frozen=True)
class _Seen:
    """What a first look at a block tells."""

    rows: int
    not_finite: int
    sum_D: npt.NDArray[np.float64]
    distinct: set[bytes]


def fit_large_dictionaries(
    blocks: Sequence[Read], in_order: InOrder, folder: Path, sizes: Sequence[int], seed: int, pca_components: int
) -> dict[int, ConfounderDictionary]:
    """A dictionary for each size N; see fit_dictionaries, whose arguments and errors these are.

    Args:
        blocks: each reads its rows, at least as many in all as features are wide. A block may be empty.
        folder: takes the projected rows, P of D of the features' size, read again in every iteration; the caller
            deletes it. Every process that runs tasks must see it.
    """
    blocks, rows_of, mean_D = _looked_over(blocks, in_order, sizes)
    rows = sum(rows_of)
    if rows < len(mean_D):
        raise RequestError(f"{rows} context features of width {len(mean_D)} are too few to be fitted block by block")
    spreads = in_order(partial(_spread, read, mean_D) for read in blocks)
    principal = components_from(spreads, mean_D, min(pca_components, len(mean_D)))
    paths = [folder / f"projected-{number:06d}.npy" for number in range(len(blocks))]
    for _ in in_order(partial(_project, read, principal, path) for read, path in zip(blocks, paths, strict=True)):
        pass
    first, drawn = {}, {}
    for size in sizes:
        chosen = rows_drawn_from(rows, size, seed)
        sample_RP = _rows_at(paths, rows_of, chosen, in_order)
        drawn[size] = len(sample_RP)
        first[size] = next(in_order([partial(first_centres, sample_RP, size, seed)]))

    def assign(centres: Mapping[int, Floats]) -> Iterator[dict[int, Shares]]:
        return in_order(partial(_assigned, path, centres) for path in paths)

    def find_farthest(centres_NP: Floats, wanted: int) -> Iterator[Farthest]:
        return in_order(partial(_farthest, path, centres_NP, wanted) for path in paths)

    tolerance = _TOLERANCE * float(principal.variances_P.mean()) * (rows - 1) / rows
    clusters = lloyd(first, tolerance, assign, find_farthest)
    totals = added_up(in_order(partial(_original_features, read, principal, clusters) for read in blocks))
    common = provenance_of_clusters(seed, rows, principal.components_DP.shape[1], principal.explained)
    return {size: _dictionary(totals[size], common, drawn[size], clusters[size]) for size in sizes}


def random_like_large(
    blocks: Sequence[Read], in_order: InOrder, sizes: Sequence[int], seed: int
) -> dict[int, ConfounderDictionary]:
    """The "random Z" control of each size, like the features dimension by dimension; see ConfounderDictionary.random.

    Raises RequestError where a feature is not finite.
    """
    blocks, rows_of, mean_D = _looked_over(blocks, in_order, [1])
    rows = sum(rows_of)
    squares_D = sum(in_order(partial(_squares, read, mean_D) for read in blocks))
    deviation_D = np.sqrt(np.asarray(squares_D) / rows)
    how = f"normal like {rows} features, each dimension by itself"
    return {
        size: ConfounderDictionary.normal(size, mean_D.astype(np.float64), deviation_D, seed, how) for size in sizes
    }


def _looked_over(
    blocks: Sequence[Read], in_order: InOrder, sizes: Sequence[int]
) -> tuple[list[Read], list[int], Floats]:
    """Blocks that have rows, how many, and the mean of all; refuses what fit_dictionaries refuses."""
    enough = max(2, *sizes)
    kept, rows_of, bad, total_D, distinct = [], [], 0, np.zeros(1), set[bytes]()
    looks = in_order(partial(_look, read, enough) for read in blocks)
    for read, seen in zip(blocks, looks, strict=True):
        if seen.rows:
            kept.append(read)
            rows_of.append(seen.rows)
            bad += seen.not_finite
            total_D = total_D + seen.sum_D
            if len(distinct) < enough:
                distinct |= seen.distinct
    rows = sum(rows_of)
    if not rows:
        raise RequestError("context features must be a non-empty (samples, d), found no row")
    refuse_rows_not_finite(bad, rows)
    check_sizes(sizes, rows, lambda needed: distinct)
    return kept, rows_of, (total_D / rows).astype(np.float32)


def _look(read: Read, enough: int) -> _Seen:
    block_RD = read()
    sum_D = block_RD.sum(0, dtype=np.float64)
    return _Seen(len(block_RD), rows_not_finite(block_RD), sum_D, distinct_rows(block_RD, enough))


def _spread(read: Read, mean_D: Floats) -> Spread:
    return spread_of(read(), mean_D)


def _squares(read: Read, mean_D: Floats) -> npt.NDArray[np.float64]:
    sums: npt.NDArray[np.float64] = np.square(read() - mean_D).sum(0, dtype=np.float64)
    return sums


def _project(read: Read, principal: PrincipalComponents, path: Path) -> None:
    np.save(path, principal.project(read()))


def _rows_at(
    paths: Sequence[Path], rows_of: Sequence[int], chosen: npt.NDArray[np.int64] | None, in_order: InOrder
) -> Floats:
    """The chosen projected rows, numbered over all blocks; all rows for None."""
    starts = np.cumsum([0, *rows_of])
    wanted = np.arange(starts[-1]) if chosen is None else chosen
    within = [
        wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)] - start for start, end in pairwise(starts)
    ]
    return np.concatenate(list(in_order(partial(_take, path, rows) for path, rows in zip(paths, within, strict=True))))


def _take(path: Path, rows: npt.NDArray[np.int64]) -> Floats:
    taken: Floats = np.load(path)[rows]
    return taken


def _assigned(path: Path, centres: Mapping[int, Floats]) -> dict[int, Shares]:
    return assigned(np.load(path), centres)


def _farthest(path: Path, centres_NP: Floats, wanted: int) -> Farthest:
    return farthest(np.load(path), centres_NP, wanted)


def _original_features(
    read: Read, principal: PrincipalComponents, clusters: Mapping[int, Clusters]
) -> dict[int, Shares]:
    """Sums of the ORIGINAL features of each cluster, and the squared distances that the projected ones have."""
    block_RD = read()
    projected_RP = principal.project(block_RD)
    found = {}
    for size, ended in clusters.items():
        labels_R = nearest(projected_RP, ended.centres_NW)
        distances_R = squared_distances(projected_RP, ended.centres_NW, labels_R)
        found[size] = replace(shares_of(block_RD, labels_R, size), inertia=float(distances_R.sum(dtype=np.float64)))
    return found


def _dictionary(total: Shares, common: Mapping[str, str], drawn: int, ended: Clusters) -> ConfounderDictionary:
    refuse_empty_clusters(total.count_N)
    prototypes_ND = total.sums_NW / total.count_N[:, None]
    return from_clusters(prototypes_ND, total.count_N, common, drawn, ended.iterations, total.inertia)
