"""What every benchmark shares: medians of several runs with warm-up apart, and the machine's name."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LOAD_BEFORE = os.getloadavg()
"""The system's load over 1, 5 and 15 minutes before the benchmark added its own."""


MEASURED_WITH = ("torch", "ray", "numpy", "scikit-learn")


def machine(device: str = "cpu") -> str:
    """Processor or GPU, and how many cores there are."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def median_seconds(work: Callable[[], object], repeats: int, device: str = "cpu", at_least_s: float = 0.05) -> float:
    """Seconds of one call: the median of ``repeats`` timings, each of as many calls as last ``at_least_s``.

    A first timing is warm-up: it only says how many calls that takes.
    """

    def timed(calls: int) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / calls

    calls = max(1, round(at_least_s / max(min(timed(1), timed(1)), 1e-6)))
    return statistics.median(timed(calls) for _ in range(repeats))


def write_figures(
    path: Path | None, name: str, device: str, rows: list[dict[str, Any]], repeats: int | dict[str, int]
) -> None:
    """The figures as JSON, with machine, load, date and versions, where a path is given.

    Args:
        repeats: how often each side was measured, warm-up not counted; by side where they differ.
    """
    if path is None:
        return
    figures = {
        "benchmark": name,
        "machine": machine(device),
        "date": datetime.date.today().isoformat(),
        "load_before": [round(value, 2) for value in LOAD_BEFORE],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in MEASURED_WITH}},
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
