"""How many trials run at a time: as many as fit on the cluster, machines that join or leave later among it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

from ray import tune

from ccim_ray.pipeline.cluster import offered
from ccim_ray.resources import ClusterResources, TrialResources

LOOK_SECONDS = 5.0
"""How often it is looked who is there."""


class Limited(Protocol):
    """What hands out trials to Ray Tune, so many at a time."""

    max_concurrent: int


class FollowCluster(tune.Callback):
    """Works the number of trials at a time out again while they run.

    Every trial keeps the kind of device that the first ones have: a GPU that joins a cluster without any is not used.
    """

    def __init__(self, limited: Limited, resources: TrialResources, cluster: ClusterResources, workers: int) -> None:
        self._limited, self._workers = limited, workers
        self._resources = replace(resources, gpus_per_worker=resources.gpus(cluster))
        self._next_look = time.monotonic() + LOOK_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks to resume from them; this one is made anew each time

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._limited.max_concurrent = self._resources.concurrent(offered(), self._workers)
