"""Persons whose boxes or poses are missing, found with Ray Data: an actor writes a file per shard of pictures.

What is finished stays finished: an interrupted or damaged detection goes on with exactly the shards that lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data

from ccim_ray.console import say, stage
from ccim_ray.datasets.images import ImageArray, UnreadableImage, read_rgb
from ccim_ray.perception.detection_files import (
    LackingDetectionsError,
    PictureDetections,
    PlannedDetections,
    write_detections,
)
from ccim_ray.perception.person_matching import Persons
from ccim_ray.rates import Rates
from ccim_ray.resources import ClusterResources

if TYPE_CHECKING:
    import torch


def detect_persons(
    planned: PlannedDetections, root: Path, cluster: ClusterResources, weights_dir: Path | None, rates: Rates
) -> None:
    """Make every shard that is missing or damaged; where there is none, no weights are needed.

    Args:
        root: folder that the pictures' paths are relative to.

    Runs one actor a GPU where there are GPUs, one a core where not. Raises RequestError where the weights cannot be
    read or downloaded.
    """
    missing = [number for number in range(planned.shards) if not _is_usable(planned, number)]
    if not missing:
        return
    from ccim_ray.perception.detection import read_detector_state

    say(f"Looking for persons with {planned.box_source}")
    # Read once, here: no other machine needs the file or the network, and what is wrong is said before actors start.
    weights = ray.put(read_detector_state(planned.detector, weights_dir, planned.without))
    actors = min(len(missing), cluster.gpus or cluster.cpus)
    # A GPU is fast enough to wait for pictures; without one, the core that decodes is the one that detects.
    cpus = max(1, cluster.cpus // actors) if cluster.gpus else 1
    rows = [{"number": number} for number in missing]
    with stage("detect", "pictures", sum(len(planned.shard_images(number)) for number in missing)) as progress:
        written = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _ShardDetector,
            fn_constructor_args=(str(root), planned, weights, cluster.gpus > 0, cpus),
            batch_size=1,
            num_cpus=cpus,
            num_gpus=1 if cluster.gpus else 0,
            compute=ray.data.ActorPoolStrategy(size=actors),
        )
        for row in written.iter_rows():
            progress.advance(int(row["pictures"]))
    rates.record(f"detect/{planned.detector}", progress.done, progress.seconds)


def _is_usable(planned: PlannedDetections, number: int) -> bool:
    """Whether the shard is there; of one that is damaged is told, for it is made again."""
    if not planned.shard_path(number).exists():
        return False
    try:
        planned.read_shard(number)
    except LackingDetectionsError as error:
        say(f"  made again: {str(error).rpartition(';')[0]}")
        return False
    return True


class _ShardDetector:
    """Ray Data actor: finds the persons in the pictures of a shard and writes them."""

    def __init__(
        self,
        root: str,
        planned: PlannedDetections,
        weights: ray.ObjectRef[tuple[dict[str, torch.Tensor], str]],
        use_gpu: bool,
        decoders: int,
    ) -> None:
        import torch

        from ccim_ray.perception.detection import PersonDetector, assemble_detector

        torch.set_num_threads(1)
        self._root, self._planned, self._decoders = Path(root), planned, decoders
        network = assemble_detector(planned.detector, *ray.get(weights))
        self._detector = PersonDetector(network, torch.device("cuda" if use_gpu else "cpu"))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = []
        for number in batch["number"]:
            images = self._planned.shard_images(int(number))
            write_detections(self._planned.shard_path(int(number)), images, self._detections(images))
            counts.append(len(images))
        return {"pictures": np.array(counts)}

    def _detections(self, images: tuple[str, ...]) -> list[PictureDetections]:
        found: dict[str, PictureDetections] = {}
        decoded: list[str] = []

        def pictures() -> Iterator[ImageArray]:
            for image, picture in zip(images, self._pictures(images), strict=True):
                if isinstance(picture, UnreadableImage):
                    found[image] = PictureDetections(_NOBODY, picture.reason)
                else:
                    decoded.append(image)
                    yield picture

        for number, persons in self._detector.detect(pictures()):
            found[decoded[number]] = PictureDetections(persons)
        return [found[image] for image in images]

    def _pictures(self, images: tuple[str, ...]) -> Iterator[ImageArray | UnreadableImage]:
        paths = [self._root / image for image in images]
        if self._decoders == 1:
            yield from map(_read, paths)
            return
        with ThreadPoolExecutor(self._decoders) as pool:
            yield from pool.map(_read, paths)


_NOBODY = Persons(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def _read(path: Path) -> ImageArray | UnreadableImage:
    try:
        return read_rgb(path)
    except UnreadableImage as failure:
        return failure
