"""Machines that join while a job runs: one that waits goes on, trials at a time become more, groups span machines."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from job_runs import ROOT, TINY, job_command, job_environment
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

LIMIT = 400


@pytest.fixture
def cluster(ray_of_its_own: None) -> Iterator[Callable[[int], object]]:
    """Starts a cluster whose head has so many CPUs."""
    from ray.cluster_utils import Cluster

    started = []

    def start(cpus: int) -> Cluster:
        started.append(Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}))
        return started[0]

    yield start
    for each in started:
        each.shutdown()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a job on a cluster; its output goes to the file ``log``."""
    running = []

    def start(cluster, name: str, *flags: str) -> subprocess.Popen[str]:
        environment = job_environment() | {"RAY_ADDRESS": cluster.address}
        command = job_command(name, *flags, "--storage", str(tmp_path / "runs"))
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while not seen():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def events(log: Path) -> list[dict[str, object]]:
    """What the job has told so far; its last line may not be whole yet."""
    return [json.loads(line) for line in log.read_text().split("\n")[:-1] if line.startswith("{")]


def running(told: list[dict[str, object]]) -> list[int]:
    """How many trials ran at a time, after each that began or ended."""
    counts, now = [], 0
    for event in told:
        if event["event"] == "trial" and event["state"] != "epoch":
            now += 1 if event["state"] == "started" else -1
            counts.append(now)
    return counts


def test_a_job_on_a_head_without_a_cpu_waits_for_a_machine(cluster, job, tmp_path: Path) -> None:
    log, head = tmp_path / "log", cluster(0)
    process = job(head, "train", *TINY, "--seeds", "0")
    wait_for(lambda: "Storage" in log.read_text(), process, log)
    time.sleep(10)
    assert process.poll() is None, log.read_text()
    assert not list((tmp_path / "runs").glob("trials/*/journal.jsonl"))
    head.add_node(num_cpus=1)
    assert process.wait(LIMIT) == 0, log.read_text()
    assert len(list((tmp_path / "runs").glob("trials/*/result.json"))) == 1


def test_trials_run_on_a_machine_that_joins_late(cluster, job, tmp_path: Path) -> None:
    log, head = tmp_path / "log", cluster(1)
    flags = ("--preset", "smoke", "--images", "300", "--epochs", "300", "--sizes", "8", "--seeds", "0", "1")
    process = job(head, "sweep_dict_size", *flags, "--log", "json")
    wait_for(lambda: 1 in running(events(log)), process, log)
    assert max(running(events(log))) == 1
    head.add_node(num_cpus=1)
    assert process.wait(LIMIT) == 0, log.read_text()
    assert max(running(events(log))) == 2
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = [run for run in found if run.data.tags["ccim.kind"] == "sweep"]
    loads = [name for name in parent.data.metrics if name.startswith("system/")]
    assert {name.partition("/")[2].partition("/")[0] for name in loads} >= {"node_0", "node_1"}, loads
    assert 0 <= parent.data.metrics["system/node_1/system_memory_usage_percentage"] <= 100


def test_a_group_of_two_spans_two_machines_of_one_cpu(cluster, job, tmp_path: Path) -> None:
    log, head = tmp_path / "log", cluster(1)
    flags = ("--preset", "smoke", "--images", "300", "--epochs", "1", "--seeds", "0")
    flags = (*flags, "--trainable", "all", "--workers-per-trial", "2")
    refused = job(head, "train", *flags)
    assert refused.wait(LIMIT) == 2
    assert "a trial asks for as many CPUs and the cluster has 1" in log.read_text()
    head.add_node(num_cpus=1)
    process = job(head, "train", *flags)
    assert process.wait(LIMIT) == 0, log.read_text()
    (folder,) = (tmp_path / "runs" / "trials").iterdir()
    assert json.loads((folder / "result.json").read_text())["status"] == "done"
