"""From the flags of a measurement of context bias to its result, or to the plan of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ccim_ray.command_line import CommonFlags
from ccim_ray.context_bias import BiasOptions, Negatives, Ranking, Unit, Weighting
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.context_bias_request import BiasRequest

ALSO_MIN_COUNT = 5
"""A scene that is seen once always has entropy 0: from here on it may have another."""


@dataclass(frozen=True, kw_only=True)
class BiasFlags(CommonFlags):
    """Flags of the measurement: every choice that the paper leaves open."""

    categories: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = ()
    """Emotions to measure, or all. Default: anger, happy and fear, where the dataset has them."""
    splits: tuple[str, ...] = ("train",)
    """Splits whose images are measured, together."""
    scenes: Literal["backbone", "annotation", "true"] = "backbone"
    """backbone: recognised in the whole image, as in the paper; annotation (or true): the dataset's own, which the
    embedded world has, and GroupWalk where the manifest gives a setting."""
    scene_weights: Annotated[str | None, tyro.conf.arg(metavar="ARCH/WEIGHTS", help_behavior_hint="")] = None
    """Network that recognises scenes. Default: resnet152/places365; thin_resnet/scenes on the embedded world."""
    weighting: Weighting = "balanced"
    """balanced compares a scene's shares of positives and negatives, raw its counts."""
    ranking: Ranking = "union"
    """Whose most frequent scenes: of positives and used negatives (union), of the positives, or of all images."""
    negatives: Negatives = "sampled"
    """sampled: as many as there are positives, drawn --samples times; all: every one."""
    samples: int = 5
    """Draws of the negatives; mean and standard deviation are over them."""
    top_scenes: int = 200
    """How many scenes are measured at most."""
    unit: Unit = "image"
    """What is counted. An image is positive where any of its persons has the emotion."""
    min_count: int = 1
    """A scene takes part from this many units on; 5 is always reported too."""
    permutations: int = 1000
    """How often scenes are dealt out at random, to say what chance alone gives."""
    seed: int = 0
    """Seed of samples and permutations."""


def measure_bias(flags: BiasFlags) -> int:
    """Measure, or print the plan where ``--plan`` was given; returns the exit status.

    Raises RequestError for a wrong request or wrong data.
    """
    request = _request(flags)
    if flags.plan:
        from ccim_ray.console import say, show
        from ccim_ray.reports.plan_report import missing_lines, plan_table

        show(plan_table(request.plan, request.storage))
        for line in missing_lines(request.plan):
            say(line)
        say(f"measure {', '.join(request.categories)}: seconds, done anew at every run; to {request.folder}")
        return 0
    from ccim_ray.pipeline.context_bias import measure_context_bias  # Ray is slow to import: only where it is used

    with request.storage.kept_up_to_date():
        return measure_context_bias(request)


def _request(flags: BiasFlags) -> BiasRequest:
    from ccim_ray.context_bias_request import BiasRequest, scene_backbone
    from ccim_ray.data_source import data_source
    from ccim_ray.presets import default_experiment

    if not flags.splits:
        raise RequestError("--splits needs at least one name")
    world = flags.world()
    # A person without a box has a scene all the same: CAER-S comes without any.
    load_options = replace(flags.load_options(), keep_unlocated=flags.dataset == "caer_s", detector=None)
    experiment = default_experiment(flags.dataset, flags.preset_name, world)
    options = BiasOptions(
        weighting=flags.weighting,
        ranking=flags.ranking,
        negatives=flags.negatives,
        samples=flags.samples,
        scenes=flags.top_scenes,
        unit=flags.unit,
        min_counts=tuple(dict.fromkeys((flags.min_count, ALSO_MIN_COUNT))),
        permutations=flags.permutations,
        seed=flags.seed,
    )
    storage = flags.open_storage()
    weights = os.environ.get("CCIM_RAY_WEIGHTS")
    return BiasRequest(
        source=data_source(experiment, storage, flags.data_root, load_options),
        splits=tuple(dict.fromkeys(flags.splits)),
        asked=flags.categories,
        scenes="backbone" if flags.scenes == "backbone" else "annotation",
        backbone=scene_backbone(flags.scene_weights, world is not None),
        options=options,
        storage=storage,
        weights_dir=Path(weights).expanduser().absolute() if weights else None,
        without_weights=flags.plan,
    )
