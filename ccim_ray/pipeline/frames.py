"""Decoding the frames that a dataset needs of its videos with Ray Data: in parallel and resumed video by video."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from ccim_ray.console import say, stage
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.video_frames import count_lost, needed_frames, open_frames, write_frames
from ccim_ray.errors import RequestError
from ccim_ray.rates import Rates


def extract_frames(dataset: Dataset, root: Path, rates: Rates) -> Dataset:
    """Write the frames that are still missing under ``root``; returns the dataset with that root.

    A dataset of pictures is returned as it is. Frames that cannot be had are counted among the defects; the
    extraction leaves their subjects out, as those of any picture that is missing. Raises RequestError where none
    of the frames can be had.
    """
    if not dataset.videos:
        return dataset
    tasks = open_frames(dataset, root)
    if tasks:
        say(f"Decoding frames of {len(tasks)} videos to {root}")
        with stage("decode", "frames", sum(len(task.numbers) for task in tasks)) as progress:
            written = ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks)).map(
                _write_frames_task,  # type: ignore[arg-type]  # Ray types only functions without arguments of their own
                fn_kwargs={"source": str(dataset.root), "root": str(root)},
                num_cpus=1,
            )
            for row in written.iter_rows():
                progress.advance(row["frames"])
        rates.record("decode", progress.done, progress.seconds)
    defects = deepcopy(dataset.defects)
    if not count_lost(dataset, root, defects):
        found = ", ".join(f"{count} x {kind}" for kind, count in defects.counts.items())
        frames = sum(len(needed.numbers) for needed in needed_frames(dataset))
        raise RequestError(
            f"{dataset.root}: none of the {frames} frames needed of {len(dataset.videos)} videos can be decoded "
            f"({found}); check the video files"
        )
    return replace(dataset, root=root, defects=defects)


def _write_frames_task(row: dict[str, Any], source: str, root: str) -> dict[str, int]:
    numbers = np.asarray(row["numbers"]).tolist()
    write_frames(Path(source) / row["video"], Path(root) / row["folder"], numbers)
    return {"frames": len(numbers)}
