"""The baselines by name. A new one is one file, one line in BASELINES, and a member of Baseline.

Knows no torch until a baseline is built, so that a request can be checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.baselines.emot_net import EmotNet

    Baseline = EmotNet
    """Has ``views``, ``joint_dim``, and forward(features by view) -> h (B, joint_dim)."""

BASELINES: dict[str, str] = {"emot_net": "ccim_ray.baselines.emot_net:EmotNet"}


def require_baseline(name: str) -> None:
    """RequestError, naming the known ones, where there is no baseline ``name``."""
    if name not in BASELINES:
        raise RequestError(f"--baseline {name}: there is no such baseline; choose one of {', '.join(BASELINES)}")


def build_baseline(name: str, feature_dims: Mapping[str, int]) -> Baseline:
    """The baseline called ``name`` for features of ``feature_dims[view]`` dimensions.

    Weights are drawn from torch's global generator. RequestError for an unknown name.
    """
    require_baseline(name)
    module, _, class_name = BASELINES[name].partition(":")
    baseline: Baseline = getattr(import_module(module), class_name)(feature_dims)
    return baseline
