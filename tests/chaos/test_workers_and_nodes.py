"""Workers and nodes that die, a notice of preemption, and a trial that cannot be trained."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
from chaos_runs import (
    TABLE,
    Fault,
    assert_equal,
    assert_logged_once,
    ended,
    kills,
    run,
    start,
    trials_of,
    wait_for,
)
from job_runs import TINY
from mlflow import MlflowClient

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SWEEP = (*TINY, "--sizes", "8")
END_TO_END = (*TINY, "--trainable", "all", "--workers-per-trial", "2", "--seeds", "0")


def test_a_ddp_group_goes_on_when_a_worker_is_killed(tmp_path: Path) -> None:
    straight, killed, log = tmp_path / "straight", tmp_path / "killed", tmp_path / "log"
    end = run("train", *END_TO_END, "--storage", str(straight), folder=log)
    assert end.status == 0, end
    fault = Fault("replace", "/checkpoint.pt$", 2, "process")  # in the second epoch
    end = run("train", *END_TO_END, "--storage", str(killed), folder=log, fault=fault)
    assert (end.status, end.err) == (0, ""), end
    assert len(kills(log)) == 1
    assert_equal(killed, straight)
    logged = assert_logged_once(f"sqlite:///{killed}/mlflow.db", killed)
    TABLE.add("a worker of a DDP group of two killed", 1, "at most one epoch of work", f"equal to the bit; {logged}")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_of_its_own")
def test_a_sweep_completes_when_a_node_is_removed(undisturbed: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    storage, log = tmp_path / "runs", tmp_path / "log"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        flags = (*SWEEP, "--storage", str(storage))
        job = start("sweep_dict_size", *flags, folder=log, RAY_ADDRESS=cluster.address)
        wait_for(lambda: any(storage.glob("trials/*/journal.jsonl")), process=job)
        cluster.remove_node(node, allow_graceful=False)
        end = ended(job, log)
    finally:
        cluster.shutdown()
    assert end.status == 0, end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    TABLE.add(
        "a node of two removed while trials run", 1, "at most one epoch of a trial", f"equal to the bit; {logged}"
    )


def test_sigterm_is_one_line_and_the_same_command_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage))
    for begun in ("derived/features/*/shard-*", "trials/*/checkpoint.pt"):
        job = start("sweep_dict_size", *flags, folder=log)
        wait_for(lambda begun=begun: any(storage.glob(begun)), process=job)
        os.kill(job.pid, signal.SIGTERM)
        end = ended(job, log)
        assert end.status == 128 + signal.SIGTERM, end
        assert end.out.count("SIGTERM: leaving; the same command goes on") == 1
        assert end.err == ""
        client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
        experiments = [each.experiment_id for each in client.search_experiments()]
        assert not client.search_runs(experiments, "attributes.status = 'RUNNING'")
    end = run("sweep_dict_size", *flags, folder=log)
    assert (end.status, end.err) == (0, ""), end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    TABLE.add(
        "SIGTERM while preparing, and while training", 2, "nothing that was finished", f"equal to the bit; {logged}"
    )


def test_a_trial_that_dies_three_times_is_given_up_and_the_others_are_done(undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage))
    signature = next(iter(trials_of(undisturbed)))
    fault = Fault("replace", f"/trials/{signature}/environment.json$", (1, 2, 3), "process")
    end = run("sweep_dict_size", *flags, folder=log, fault=fault)
    assert (end.status, end.err) == (1, ""), end
    assert len(kills(log)) == 3
    assert end.out.count("FAILED: its process died") == 1
    expected = trials_of(undisturbed)
    assert {folder.parent.name for folder in storage.glob("trials/*/result.json")} == set(expected) - {signature}
    (table,) = storage.glob("sweeps/*/results.csv")
    seeds = [int(row["n_seeds"]) for row in csv.DictReader(table.open()) if row["n_seeds"]]
    assert min(seeds) == max(seeds) - 1
    end = run("sweep_dict_size", *flags, folder=log)
    assert (end.status, end.err) == (0, ""), end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    TABLE.add(
        "the process of one trial killed at each of its three starts",
        3,
        "nothing",
        f"given up with its reason, the others done; again: equal to the bit; {logged}",
    )
