"""What a running cluster offers is read from it: CPUs, GPUs and their kind, and how many trials fit."""

import pytest

from ccim_ray.resources import ClusterResources, TrialResources

pytestmark = pytest.mark.slow


def test_shares_of_the_gpus_of_a_cluster_of_made_up_resources():
    import ray

    from ccim_ray.pipeline.cluster import join_cluster

    made_up = {"accelerator_type:H100": 1}
    ray.init(num_cpus=8, num_gpus=2, resources=made_up, include_dashboard=False, log_to_driver=False)
    try:
        cluster = join_cluster()
        assert cluster == ClusterResources(8, 2, "H100")
        halves = TrialResources(gpus_per_worker=0.5)
        assert halves.concurrent(cluster, 1) == 4

        @ray.remote(num_cpus=1, num_gpus=halves.gpus(cluster))
        class Trial:
            def ready(self):
                return True

        trials = [Trial.remote() for _ in range(5)]
        fit, waiting = ray.wait([trial.ready.remote() for trial in trials], num_returns=4, timeout=120)
        assert (len(fit), len(waiting)) == (4, 1)
        assert ray.wait(waiting, timeout=3)[0] == []  # Ray has no place for a fifth
    finally:
        ray.shutdown()
