"""A model's folder as a trial leaves it, without the training: the embedded world's trunks, and a head as it starts."""

from __future__ import annotations

from pathlib import Path

import torch

from ccim_ray.checkpoint import save_weights
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.experiment import Experiment
from ccim_ray.presets import default_experiment
from ccim_ray.trial import blank_dictionary, build_recogniser, describe_model

WORLD = WorldSettings(images=60, image_size=64)


def write_untrained(folder: Path, baseline: str = "emot_net", trainable: str = "head", **changes: object) -> Experiment:
    """Write a model of the embedded world in the form of CAER-S; the weights are the same at every call."""
    changes = {"deconfounder": "none", "dictionary__size": 4} | changes
    base = default_experiment("confounded_scenes", "smoke", WORLD, baseline, trainable).with_changes(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        recogniser = build_recogniser(base, len(CATEGORIES["caer_s"]), blank_dictionary(base))
    describe_model(folder, base, CATEGORIES["caer_s"], multi_label=False)
    save_weights(folder / "best.safetensors", recogniser)
    return base
