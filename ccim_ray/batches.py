"""Batches of a trial's inputs: which subjects they hold, and how they reach the device.

Shape suffixes: B batch, K categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccim_ray.errors import RequestError
from ccim_ray.prepared import TrialInputs

Batch = tuple[dict[str, Tensor], Tensor]
"""The rows of every view, and the targets (B, K) float32."""

Item = TypeVar("Item")


class Batches:
    """One process's share of every whole batch of the train split.

    The remainder of an epoch is left out, as batch norm asks for; the order is a function of (seed, epoch).

    Args:
        rows: row numbers of the split's usable subjects.
        size: subjects of a batch, over all processes.

    Raises:
        RequestError: there are fewer than two subjects for each process.
    """

    def __init__(
        self, rows: npt.NDArray[np.int64], size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if len(rows) < 2 * world_size:
            raise RequestError(
                f"the train split has {len(rows)} usable subjects, and batch norm needs two for each of "
                f"{world_size} workers; add images"
            )
        self._rows, self._seed, self._rank, self._world_size = rows, seed, rank, world_size
        self._size = min(size, len(rows) // world_size * world_size)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._rows) // self._size

    def of_epoch(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Row numbers of each of this process's batches."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
        for step in range(len(self)):
            batch = order[step * self._size : (step + 1) * self._size]
            yield batch[self._rank :: self._world_size]


def on_device(
    inputs: TrialInputs, rows_of_batches: Iterable[npt.NDArray[np.int64]], device: torch.device
) -> Iterator[Batch]:
    """Each batch on its device. A GPU computes on one while the next is read into pinned memory."""
    on_gpu = device.type == "cuda"
    read = (_read(inputs, rows, pinned=on_gpu) for rows in rows_of_batches)
    for views, targets_BK in one_ahead(read) if on_gpu else read:
        yield (
            {name: view.to(device, non_blocking=True) for name, view in views.items()},
            targets_BK.to(device, non_blocking=True),
        )


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in the same order; a thread makes the next one meanwhile. An error is raised at its item."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def _read(inputs: TrialInputs, rows: npt.NDArray[np.int64], *, pinned: bool) -> Batch:
    views = {name: torch.from_numpy(view.take(rows)) for name, view in inputs.views.items()}
    targets_BK = torch.from_numpy(inputs.index.targets[rows])
    if pinned:
        return {name: view.pin_memory() for name, view in views.items()}, targets_BK.pin_memory()
    return views, targets_BK
