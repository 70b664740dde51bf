"""The baselines by name. A new one is one file, one line in BASELINES, and a member of Baseline."""

from __future__ import annotations

from collections.abc import Mapping

from ccim_ray.baselines.emot_net import EmotNet
from ccim_ray.errors import RequestError

Baseline = EmotNet
"""Has ``views``, ``joint_dim``, and forward(features by view) -> h (B, joint_dim)."""

BASELINES: dict[str, type[Baseline]] = {"emot_net": EmotNet}


def baseline_class(name: str) -> type[Baseline]:
    """The class of the baseline called ``name``; RequestError names the known ones."""
    if name not in BASELINES:
        raise RequestError(f"unknown baseline {name!r}: choose one of {', '.join(BASELINES)}")
    return BASELINES[name]


def build_baseline(name: str, feature_dims: Mapping[str, int]) -> Baseline:
    """The baseline called ``name`` for features of ``feature_dims[view]`` dimensions.

    Weights are drawn from torch's global generator. RequestError for an unknown name.
    """
    return baseline_class(name)(feature_dims)
