"""The three sizes in which every job runs: smoke, quick and paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ccim_ray.baselines.registry import require_baseline
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.errors import RequestError
from ccim_ray.experiment import BackboneSettings, Experiment, TrunkSettings
from ccim_ray.paper import DEFAULT_DICTIONARY_SIZE, DICTIONARY_SIZES

DATASETS = ("confounded_scenes", "emotic", "caer_s", "groupwalk")
PRESETS = ("smoke", "quick", "paper")

_LOSSES = {"emotic": "weighted_mse", "caer_s": "cross_entropy", "groupwalk": "soft_margin"}
"""EMOT-Net's on EMOTIC. The paper names none for GroupWalk: the usual one where several categories may hold."""

_STAND_IN_TRUNKS = TrunkSettings(
    context=BackboneSettings(arch="thin_resnet", weights="scenes"),
    body=BackboneSettings(arch="thin_resnet", weights="bodies"),
)
_RESNET_TRUNKS = TrunkSettings(
    context=BackboneSettings(arch="resnet18", weights="places365"),
    body=BackboneSettings(arch="resnet18", weights="imagenet"),
)


@dataclass(frozen=True)
class Preset:
    """Sizes of one preset: the world's pictures, the training, and what sweeps vary unless told otherwise."""

    world_images: int
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    sizes: tuple[int, ...]
    subject_limit: int | None


_PRESETS = {
    "smoke": Preset(600, epochs=3, batch_size=64, seeds=(0, 1), sizes=(8, 16), subject_limit=200),
    "quick": Preset(8_000, 15, batch_size=256, seeds=(0, 1, 2), sizes=DICTIONARY_SIZES, subject_limit=4000),
    "paper": Preset(40_000, 30, 256, seeds=(0, 1, 2, 3, 4), sizes=DICTIONARY_SIZES, subject_limit=None),
}


def preset(name: str) -> Preset:
    """Raises RequestError for an unknown name."""
    if name not in _PRESETS:
        raise RequestError(f"--preset {name}: there is no such preset; choose one of {', '.join(PRESETS)}")
    return _PRESETS[name]


def default_experiment(
    dataset: str, preset_name: str, world: WorldSettings | None, baseline: str = "emot_net"
) -> Experiment:
    """The baseline with CCIM on ``dataset``, as the paper or, on the embedded world, as small pictures ask for it.

    On real datasets the optimiser follows EMOT-Net's published training (SGD, step decay) and the backbone the
    paper (ResNet-152 on Places365, section 4.3).
    """
    if dataset not in DATASETS:
        raise RequestError(f"--dataset {dataset}: there is no such dataset; choose one of {', '.join(DATASETS)}")
    require_baseline(baseline)
    sizes = preset(preset_name)
    like = world.like if world else dataset
    values: dict[str, Any] = {
        "dataset": dataset,
        "baseline": baseline,
        "world": world,
        "subject_limit": None if world else sizes.subject_limit,
        "loss": _LOSSES[like],
        "dictionary": {"size": min(DEFAULT_DICTIONARY_SIZE[like], max(sizes.sizes))},
        "epochs": sizes.epochs,
        "batch_size": sizes.batch_size,
    }
    if world:
        values |= {
            "trunks": _STAND_IN_TRUNKS,
            "backbone": BackboneSettings(arch="thin_resnet", weights="scenes"),
        }
    else:
        values |= {
            "trunks": _RESNET_TRUNKS,
            "backbone": BackboneSettings(arch="resnet152", weights="places365"),
            "optimiser": "sgd",
            "schedule": "step",
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "epochs": 15 if preset_name == "paper" else sizes.epochs,
            "batch_size": 52,
            "trainable": "all" if preset_name == "paper" else "head",
        }
    return Experiment.parse(values)
