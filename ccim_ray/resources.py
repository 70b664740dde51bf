"""What a cluster offers, and what trials may take of it."""

from __future__ import annotations

from dataclasses import dataclass

from ccim_ray.errors import RequestError


@dataclass(frozen=True)
class ClusterResources:
    """What the cluster offers in all."""

    cpus: int
    gpus: int


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

    @property
    def trials_at_a_time(self) -> int:
        """As told; one where it is left to the cluster, which a plan does not know."""
        return self.max_concurrent or 1

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
        if self.gpus(cluster):
            fit = min(fit, int(cluster.gpus / (self.gpus(cluster) * workers)))
        return max(1, fit)
