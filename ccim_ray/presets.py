"""The three sizes in which every job runs: smoke, quick and paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.registry import baseline_card, checked_options, inputs_from_card
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.registry import DatasetCard, dataset_card
from ccim_ray.errors import RequestError
from ccim_ray.experiment import BackboneSettings, Experiment
from ccim_ray.paper import DICTIONARY_SIZES

PRESETS = ("smoke", "quick", "paper")

_STAND_IN_ARCH: Final = "thin_resnet"


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
    dataset: str,
    preset_name: str,
    world: WorldSettings | None,
    baseline: str = "emot_net",
    trainable: str | None = None,
    options: Mapping[str, Any] | None = None,
    stand_ins: bool = False,
    has_depth: bool = False,
) -> Experiment:
    """The baseline with CCIM on ``dataset``, as the literature or, on the embedded world, as small pictures ask for it.

    On real datasets the training follows the baseline's own literature, and the backbone of the dictionary the paper
    (ResNet-152 on Places365, section 4.3).

    Args:
        trainable: "head" or "all"; None takes head, or all in preset paper on real datasets.
        stand_ins: take the embedded world's own pre-training, as for a folder that make_confounded_scenes wrote.
        options: of the baseline; what it can read of depth it reads where there is any, unless told otherwise.
        has_depth: there is a depth picture of every image; of the embedded world there always is.
    """
    of_data, sizes = dataset_card(dataset), preset(preset_name)
    like = dataset_card(world.like) if world else of_data
    card = baseline_card(baseline)
    of_depth = card.optional_views.get("depth", {}) if world or has_depth else {}
    chosen = checked_options(card, {**of_depth, **(options or {})})
    mode = trainable or ("all" if preset_name == "paper" and not world else "head")
    values: dict[str, Any] = {
        "dataset": of_data.name,
        "baseline": baseline,
        "baseline_options": chosen,
        "trunks": _trunks(inputs_from_card(card, chosen), mode, stand_ins or world is not None),
        "trainable": mode,
        "world": world,
        "subject_limit": None if world else sizes.subject_limit,
        "loss": _loss(card, like),
        "modality_weight": card.training.get("modality_weight", 0.0),
        "dictionary": {"size": min(like.dictionary_size, max(sizes.sizes))},
        "epochs": sizes.epochs,
        "batch_size": sizes.batch_size,
    }
    values["backbone"] = (
        BackboneSettings(arch=_STAND_IN_ARCH, weights="scenes")
        if stand_ins or world
        else BackboneSettings(arch="resnet152", weights="places365")
    )
    if not world:
        values |= card.training
        if preset_name != "paper":
            values["epochs"] = sizes.epochs
    try:
        return Experiment.parse(values)
    except RequestError as error:
        of_card = {*card.training, "baseline_options", *(["loss"] if card.losses else [])}
        if str(error).partition(":")[0].partition(".")[0] not in of_card:
            raise
        raise RequestError(f"--baseline {baseline}: its card, {error}; mend the package that brings it") from error


def _loss(card: BaselineCard, dataset: DatasetCard) -> str:
    """The baseline's own on this dataset; where the literature has none, the usual one."""
    return card.losses.get(dataset.name, "soft_margin" if dataset.multi_label else "cross_entropy")


def _trunks(inputs: tuple[Input, ...], trainable: str, stand_ins: bool) -> dict[str, BackboneSettings]:
    trunks = {}
    for item in inputs:
        chosen = item.trunk_for(trainable)
        if chosen:
            arch, weights = _stand_in(item, *chosen) if stand_ins else chosen
            trunks[str(item.view)] = BackboneSettings.model_validate({"arch": arch, "weights": weights})
    return trunks


def _stand_in(item: Input, arch: str, weights: str) -> tuple[str, str]:
    """The embedded world's own pre-training in place of Places365 and ImageNet."""
    if weights == "places365":
        return _STAND_IN_ARCH, "scenes"
    if weights == "imagenet":
        return _STAND_IN_ARCH, "bodies" if item.view in ("body", "face") else "objects"
    return arch, weights
