"""Lloyd's iterations over blocks of rows: exact K-Means whose memory does not grow with the number of rows.

A block gives partial sums, which are added in float64 in the order of the blocks: the same blocks give the same bits,
wherever and in whatever order they were computed. The rules are those of scikit-learn's KMeans: when it stops, and
that a cluster that lost its last row starts again at the row that is farthest from its centre.

Shape suffixes: R rows of one block, W width of a row, N clusters, F farthest rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MAX_ITERATIONS = 300
CHUNK_ROWS = 2048
"""Rows whose distances to all centres are held at once."""


@dataclass(frozen=True)
class Shares:
    """What rows add to their clusters: sums (N, W), how many they are (N,), and squared distances to the centres."""

    sums_NW: npt.NDArray[np.float64]
    count_N: npt.NDArray[np.int64]
    inertia: float

    def __add__(self, other: Shares) -> Shares:
        return Shares(self.sums_NW + other.sums_NW, self.count_N + other.count_N, self.inertia + other.inertia)


@dataclass(frozen=True)
class Clusters:
    """Where Lloyd's iterations ended."""

    centres_NW: Floats
    iterations: int


def nearest(rows_RW: Floats, centres_NW: Floats) -> Labels:
    """Number (R,) of the nearest centre."""
    squared_N = np.einsum("nw,nw->n", centres_NW, centres_NW)
    labels_R = np.empty(len(rows_RW), np.int64)
    for start in range(0, len(rows_RW), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        labels_R[chunk] = (squared_N - 2 * (rows_RW[chunk] @ centres_NW.T)).argmin(1)
    return labels_R


def shares_of(rows_RW: Floats, labels_R: Labels, size: int, inertia: float = 0.0) -> Shares:
    """Sums and numbers of the rows of each label."""
    sums_NW = np.zeros((size, rows_RW.shape[1]))
    for start in range(0, len(rows_RW), CHUNK_ROWS):
        chunk = rows_RW[start : start + CHUNK_ROWS].astype(np.float64)
        of_row = labels_R[start : start + CHUNK_ROWS]
        member_RN = csr_array((np.ones(len(chunk)), of_row, np.arange(len(chunk) + 1)), shape=(len(chunk), size))
        sums_NW += member_RN.T @ chunk
    return Shares(sums_NW, np.bincount(labels_R, minlength=size), inertia)


def squared_distances(rows_RW: Floats, centres_NW: Floats, labels_R: Labels) -> npt.NDArray[np.float32]:
    """Of each row to its own centre."""
    difference_RW = rows_RW - centres_NW[labels_R]
    distance_R: npt.NDArray[np.float32] = np.einsum("rw,rw->r", difference_RW, difference_RW)
    return distance_R


def assigned(rows_RW: Floats, centres: Mapping[int, Floats]) -> dict[int, Shares]:
    """What these rows add to the clusters of each size."""
    labels = {size: nearest(rows_RW, centres_NW) for size, centres_NW in centres.items()}
    return {size: shares_of(rows_RW, labels_R, size) for size, labels_R in labels.items()}


@dataclass(frozen=True)
class Farthest:
    """Rows that are farthest from their centres, farthest first."""

    distance_F: npt.NDArray[np.float32]
    label_F: Labels
    rows_FW: Floats


def farthest(rows_RW: Floats, centres_NW: Floats, wanted: int) -> Farthest:
    """The ``wanted`` farthest rows of a block, or all where it has fewer; the first of equals first."""
    labels_R = nearest(rows_RW, centres_NW)
    distance_R = squared_distances(rows_RW, centres_NW, labels_R)
    order_F = np.argsort(-distance_R, kind="stable")[:wanted]
    return Farthest(distance_R[order_F], labels_R[order_F], rows_RW[order_F])


def lloyd(
    first: Mapping[int, Floats],
    tolerance: float,
    assign: Callable[[Mapping[int, Floats]], Iterable[dict[int, Shares]]],
    find_farthest: Callable[[Floats, int], Iterable[Farthest]],
) -> dict[int, Clusters]:
    """Clusters of every size, all sizes in one pass over the blocks at a time.

    Args:
        first: centres to start from, by size.
        tolerance: squared shift of all centres together at which a size is done.
        assign: ``assigned`` of every block, in order.
        find_farthest: ``farthest`` of every block, in order.
    """
    centres, ended = dict(first), dict[int, Clusters]()
    for iteration in range(1, MAX_ITERATIONS + 1):
        totals = added_up(assign(centres))
        for size, total in totals.items():
            moved_NW = _means(total, centres[size], find_farthest)
            shift = float(np.square(moved_NW - centres[size]).sum(dtype=np.float64))
            centres[size] = moved_NW
            if shift <= tolerance or iteration == MAX_ITERATIONS:
                ended[size] = Clusters(centres.pop(size), iteration)
        if not centres:
            break
    return ended


def added_up(of_blocks: Iterable[dict[int, Shares]]) -> dict[int, Shares]:
    """Shares of all blocks, added in their order."""
    blocks: Iterator[dict[int, Shares]] = iter(of_blocks)
    totals = next(blocks)
    for of_block in blocks:
        totals = {size: total + of_block[size] for size, total in totals.items()}
    return totals


def _means(total: Shares, centres_NW: Floats, find_farthest: Callable[[Floats, int], Iterable[Farthest]]) -> Floats:
    """Each cluster's mean; an empty one takes over the row that is farthest from its centre."""
    sums_NW, count_N = total.sums_NW, total.count_N.copy()
    empty = np.flatnonzero(count_N == 0)
    if len(empty):
        found = list(find_farthest(centres_NW, len(empty)))
        order = np.argsort(-np.concatenate([block.distance_F for block in found]), kind="stable")[: len(empty)]
        label_F = np.concatenate([block.label_F for block in found])[order]
        rows_FW = np.concatenate([block.rows_FW for block in found])[order]
        for cluster, old, row_W in zip(empty, label_F, rows_FW, strict=True):
            sums_NW[old] -= row_W
            count_N[old] -= 1
            sums_NW[cluster], count_N[cluster] = row_W, 1
    # A cluster that gave its only row away keeps its place, and is empty in the next pass.
    means_NW = np.where(count_N[:, None] > 0, sums_NW / np.maximum(count_N, 1)[:, None], centres_NW)
    return means_NW.astype(np.float32)
