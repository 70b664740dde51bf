"""A sweep that ran without interruption, and a cluster in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_runs import TINY, Ended, run_job


@pytest.fixture(scope="session")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Storage of a sweep that ran without interruption, and how it ended. Not to be changed by tests."""
    storage = tmp_path_factory.mktemp("tiny_sweep")
    return storage, run_job("sweep_dict_size", *TINY, "--storage", str(storage))


@pytest.fixture(scope="session")
def cluster():
    """A local Ray cluster for tests that call the pipeline in this process."""
    import ray

    from ccim_ray.pipeline.cluster import join_cluster

    yield join_cluster()
    ray.shutdown()
