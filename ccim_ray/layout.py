"""Where the jobs and the search spaces lie."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def home() -> Path:
    """The folder of ``jobs`` and ``search_spaces``: inside an installed package (setup.py), beside it in a checkout."""
    return _shipped() if is_installed() else PACKAGE.parent


def is_installed() -> bool:
    """Whether this package is from a wheel or an sdist; an editable install is a checkout."""
    return _shipped().is_dir()


def _shipped() -> Path:
    return PACKAGE / "shipped"
