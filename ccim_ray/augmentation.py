"""Random changes of a training batch, on its device; every view of a subject is changed alike.

Shape suffixes: B subjects; pictures are (B, H, W, C) uint8, geometry is as in ``perception.geometry``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ccim_ray.deconfounders.card import CONTEXT_INPUTS
from ccim_ray.experiment import Augmentation

COLOUR_RANGE = 0.4
"""Brightness, contrast and saturation are each multiplied by a factor within 1 ± this, as re-implementations do."""

MIRRORED_JOINTS = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""Which joint stands where after left and right are exchanged, in the OpenPose COCO order."""

_LUMA = (0.299, 0.587, 0.114)


def augment(views: Mapping[str, Tensor], kind: Augmentation) -> dict[str, Tensor]:
    """The batch, mirrored for a random half of its subjects, and for "flip_colour" with their colours changed.

    Draws from torch's global CPU generator. A depth picture has no colour to change.
    """
    changed = dict(views)
    if kind == "none":
        return changed
    first = next(iter(views.values()))
    mirrored_B = torch.rand(len(first)).lt(0.5).to(first.device)
    for name, view in views.items():
        if name in CONTEXT_INPUTS:  # found from pictures as they are
            continue
        chosen = mirrored_B.reshape(-1, *[1] * (view.ndim - 1))
        changed[name] = torch.where(chosen, mirrored(name, view), view)
    if kind == "flip_colour":
        factors_B3 = (1 + COLOUR_RANGE * (2 * torch.rand(len(first), 3) - 1)).to(first.device)
        for name, view in changed.items():
            if view.dtype == torch.uint8 and name != "depth":
                changed[name] = recoloured(view, factors_B3)
    return changed


def mirrored(name: str, view: Tensor) -> Tensor:
    """The whole batch of one view, left and right exchanged."""
    if view.dtype == torch.uint8:
        return view.flip(2)
    flipped = view.clone()
    if name == "keypoints":
        flipped = flipped[:, list(MIRRORED_JOINTS)]
        flipped[..., 0] = torch.where(flipped[..., 2] > 0, 1 - flipped[..., 0], 0.0)
        return flipped
    flipped[..., 0], flipped[..., 2] = 1 - view[..., 2], 1 - view[..., 0]
    return flipped * view[..., 4:5] if name == "agents" else flipped


def recoloured(pictures_BHWC: Tensor, factors_B3: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) uint8 with brightness, contrast and saturation multiplied by the factors of each."""
    brightness, contrast, saturation = factors_B3.reshape(-1, 3, 1, 1, 1).unbind(1)
    values = pictures_BHWC.float() * brightness
    luma = torch.tensor(_LUMA, device=values.device)
    mean = (values @ luma).mean((1, 2)).reshape(-1, 1, 1, 1)
    values = mean + (values - mean) * contrast
    grey = (values @ luma)[..., None]
    return (grey + (values - grey) * saturation).round().clamp(0, 255).to(torch.uint8)
