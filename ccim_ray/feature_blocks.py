"""A view's features as blocks that are read when they are needed: consecutive shards, without what is unusable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ccim_ray.errors import RequestError
from ccim_ray.prepared import read_shard
from ccim_ray.principal_components import rows_of_a_block


@dataclass(frozen=True)
class FeatureBlock:
    """Features of the chosen subjects of a few shards; calling it reads them.

    Attributes:
        shards: each shard's file, and which of its rows are chosen.
        width: of a feature (D).
    """

    shards: tuple[tuple[str, npt.NDArray[np.bool_]], ...]
    width: int

    @property
    def most_rows(self) -> int:
        """Rows that are chosen; fewer are read where images were unusable."""
        return sum(int(chosen.sum()) for _, chosen in self.shards)

    def __call__(self) -> npt.NDArray[np.float32]:
        """(rows, D). Raises RequestError where a shard is damaged."""
        parts = [np.empty((0, self.width), np.float32)]
        for path, chosen in self.shards:
            if chosen.any():
                table = read_shard(Path(path))
                usable = np.array([reason is None for reason in table["reason"].to_pylist()])
                parts.append(table["rows"].combine_chunks().to_numpy_ndarray()[chosen & usable])
        return np.concatenate(parts)


def feature_blocks(folder: Path, chosen: npt.NDArray[np.bool_]) -> list[FeatureBlock]:
    """Blocks of a view's features in ``folder``, a row of ``chosen`` for each subject.

    Raises RequestError where a shard is damaged or rows are missing.
    """
    paths = sorted(folder.glob("shard-*.parquet"))
    try:
        width = int(pq.read_schema(paths[0]).field("rows").type.shape[0])
        ends = np.cumsum([pq.read_metadata(path).num_rows for path in paths])
    except (pa.ArrowException, OSError, IndexError) as error:
        raise RequestError(f"{folder}: a shard is missing or damaged ({error}); delete it and run again") from error
    if ends[-1] != len(chosen):
        raise RequestError(
            f"{folder} holds {ends[-1]} rows that do not match the {len(chosen)} subjects; delete it and run again"
        )
    of_shards = np.split(chosen, ends[:-1])
    shards_of_a_block = max(1, rows_of_a_block(width) // len(of_shards[0]))
    return [
        FeatureBlock(
            tuple(zip(map(str, paths[k : k + shards_of_a_block]), of_shards[k : k + shards_of_a_block], strict=True)),
            width,
        )
        for k in range(0, len(paths), shards_of_a_block)
    ]


def read_together(blocks: Sequence[FeatureBlock]) -> npt.NDArray[np.float32]:
    """Rows of all blocks in one array, which is made once: beside it, only one block is held."""
    features_MD = np.empty((sum(block.most_rows for block in blocks), blocks[0].width), np.float32)
    rows = 0
    for block in blocks:
        part = block()
        features_MD[rows : rows + len(part)] = part
        rows += len(part)
    return features_MD[:rows]
