"""Names of metrics as MLflow keeps them."""

from __future__ import annotations

import re

from ccim_ray.storage import short_digest

LONGEST = 250
"""Characters that MLflow takes."""


def metric_name(name: str) -> str:
    """``name`` with the characters that MLflow refuses in a metric's name replaced by "_".

    It refuses names that are no plain path, too, and long ones: of those the end gives way to a digest.
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    kept = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    return kept if len(kept) <= LONGEST else f"{kept[: LONGEST - 17]}_{short_digest(name)}"
