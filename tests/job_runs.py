"""Jobs run as a user runs them: as processes, on real Ray and real MLflow, in a small embedded world."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ("--preset", "smoke", "--images", "300", "--epochs", "2")


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: int
    out: str
    err: str


def job_command(name: str, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *flags]


def job_environment() -> dict[str, str]:
    dropped = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "CCIM_RAY_STORAGE", "CCIM_RAY_WEIGHTS")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def run_job(name: str, *flags: str, timeout: float = 280) -> Ended:
    ended = subprocess.run(
        job_command(name, *flags),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env=job_environment(),
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
