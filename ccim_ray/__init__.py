"""Contextual causal intervention for recognition models, and the experiments that say whether it helps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccim_ray.confounders import ConfounderDictionary
    from ccim_ray.intervention import CCIM

__version__ = "0.1.0"

__all__ = ["CCIM", "ConfounderDictionary", "__version__"]

# Resolved on first use (PEP 562), so that importing the package does not import torch.
_HOMES = {"CCIM": "ccim_ray.intervention", "ConfounderDictionary": "ccim_ray.confounders"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
