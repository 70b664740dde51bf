"""What a cluster offers, and what trials may take of it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from ccim_ray.errors import RequestError


@dataclass(frozen=True)
class ClusterResources:
    """What the cluster offers in all."""

    cpus: int
    gpus: int
    accelerator: str = ""
    """Kind of the GPUs, as Ray names it, such as H100; several kinds joined by "+"; "" where it is not known."""

    def in_words(self) -> str:
        """Such as "2 CPUs, 1 GPU (H100)"."""
        kind = f" ({self.accelerator})" if self.accelerator else ""
        gpus = f", {self.gpus} GPU{'s' if self.gpus > 1 else ''}{kind}" if self.gpus else ", no GPU"
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}{gpus}"


def this_machine() -> ClusterResources:
    """What Ray would find here, without starting it. GPUs are those that nvidia-smi lists and the environment shows."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return ClusterResources(cpus, 0)
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(names) if shown is None else len([number for number in shown.split(",") if number.strip()])
    kinds = sorted({found[1] for name in names if (found := re.match(r"\w+\s+([A-Z0-9]+)", name))})
    return ClusterResources(cpus, min(gpus, len(names)), "+".join(kinds) if gpus else "")


@dataclass(frozen=True)
class TrialResources:
    """What trials may take.

    Attributes:
        max_concurrent: trials at a time; None works it out from the cluster.
        gpus_per_worker: GPUs of each process, may be a fraction; None takes one where there are GPUs.
    """

    max_concurrent: int | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise RequestError(f"--max-concurrent {self.max_concurrent}: at least one trial has to run at a time")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise RequestError(f"--gpus-per-worker {self.gpus_per_worker:g}: give 0, a fraction, or a whole number")
        if (self.gpus_per_worker or 0) > 1 and self.gpus_per_worker != int(self.gpus_per_worker or 0):
            raise RequestError(f"--gpus-per-worker {self.gpus_per_worker:g}: above 1 Ray gives whole GPUs alone")

    def check(self, cluster: ClusterResources, workers: int) -> None:
        """RequestError where not even one trial fits: it would wait for ever."""
        gpus = self.gpus(cluster) * workers
        if gpus > cluster.gpus:
            raise RequestError(
                f"a trial asks for {gpus:g} GPUs (--gpus-per-worker times --workers-per-trial) and the cluster has "
                f"{cluster.gpus}; ask for fewer or join a larger cluster"
            )
        if workers > cluster.cpus:
            raise RequestError(
                f"--workers-per-trial {workers}: a trial asks for as many CPUs and the cluster has {cluster.cpus}; "
                "ask for fewer or join a larger cluster"
            )

    def gpus(self, cluster: ClusterResources) -> float:
        """GPUs of one process on this cluster."""
        if self.gpus_per_worker is not None:
            return self.gpus_per_worker
        return 1.0 if cluster.gpus else 0.0

    def concurrent(self, cluster: ClusterResources, workers: int) -> int:
        """Trials of ``workers`` processes that fit at a time, at least one."""
        if self.max_concurrent is not None:
            return self.max_concurrent
        fit = cluster.cpus // workers
        gpus = self.gpus(cluster)
        if gpus:  # a share lies on one GPU: two of 0.6 need two
            processes = cluster.gpus * int(1 / gpus + 1e-9) if gpus <= 1 else cluster.gpus // int(gpus)
            fit = min(fit, processes // workers)
        return max(1, fit)

    def device(self, cluster: ClusterResources) -> str:
        """What a process runs on, for measured speeds: "CPU", or the kind of GPU and the share of it."""
        gpus = self.gpus(cluster)
        return f"{cluster.accelerator or 'GPU'} x {gpus:g}" if gpus else "CPU"
