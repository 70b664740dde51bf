"""Trials of a second, on made-up features in memory."""

from pathlib import Path

import numpy as np

from ccim_ray.baselines.registry import build_baseline, inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.experiment import Experiment
from ccim_ray.intervention import CCIM
from ccim_ray.journal import read_journal
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import train

WIDTH, CATEGORIES = 12, ("Anger", "Fear", "Happy", "Sad")
SPLITS = {"train": 50, "val": 20, "test_id": 15, "test_do": 15}


def make_inputs(*, multi_label=False, noise=2.5):
    """Two views of features that tell the category up to noise; the last train subject is unusable."""
    rng = np.random.default_rng(7)
    splits = np.repeat(list(SPLITS), list(SPLITS.values()))
    if multi_label:
        targets = (rng.random((len(splits), 4)) < 0.4).astype(np.float32)
    else:
        targets = np.eye(4, dtype=np.float32)[rng.integers(0, 4, len(splits))]
    views = {}
    for name in ("context", "body"):
        features = targets @ rng.normal(size=(4, WIDTH)) + noise * rng.normal(size=(len(splits), WIDTH))
        reasons = [None] * len(splits)
        reasons[SPLITS["train"] - 1] = "missing image" if name == "body" else None
        views[name] = ViewRows((features.astype(np.float32),), tuple(reasons))
    ids = tuple(f"s{number}" for number in range(len(splits)))
    index = SubjectIndex(ids, splits, targets, CATEGORIES, multi_label)
    return TrialInputs(index, views, ConfounderDictionary.random(6, WIDTH, seed=1))


def make_experiment(**changes):
    backbone = {"arch": "thin_resnet", "weights": "random"}
    base = {
        "dataset": "caer_s",
        "trunks": {"context": backbone, "body": backbone},
        "backbone": backbone,
        "epochs": 6,
        "batch_size": 16,
        "learning_rate": 0.01,
    }
    return Experiment.parse(base).with_changes(**changes)


def run(folder, inputs, on_epoch=lambda epoch, metrics: None, **changes):
    experiment = make_experiment(**changes)

    def build():
        baseline = build_baseline("emot_net", {"context": WIDTH, "body": WIDTH}, len(CATEGORIES))
        with_ccim = experiment.deconfounder == "ccim"
        ccim = CCIM(baseline.joint_dim, inputs.dictionary) if with_ccim else None
        return Recogniser(baseline, inputs_of("emot_net", {}), len(CATEGORIES), ccim)

    return train(experiment, inputs, build, Path(folder), on_epoch=on_epoch)


def curve(folder):
    return [line.metrics for line in read_journal(Path(folder) / "journal.jsonl")]
