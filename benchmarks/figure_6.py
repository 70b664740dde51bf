"""The whole of Fig. 6 from pictures on disk: the platform's job against a plain script that does the same.

    python benchmarks/figure_6.py [--images 600] [--epochs 15] [--sizes 16 32 64 128 256] [--json FILE]

Both sides find the same rendered world on disk and start as processes of their own, on the same cores.

* ours: ``jobs/sweep_dict_size.py --preset quick --seeds 0`` with these sizes from an empty storage: Ray and MLflow
  start, features are extracted once, dictionaries are built, and the trials run side by side. It trains two models
  more than Fig. 6 needs, the one without CCIM and the control "W_h alone", and writes tables and figures.
* plain: what one would write. One pass of a DataLoader extracts the masked contexts' features, scikit-learn's PCA and
  KMeans make a dictionary for each size, and the five models are trained one after the other. A DataLoader with two
  workers decodes and crops the image files in every epoch, the frozen trunks run in every epoch, and CCIM is the
  authors' broadcast form, written from its description in ccim_kernel.py. Two threads in the main process. It selects
  on validation, tests once, and prints accuracies: no tables, no tracking, no checkpoints.

Nothing is extrapolated: both sides run in full. Models, initial weights, epochs, batches, dropout and learning rates
are the same on both sides, and the losses of every epoch are checked to agree within 2 % before the ratio is
printed. The defaults are a smaller world than preset quick has (8000 pictures, N = 64 to 1024), so that the plain side
takes two minutes rather than fifteen; on a larger world the platform's start weighs less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ccim_kernel import broadcast_form
from measurement import machine, write_figures
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ccim_ray.batches import Batches
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.console import say
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.images import read_rgb
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import COUNTERFACTUAL, Subject
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.perception.architectures import architecture, frame_view
from ccim_ray.perception.weights import load_backbone
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage
from ccim_ray.training import learning_rate_factor, make_optimiser, seed_of
from ccim_ray.trial import build_recogniser

ROOT = Path(__file__).parent.parent
THREADS = 2
AGREEMENT = 0.02


class Pictures(Dataset):
    """The subjects' views, from the image files, and their category."""

    def __init__(self, root: Path, subjects: tuple[Subject, ...], categories: tuple[str, ...], views: dict[str, str]):
        self.root, self.subjects, self.views = root, subjects, views
        self.category_of = {name: k for k, name in enumerate(categories)}

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, row: int) -> tuple[dict[str, np.ndarray], int]:
        subject = self.subjects[row]
        picture = read_rgb(self.root / subject.image)
        views = {view: frame_view(view, picture, subject, architecture(arch)) for view, arch in self.views.items()}
        return views, self.category_of[subject.labels[0]]


class AuthorsForm(nn.Module):
    """CCIM as the authors write it, with the weights of ``ccim``."""

    def __init__(self, ccim: nn.Module) -> None:
        super().__init__()
        self.ccim = ccim

    def forward(self, joint_BH: Tensor) -> Tensor:
        return broadcast_form(self.ccim, joint_BH)


def experiment_of(images: int, epochs: int, size: int) -> Experiment:
    base = default_experiment("confounded_scenes", "quick", WorldSettings(images=images))
    return base.with_changes(dictionary__size=size, epochs=epochs)


def loader_of(pictures: Pictures, batches: list[list[int]]) -> DataLoader:
    # A generator of its own: the loader's seed would be drawn from the stream that dropout draws from.
    return DataLoader(pictures, batch_sampler=batches, num_workers=THREADS, generator=torch.Generator())


def in_order(rows: np.ndarray, size: int = 256) -> list[list[int]]:
    return [rows[start : start + size].tolist() for start in range(0, len(rows), size)]


def plain_dictionaries(
    root: Path, experiment: Experiment, sizes: list[int], train: np.ndarray
) -> dict[int, ConfounderDictionary]:
    """A pass over the masked contexts, PCA, and K-Means for each size."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    dataset = load_dataset("confounded_scenes", root)
    backbone = load_backbone(experiment.backbone.arch, experiment.backbone.weights).eval()
    pictures = Pictures(root, dataset.subjects, dataset.categories, {"masked_context": experiment.backbone.arch})
    with torch.inference_mode():
        made = [
            backbone.features(backbone.normalise(views["masked_context"]), "pooled").numpy()
            for views, _ in loader_of(pictures, in_order(train))
        ]
    features = np.concatenate(made)
    centred = features - features.mean(0)
    projected = PCA(min(256, *features.shape), svd_solver="full").fit_transform(centred)
    dictionaries = {}
    for size in sizes:
        labels = KMeans(size, n_init=1, random_state=0).fit(np.ascontiguousarray(projected)).labels_
        prototypes = np.stack([features[labels == k].mean(0, dtype=np.float64) for k in range(size)])
        prior = np.bincount(labels, minlength=size) / len(labels)
        dictionaries[size] = ConfounderDictionary(
            torch.from_numpy(prototypes.astype(np.float32)), torch.from_numpy(prior.astype(np.float32))
        )
    return dictionaries


def plain(root: Path, images: int, epochs: int, sizes: list[int]) -> dict[int, dict[str, object]]:
    """Five trainings in sequence; the losses of every epoch and the accuracies of each."""
    torch.set_num_threads(THREADS)
    dataset = load_dataset("confounded_scenes", root)
    splits = np.array([subject.split for subject in dataset.subjects])
    rows_of = {split: np.flatnonzero(splits == split) for split in sorted(set(splits)) if split != COUNTERFACTUAL}
    first = experiment_of(images, epochs, sizes[0])
    dictionaries = plain_dictionaries(root, first, sizes, rows_of["train"])
    arches = {view: trunk.arch for view, trunk in first.trunks.items()}
    pictures = Pictures(root, dataset.subjects, dataset.categories, arches)
    trunks = {view: load_backbone(trunk.arch, trunk.weights).eval() for view, trunk in first.trunks.items()}

    @torch.inference_mode()
    def features_of(views: dict[str, Tensor]) -> dict[str, Tensor]:
        return {view: trunks[view].features(trunks[view].normalise(of), "pooled") for view, of in views.items()}

    @torch.no_grad()
    def accuracy(model: nn.Module, split: str) -> float:
        model.eval()
        right = 0
        for views, category_B in loader_of(pictures, in_order(rows_of[split])):
            right += int((model(features_of(views)).logits_BK.argmax(1) == category_B).sum())
        return right / len(rows_of[split])

    found: dict[int, dict[str, object]] = {}
    for size in sizes:
        experiment = experiment_of(images, epochs, size)
        torch.manual_seed(seed_of(0, -1, 0))
        model = build_recogniser(experiment, len(dataset.categories), dictionaries[size])
        model.ccim = AuthorsForm(model.ccim)
        optimiser = make_optimiser(experiment, model)
        batches = Batches(rows_of["train"], experiment.batch_size, 0)
        losses, best, best_state = [], -1.0, {}
        for epoch in range(epochs):
            torch.manual_seed(seed_of(0, epoch, 0))
            model.train()
            of_epoch = []
            loaded = loader_of(pictures, [rows.tolist() for rows in batches.of_epoch(epoch)])
            for step, (views, category_B) in enumerate(loaded, start=epoch * len(batches)):
                factor = learning_rate_factor(experiment, epoch, step, epochs * len(batches))
                for group in optimiser.param_groups:
                    group["lr"] = experiment.learning_rate * factor
                features = {view: of.clone() for view, of in features_of(views).items()}
                loss = F.cross_entropy(model(features).logits_BK, category_B)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), experiment.gradient_clip)
                optimiser.step()
                of_epoch.append(loss.item())
            losses.append(float(np.mean(of_epoch)))
            validation = accuracy(model, "val")
            if validation > best:
                best, best_state = validation, {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(best_state)
        tests = {split: accuracy(model, split) for split in rows_of if split.startswith("test")}
        found[size] = {"losses": losses, "val": best, **tests}
        print(f"  plain, N = {size}: " + ", ".join(f"{k} {v:.2%}" for k, v in tests.items()), file=sys.stderr)
    return found


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    """Of two courses of losses, epoch by epoch, relative to the first; infinite where one is longer."""
    if len(ours) != len(theirs):
        return float("inf")
    return max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=15, help="of preset quick")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--plain", metavar="ROOT", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.plain:
        print(json.dumps(plain(Path(flags.plain), flags.images, flags.epochs, flags.sizes)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        storage = Storage.open(temporary)
        settings = [(str(size), experiment_of(flags.images, flags.epochs, size)) for size in flags.sizes]
        plan = make_plan(settings, (0,), storage, None)
        write_world(plan.source.world, plan.source.root)
        asked = ["--images", str(flags.images), "--epochs", str(flags.epochs), "--sizes", *map(str, flags.sizes)]
        job = [str(ROOT / "jobs/sweep_dict_size.py"), "--preset", "quick", "--seeds", "0", "--storage", temporary]
        seconds, out = {}, {}
        for side, command in (
            ("ours", [*job, *asked]),
            ("plain", [__file__, "--plain", str(plan.source.root), *asked]),
        ):
            started = time.perf_counter()
            environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
            ended = subprocess.run(
                [sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False, env=environment
            )
            if ended.returncode:
                raise SystemExit(f"the side {side!r} ended with status {ended.returncode}; its error stands above")
            seconds[side], out[side] = time.perf_counter() - started, ended.stdout
            say(f"  {side}: {seconds[side]:.1f} s")
        theirs = json.loads(out["plain"].splitlines()[-1])
        worst = 0.0
        for planned in plan.trials:
            lines = read_journal(Path(planned.trial.paths.folder) / "journal.jsonl")
            course = theirs[planned.setting]["losses"]
            worst = max(worst, largest_difference([line.metrics["train/loss"] for line in lines], course))
        if worst > AGREEMENT:
            raise SystemExit(f"losses differ by {worst:.1%}: the two sides did not train the same models")
    row = {
        "images": flags.images,
        "epochs": flags.epochs,
        "sizes": flags.sizes,
        "ours_s": round(seconds["ours"], 1),
        "plain_s": round(seconds["plain"], 1),
        "ratio": round(seconds["plain"] / seconds["ours"], 2),
        "largest_difference_of_losses": round(worst, 6),
    }
    say(f"{machine()}\n{json.dumps(row, indent=1)}")
    write_figures(flags.json, "figure_6", "cpu", [row], 1)


if __name__ == "__main__":
    main()
