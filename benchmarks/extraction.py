"""Extraction of context features by the platform, against a DataLoader loop and against the bare network.

    python benchmarks/extraction.py [--images 4000] [--arch thin_resnet] [--repeats 1] [--json FILE]

Every side runs in a process of its own, on the same pictures of the embedded world and the same untrained network:

* ours: Ray starts, one actor a core (or GPU) decodes, masks, resizes, computes, and writes shards of 128 subjects;
* loader: what one would write, a torch DataLoader with as many worker processes that decode, mask and resize, the
  network in the main process with as many threads (or on the GPU), the features saved at the end;
* bare: the network alone on pictures in memory (on the GPU where there is one), in as many processes of one thread.

"end to end" is each side's whole wall time from the start of Python to its exit. "steady" is the rate without any
start: of ours after the first shard of each actor, of the loader after its first two batches. From both comes what
10,000 subjects would take, start included: that figure is calculated. Ours and the bare network are also run with one
worker, in the first repeat, so that what a second one gains is compared with what the machine gives it. Features of
all sides are checked equal before any ratio is printed. One run of the loader is discarded as warm-up: pictures in
the system's cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measurement import machine, write_figures
from torch.utils.data import DataLoader, Dataset

from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.images import read_rgb
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.perception.architectures import ViewRequest, architecture, frame_view
from ccim_ray.perception.backbones import Backbone
from ccim_ray.perception.views import FORWARD_BATCH
from ccim_ray.perception.weights import load_backbone

VIEW = "masked_context"
WARM_UP = "loader"


class MaskedContexts(Dataset):
    """The picture of each subject as the network takes it, the subject in black."""

    def __init__(self, root: Path, subjects: tuple[Subject, ...], arch: str) -> None:
        self.root, self.subjects, self.arch = root, subjects, architecture(arch)

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, row: int) -> np.ndarray:
        subject = self.subjects[row]
        return frame_view(VIEW, read_rgb(self.root / subject.image), subject, self.arch)


@torch.inference_mode()
def features_of(backbone: Backbone, pictures: torch.Tensor) -> torch.Tensor:
    return backbone.features(backbone.normalise(pictures), "pooled")


def by_us(root: Path, arch: str, workers: int, device: str, out: Path) -> dict[str, float]:
    """The platform's stage; the rate after the first shard of each actor."""
    from ccim_ray.pipeline.cluster import join_cluster
    from ccim_ray.pipeline.extraction import extract_views
    from ccim_ray.plan import SHARD_SUBJECTS, PlannedView
    from ccim_ray.prepared import read_shards
    from ccim_ray.rates import Rates
    from ccim_ray.resources import ClusterResources

    join_cluster()
    dataset = load_dataset("confounded_scenes", root)
    view = PlannedView(ViewRequest(VIEW, arch, "random"), "view", out.with_suffix(""))
    gpus = workers if device == "cuda" else 0
    extract_views(dataset, [view], ClusterResources(workers, gpus), None, Rates(out.with_suffix(".rates")))
    written = sorted(path.stat().st_mtime_ns for path in view.folder.glob("shard-*"))
    subjects = len(dataset.subjects)
    rows = read_shards(view.folder, tuple(subject.subject_id for subject in dataset.subjects))
    np.save(out, rows.take(np.arange(subjects)))
    timed = len(written) - workers
    spent = (written[-1] - written[workers - 1]) / 1e9
    return {"steady_per_s": timed * SHARD_SUBJECTS / spent if timed > 0 and spent else float("nan")}


def by_loader(root: Path, arch: str, workers: int, device: str, out: Path) -> dict[str, float]:
    """A DataLoader loop."""
    torch.set_num_threads(workers)
    backbone = load_backbone(arch, "random").eval().to(device)
    pictures = MaskedContexts(root, load_dataset("confounded_scenes", root).subjects, arch)
    loader = DataLoader(pictures, FORWARD_BATCH, num_workers=workers, pin_memory=device == "cuda")
    made, ends = [], []
    for batch in loader:
        made.append(features_of(backbone, batch.to(device, non_blocking=True)).float().cpu().numpy())
        ends.append(time.perf_counter())
    np.save(out, np.concatenate(made))
    timed = sum(map(len, made[2:]))
    return {"steady_per_s": timed / (ends[-1] - ends[1]) if timed else float("nan")}


def by_bare_network(root: Path, arch: str, workers: int, device: str, out: Path) -> dict[str, float]:
    """The network alone, in ``workers`` processes of one thread at once, each on its share of the pictures."""
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--share", str(root), arch, f"{number}/{workers}", device, str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    for child in children:
        child.stdout.readline()  # its pictures are in memory
    started = time.perf_counter()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.stdout.readline()
    seconds = time.perf_counter() - started
    parts = []
    for number, child in enumerate(children):
        child.communicate()
        parts.append(np.load(f"{out}.{number}.npy"))
    made = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    for number, part in enumerate(parts):
        made[number::workers] = part
    np.save(out, made)
    return {"steady_per_s": len(made) / seconds}


def share(root: Path, arch: str, part: str, device: str, out: str) -> None:
    """One process of the bare network: says when its pictures are in memory, waits, computes, says when it is done."""
    number, workers = map(int, part.split("/"))
    torch.set_num_threads(1)
    backbone = load_backbone(arch, "random").eval().to(device)
    pictures = MaskedContexts(root, load_dataset("confounded_scenes", root).subjects[number::workers], arch)
    resident = torch.from_numpy(np.stack([pictures[row] for row in range(len(pictures))])).to(device)
    features_of(backbone, resident[:FORWARD_BATCH])
    print("ready", flush=True)
    sys.stdin.readline()
    made = [features_of(backbone, batch).float() for batch in resident.split(FORWARD_BATCH)]
    features = torch.cat(made).cpu()  # waits for the GPU
    print("done", flush=True)
    np.save(f"{out}.{number}.npy", features.numpy())


SIDES = {"ours": by_us, "loader": by_loader, "bare": by_bare_network}


def run_side(side: str, root: Path, arch: str, workers: int, device: str, out: Path) -> dict[str, float]:
    """A process that does nothing else; its wall time, start of Python included."""
    command = [sys.executable, __file__, "--alone", side, str(root), arch, str(workers), device, str(out)]
    started = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"seconds": time.perf_counter() - started, **json.loads(ended.stdout.splitlines()[-1])}


def sides(workers: int, repeat: int) -> Iterator[tuple[str, str, int]]:
    """Name of a row, its side, and how many workers it has."""
    yield from (("ours", "ours", workers), ("loader", "loader", workers), ("bare", "bare", workers))
    if workers > 1 and repeat <= 1:
        yield from (("ours, one actor", "ours", 1), ("bare, one process", "bare", 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--arch", default="thin_resnet", help="the default is what the embedded world uses on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="actors; processes of the DataLoader; threads")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--alone", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--share", nargs=5, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.share:
        root, *rest = flags.share
        return share(Path(root), *rest)
    if flags.alone:
        side, root, arch, workers, device, out = flags.alone
        print(json.dumps(SIDES[side](Path(root), arch, int(workers), device, Path(out))))
        return None
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave the flag out to measure on the CPU")
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "world"
        write_world(WorldSettings(images=flags.images), root)
        subjects = len(load_dataset("confounded_scenes", root).subjects)
        say(f"{machine(flags.device)}; {subjects} subjects, {flags.arch}, {flags.workers} workers")
        for repeat in range(flags.repeats + 1):
            found = {}
            for name, side, workers in sides(flags.workers, repeat):
                if repeat == 0 and name != WARM_UP:
                    continue
                out = Path(temporary) / f"{repeat}-{name}.npy"
                run = run_side(side, root, flags.arch, workers, flags.device, out)
                found[name] = np.load(out)
                if repeat:
                    runs.setdefault(name, []).append(run)
                say(f"  {repeat or 'warm-up'}: {name} {run['seconds']:.1f} s")
            for name, features in found.items() if repeat else ():
                difference = np.abs(features - found["ours"]).max() / np.abs(found["ours"]).max()
                if features.shape != found["ours"].shape or not difference < 1e-3:
                    raise SystemExit(f"{name}: features differ from ours by {difference:.2g} of the largest")
    row = summary(runs, subjects, flags.arch, flags.workers)
    say(json.dumps(row, indent=1))
    repeats = {name: len(of_side) for name, of_side in runs.items()}
    write_figures(flags.json, "extraction", flags.device, [row], repeats)
    return None


def summary(runs: dict[str, list[dict[str, float]]], subjects: int, arch: str, workers: int) -> dict[str, object]:
    """Medians over the repeats, and the ratios of the table."""

    def median(name: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[name])

    row: dict[str, object] = {
        "subjects": subjects,
        "arch": arch,
        "workers": workers,
        **{f"{name.replace(', ', '_').replace(' ', '_')}_s": round(median(name, "seconds"), 2) for name in runs},
        "ours_steady_per_s": round(median("ours", "steady_per_s"), 1),
        "loader_steady_per_s": round(median("loader", "steady_per_s"), 1),
        "bare_per_s": round(median("bare", "steady_per_s"), 1),
        "over_bare": round(median("ours", "steady_per_s") / median("bare", "steady_per_s"), 3),
        "over_loader_end_to_end": round(median("loader", "seconds") / median("ours", "seconds"), 3),
    }

    def of_10_000(name: str) -> float:
        rate = median(name, "steady_per_s")
        return median(name, "seconds") + (10_000 - subjects) / rate

    row["over_loader_of_10_000"] = round(of_10_000("loader") / of_10_000("ours"), 3)
    if "ours, one actor" in runs:
        ours = median("ours", "steady_per_s") / median("ours, one actor", "steady_per_s")
        bare = median("bare", "steady_per_s") / median("bare, one process", "steady_per_s")
        row |= {"actors_gain": round(ours, 3), "bare_gain": round(bare, 3), "gain_over_bare": round(ours / bare, 3)}
    return row


if __name__ == "__main__":
    main()
