"""One forward pass of a baseline on random features, before anything is prepared for it.

Shape suffixes: B subjects, H joint dimensions, M modalities, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.registry import build_from_card, inputs_from_card
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import is_geometry
from ccim_ray.perception.geometry import SHAPES
from ccim_ray.plug_ins import described

CATEGORIES = 5
MAP_SIDE = 4


def require_joint_feature(card: BaselineCard, options: Mapping[str, Any], feature_dims: Mapping[str, int]) -> None:
    """Build the baseline and look at the h that it makes of a batch of two; the global generator is left as it was.

    Raises:
        RequestError: it cannot be built for features of ``feature_dims[view]`` dimensions, does not take them, or
            gives another shape than it says.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            baseline = build_from_card(card, feature_dims, CATEGORIES, options)
            fault = joint_fault(baseline, random_batch(inputs_from_card(card, options), feature_dims, 2), CATEGORIES)
        except RequestError:
            raise
        except Exception as error:  # the class is another's
            fault = described(error, card.module)
    if fault:
        raise RequestError(f"--baseline {card.name}: {fault}; ccim_ray.testing.check_baseline shows more")


def joint_fault(baseline: nn.Module, batch: Mapping[str, Tensor], categories: int) -> str | None:
    """What is wrong with the baseline's output for a batch of features, in evaluation mode; None where nothing is."""
    joint_dim = getattr(baseline, "joint_dim", None)
    if not isinstance(joint_dim, int):
        return f"joint_dim is {joint_dim!r}, a whole number expected"
    size = len(next(iter(batch.values())))
    with torch.no_grad():
        output = baseline.eval()(batch)
    joint = output[0] if isinstance(output, tuple) else output
    if not isinstance(joint, Tensor):
        return f"h is an object of class {type(joint).__name__}, a tensor expected"
    if tuple(joint.shape) != (size, joint_dim):
        return f"h is {tuple(joint.shape)} for {size} subjects, {(size, joint_dim)} due by its joint_dim"
    if not joint.isfinite().all():
        return "h of random features is not finite"
    if isinstance(output, tuple):
        modalities = tuple(output[1].shape)
        if modalities != (size, modalities[1] if len(modalities) > 1 else 0, categories):
            return f"modality logits are {modalities}, (B, M, K) expected"
    return None


def random_batch(inputs: Sequence[Input], feature_dims: Mapping[str, int], subjects: int) -> dict[str, Tensor]:
    """What a recogniser hands the baseline: positive features and maps, as behind a ReLU, and geometry in 0..1."""
    generator = torch.Generator().manual_seed(1)
    batch: dict[str, Tensor] = {}
    for item in inputs:
        if is_geometry(item.view):
            rows = torch.rand(subjects, *SHAPES[item.view], generator=generator)
            if item.view in ("agents", "regions"):
                rows[..., 2:4] = rows[..., :2] + 0.1 + (0.9 - rows[..., :2]).clamp(min=0) * rows[..., 2:4]
            if item.view in ("agents", "keypoints"):
                rows[..., -1] = 1.0
            batch[item.view] = rows
            continue
        shape = (subjects, feature_dims[item.view], *([MAP_SIDE, MAP_SIDE] if item.form == "map" else []))
        batch[item.view] = torch.rand(shape, generator=generator)
    return batch
