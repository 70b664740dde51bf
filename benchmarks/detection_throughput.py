"""What detection over Ray Data costs beside the network itself: images a second of both, side by side.

    python benchmarks/detection_throughput.py [--images 128] [--detector fasterrcnn_mobilenet_v3_large_320_fpn]

Runs (a) the stage that a job runs, from files on disk to shards on disk, once its actors are up, and (b) the bare
network on pictures that already lie in memory (on the GPU where there is one), in as many processes of one thread as
(a) has actors, on the same cores or GPU, with the same batches. Prints (a) / (b). The weights are initialised here
and find nobody in particular: how long a network takes does not depend on their values, but for the few candidates
that are left to choose from. One pass of each is discarded as warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch
from PIL import Image
from safetensors.torch import save_file

from ccim_ray.console import say
from ccim_ray.perception.detection import FORWARD_BATCH, as_input, build_detector, load_detector
from ccim_ray.perception.detection_files import PlannedDetections
from ccim_ray.perception.weight_files import DETECTOR_FILES
from ccim_ray.pipeline.cluster import join_cluster
from ccim_ray.pipeline.detection import detect_persons
from ccim_ray.rates import Rates
from ccim_ray.resources import ClusterResources

WIDTH, HEIGHT = 712, 400
"""Of CAER-S."""


def write_pictures(root: Path, count: int) -> tuple[str, ...]:
    """Pictures as large as CAER-S's that compress like photographs: coarse colours under fine noise."""
    generator = np.random.default_rng(0)
    names = []
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 20, 3), dtype=np.uint8))
        smooth_HWC = np.array(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy_HWC = smooth_HWC + generator.integers(-6, 7, smooth_HWC.shape)
        names.append(f"{number:05}.png")
        Image.fromarray(noisy_HWC.clip(0, 255).astype(np.uint8)).save(root / names[-1])
    return tuple(names)


@ray.remote(num_cpus=0)  # it works when the stage does not, and must not keep the stage's resources
class BareNetwork:
    """The network on pictures in memory, in a process with one thread."""

    def __init__(self, detector: str, weights_dir: Path, root: Path, names: tuple[str, ...], device: str) -> None:
        torch.set_num_threads(1)
        self._network = load_detector(detector, weights_dir, torch.device(device)).network
        pictures = [np.array(Image.open(root / name)) for name in names]
        self._pictures = [as_input(torch.from_numpy(picture).to(device)) for picture in pictures]

    @torch.inference_mode()
    def run(self) -> int:
        """Detect in all pictures; returns the number of persons."""
        persons = 0
        for start in range(0, len(self._pictures), FORWARD_BATCH):
            found = self._network(self._pictures[start : start + FORWARD_BATCH])
            persons += sum(int((one["labels"] == 1).sum()) for one in found)
        return persons


def seconds_bare(actors: list[ray.actor.ActorHandle]) -> float:
    """One pass over all pictures by all processes at once."""
    started = time.perf_counter()
    ray.get([actor.run.remote() for actor in actors])
    return time.perf_counter() - started


def seconds_of_the_stage(
    planned: PlannedDetections, root: Path, cluster: ClusterResources, weights_dir: Path, first: int
) -> float:
    """Time from the first ``first`` shards that are there to the last: what starting Ray's actors takes is left out."""
    detect_persons(planned, root, cluster, weights_dir, Rates(planned.folder / "rates.json"))
    written = sorted(path.stat().st_mtime_ns for path in planned.folder.glob("shard-*"))
    return (written[-1] - written[first - 1]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128, help="pictures of a pass that are timed")
    parser.add_argument("--shard-size", type=int, default=16)
    parser.add_argument("--detector", choices=DETECTOR_FILES, default="fasterrcnn_mobilenet_v3_large_320_fpn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    cluster = join_cluster()
    workers = cluster.gpus or cluster.cpus
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        torch.manual_seed(0)
        save_file(build_detector(flags.detector).state_dict(), root / f"{flags.detector}_coco.safetensors")
        first = workers  # the shards that each actor begins with
        names = write_pictures(root, flags.images + first * flags.shard_size)
        timed = names[: flags.images]
        devices = [f"cuda:{number}" if cluster.gpus else "cpu" for number in range(workers)]
        actors = [
            BareNetwork.remote(flags.detector, root, root, timed[number::workers], device)
            for number, device in enumerate(devices)
        ]
        stage, bare = [], []
        for repeat in range(flags.repeats + 1):
            planned = PlannedDetections(flags.detector, root / str(repeat), names, flags.shard_size)
            rates = (
                len(timed) / seconds_of_the_stage(planned, root, cluster, root, first),
                len(timed) / seconds_bare(actors),
            )
            if repeat:  # the first is warm-up
                stage.append(rates[0])
                bare.append(rates[1])
            say(f"  {repeat or 'warm-up'}: stage {rates[0]:.2f}, bare network {rates[1]:.2f} pictures/s")
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {cluster.gpus} GPUs",
        "detector": flags.detector,
        "images": flags.images,
        "workers": workers,
        "stage_images_per_s": round(statistics.median(stage), 2),
        "bare_images_per_s": round(statistics.median(bare), 2),
        "stage_over_bare": round(statistics.median(stage) / statistics.median(bare), 3),
    }
    say(json.dumps(figures, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
