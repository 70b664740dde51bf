"""What produced a run: code, package versions, hardware."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment_tags(gpu_names: Sequence[str] = (), plug_ins: Mapping[str, str] | None = None) -> dict[str, str]:
    """Tags that say what produced a run: code, versions, hardware. What cannot be found is left out.

    Args:
        gpu_names: of the GPUs that were used.
        plug_ins: version by name of packages that bring a part of the model.
    """
    tags = {"ccim.version.python": platform.python_version()}
    for package in ("ccim_ray", "torch", "ray", "mlflow"):
        with contextlib.suppress(PackageNotFoundError):
            tags[f"ccim.version.{package}"] = _version(package)
    tags |= {f"ccim.version.{package}": of_package for package, of_package in (plug_ins or {}).items()}
    tags["ccim.host"] = platform.node()
    tags["ccim.cpu_count"] = str(os.cpu_count())
    tags["ccim.cpu_model"] = _cpu_model()
    if gpu_names:
        tags["ccim.gpus"] = ", ".join(gpu_names)
    commit = _git("log", "-1", "--format=%H", "--", Path(__file__).name) and _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["ccim.git_dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return {name: value for name, value in tags.items() if value}


@cache
def _version(package: str) -> str:
    return version(package)


@cache
def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _git(*arguments: str) -> str:
    """Answer of git about the checkout that holds this package; empty where there is none, or no git.

    Asked once: the code that runs is that of the process's start.
    """
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
