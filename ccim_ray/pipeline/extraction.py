"""Views of all subjects with Ray Data: one decode of an image serves every view that is missing.

A row of the Ray Dataset is one shard of subjects, and an actor writes each shard as a file of its own, so that
what is finished stays finished: an interrupted or damaged extraction goes on with exactly the shards that lack.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from ccim_ray.console import say, stage
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.depth import require_depth_pictures
from ccim_ray.datasets.subject import Subject, subjects_from_table, subjects_to_table
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest, is_geometry
from ccim_ray.plan import SHARD_SUBJECTS, PlannedView
from ccim_ray.prepared import read_shard, write_shard
from ccim_ray.rates import Rates
from ccim_ray.resources import ClusterResources


def missing_shards(views: Sequence[PlannedView], subjects: int) -> list[tuple[int, tuple[int, ...]]]:
    """Numbers of the shards that some view lacks, each with the numbers of those views.

    Every shard that is there is read; of those that are damaged is told, for they are made again.
    """
    numbers = range(-(-subjects // SHARD_SUBJECTS))
    paths = [shard_path(view, number) for number in numbers for view in views]
    with ThreadPoolExecutor() as threads:  # digests are computed without Python's lock
        usable = iter(list(threads.map(_is_usable, paths)))
    missing = []
    for number in numbers:
        lacking = tuple(k for k in range(len(views)) if not next(usable))
        if lacking:
            missing.append((number, lacking))
    return missing


def _is_usable(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        read_shard(path)
    except RequestError as error:
        say(f"  made again: {str(error).partition(';')[0]}")
        return False
    return True


def shard_path(view: PlannedView, number: int) -> Path:
    """File of one shard of a view."""
    return view.folder / f"shard-{number:05d}{view.request.suffix}"


def extract_views(
    dataset: Dataset,
    views: Sequence[PlannedView],
    cluster: ClusterResources,
    weights_dir: Path | None,
    rates: Rates,
) -> None:
    """Make every view that is missing, in one pass over the images.

    Runs one actor a GPU where there are GPUs, one a core where not. Raises RequestError before it starts where a
    depth picture is missing, or the depth model cannot be used.
    """
    shards = missing_shards(views, len(dataset.subjects))
    if shards:
        _require_depth(dataset, views)
        titles = ", ".join(views[k].request.title for k in sorted({k for _, lacking in shards for k in lacking}))
        say(f"Extracting {titles}")
        rows = [_shard_row(dataset, number, lacking) for number, lacking in shards]
        with stage("extract", "subjects", sum(row["count"] for row in rows)) as progress:
            weights = str(weights_dir) if weights_dir else None
            actors = min(len(rows), cluster.gpus or cluster.cpus)
            written = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _ShardWriter,
                fn_constructor_args=(str(dataset.root), list(views), weights, cluster.gpus > 0),
                batch_size=1,
                num_cpus=1,
                num_gpus=1 if cluster.gpus else 0,
                compute=ray.data.ActorPoolStrategy(size=actors),
            )
            for row in written.iter_rows():
                progress.advance(int(row["subjects"]))
        pictured = [k for k, view in enumerate(views) if not is_geometry(view.request.view)]  # geometry costs nothing
        arches = {(views[k].request.arch, "features" if views[k].request.weights else "pictures") for k in pictured}
        if len(arches) == 1:  # one pass over several networks says nothing about any of them
            made = sum(k in pictured for _, lacking in shards for k in lacking) / len(shards) * progress.done
            rates.record("extract/" + "/".join(next(iter(arches))), made, progress.seconds)


def _require_depth(dataset: Dataset, views: Sequence[PlannedView]) -> None:
    models = {view.request.depth_model for view in views if view.request.view == "depth"}
    for model in models:
        if model is None:
            require_depth_pictures(dataset.subjects, dataset.root)
        else:
            from ccim_ray.perception.depth_model import check_depth_model

            check_depth_model(Path(model))


def report_unusable(
    dataset: Dataset, reasons: Sequence[str | None], needed: Sequence[str] = ("train", "val")
) -> dict[str, int]:
    """Count, name and group the subjects whose image was unusable: dropping them may bias groups.

    Returns counts by "split/category". Raises RequestError where a split that is needed has no usable subject.
    """
    by_group: Counter[str] = Counter()
    usable: Counter[str] = Counter()
    bad = []
    for subject, reason in zip(dataset.subjects, reasons, strict=True):
        if reason is None:
            usable[subject.split] += 1
        else:
            bad.append(f"{subject.image} ({reason})")
            by_group.update(f"{subject.split}/{label}" for label in subject.labels)
    if bad:
        images = list(dict.fromkeys(bad))
        plural = "s" if len(images) > 1 else ""
        say(f"  {len(bad)} of {len(dataset.subjects)} subjects left out: {len(images)} unusable image{plural}")
        for line in images[:5]:
            say(f"    {line}")
        say("    by group: " + ", ".join(f"{group} {count}" for group, count in sorted(by_group.items())))
    for split in needed:
        if not usable[split]:
            first = f"; the first: {bad[0]}" if bad else ""
            raise RequestError(f"{dataset.root}: no usable image in the split {split!r}{first}")
    return dict(by_group)


def add_unusable(defects: Defects, dataset: Dataset, reasons: Sequence[str | None]) -> None:
    """Count each image that was unusable once among the defects, under its reason."""
    found: dict[str, tuple[str, str]] = {}
    for subject, reason in zip(dataset.subjects, reasons, strict=True):
        if reason:
            found.setdefault(subject.image, (reason, subject.split))
    for image, (reason, split) in found.items():
        defects.add(reason, image, split)


def _shard_row(dataset: Dataset, number: int, lacking: tuple[int, ...]) -> dict[str, Any]:
    subjects = dataset.subjects[number * SHARD_SUBJECTS : (number + 1) * SHARD_SUBJECTS]
    return {
        "number": number,
        "count": len(subjects),
        "lacking": json.dumps(lacking),
        "subjects": packed_subjects(subjects),
    }


def packed_subjects(subjects: Sequence[Subject]) -> bytes:
    """Subjects as a cell of a Ray Dataset holds them."""
    sink = pa.BufferOutputStream()
    table = subjects_to_table(subjects)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpacked_subjects(content: bytes) -> tuple[Subject, ...]:
    """The inverse of packed_subjects."""
    with pa.ipc.open_stream(content) as reader:
        return subjects_from_table(reader.read_all())


class _ShardWriter:
    """Ray Data actor: makes the lacking views of a shard and writes them."""

    def __init__(self, root: str, views: list[PlannedView], weights_dir: str | None, use_gpu: bool) -> None:
        import torch

        from ccim_ray.perception.views import ViewMaker

        torch.set_num_threads(1)
        device = torch.device("cuda" if use_gpu else "cpu")
        requests: list[ViewRequest] = [view.request for view in views]
        self._views = views
        self._maker = ViewMaker(Path(root), requests, Path(weights_dir) if weights_dir else None, device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = []
        for number, lacking, subjects in zip(batch["number"], batch["lacking"], batch["subjects"], strict=True):
            unpacked, wanted = unpacked_subjects(subjects), json.loads(lacking)
            rows, reasons = self._maker.make(unpacked, wanted)
            ids = [subject.subject_id for subject in unpacked]
            for k, array, of_view in zip(wanted, rows, reasons, strict=True):
                write_shard(shard_path(self._views[k], int(number)), ids, array, of_view)
            counts.append(len(unpacked))
        return {"subjects": np.array(counts)}
