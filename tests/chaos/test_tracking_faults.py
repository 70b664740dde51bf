"""MLflow gone, slow, forgetful and full: training goes on, and every metric arrives once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_runs import TABLE, assert_equal, assert_logged_once, ended, run, start, wait_for
from job_runs import TINY
from mlflow import MlflowClient
from tracking_server import Proxy, Server

from ccim_ray.journal import Journal
from ccim_ray.tracking import Tracker

pytestmark = pytest.mark.chaos

SWEEP = (*TINY, "--sizes", "8")
AWAY_SECONDS = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    started = Server(folder)
    yield started
    started.kill()


def test_answers_that_are_lost_create_nothing_twice(server: Server, tmp_path: Path) -> None:
    """MLflow's client asks again when an answer is lost, and the server has done it already."""
    paths = ("/runs/create", "/runs/log-batch", "/runs/update", "/runs/set-tag")
    proxy = Proxy(server.address, lost=paths)
    tracker = Tracker(proxy.address, "caer_s/dict_size", tmp_path / "artifacts")
    parent = tracker.open_parent("sweep", "a sweep", {"a": "1"}, {})
    run = tracker.open_trial(parent, "s1", "N=8", {"seed": "0"}, {})
    with Journal(tmp_path / "journal.jsonl") as journal:
        for step in range(3):
            journal.append(step, {"train/loss": 1.0, "val/accuracy": 0.5})
    tracker.replay(run, tmp_path / "journal.jsonl")
    tracker.log_final(run, {"test/accuracy": 0.5, "val/accuracy": 0.5}, time.time())
    tracker.log_summary(parent, {"mean/test/accuracy/N=8": 0.5}, {})
    tracker.finish(run.run_id, "FINISHED", "because")
    tracker.finish(parent, "FINISHED")
    proxy.close()
    lost = {path.rpartition("/")[2] for path in proxy.lost_answers}
    assert lost == {"create", "log-batch", "set-tag", "update"}
    client = MlflowClient(server.address)
    runs = client.search_runs([client.get_experiment_by_name("caer_s/dict_size").experiment_id])
    assert {each.info.run_id for each in runs} == {parent, run.run_id}
    assert {each.info.status for each in runs} == {"FINISHED"}
    histories = {name: client.get_metric_history(run.run_id, name) for name in client.get_run(run.run_id).data.metrics}
    steps = {name: [point.step for point in points] for name, points in histories.items()}
    assert steps == {"train/loss": [0, 1, 2], "val/accuracy": [0, 1, 2, 3], "test/accuracy": [3]}
    TABLE.add("the answer of an MLflow server lost", len(paths), "nothing", "2 runs, each point once")


@pytest.mark.slow
def test_a_server_that_is_gone_for_a_minute_gets_everything(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage), "--tracking-uri", server.address)
    job = start("sweep_dict_size", *flags, folder=log)
    wait_for(lambda: any(storage.glob("trials/*/journal.jsonl")), process=job)
    server.kill()
    time.sleep(AWAY_SECONDS)
    server.start()
    end = ended(job, log)
    again = run("sweep_dict_size", *flags, folder=log) if end.status else end
    assert again.status == 0, (end, again)
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(server.address, storage)
    in_words = "in the same run" if not end.status else "when the same command ran again"
    TABLE.add(f"the MLflow server killed, and started {AWAY_SECONDS} s later", 1, "nothing", f"{logged}, {in_words}")


@pytest.mark.slow
def test_a_slow_server_loses_nothing(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    proxy = Proxy(server.address, delay=0.5, lost=("/runs/create", "/runs/log-batch"))
    end = run("sweep_dict_size", *SWEEP, "--storage", str(storage), "--tracking-uri", proxy.address, folder=log)
    proxy.close()
    assert (end.status, end.err) == (0, ""), end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(server.address, storage)
    TABLE.add("an MLflow server that answers half a second late, and loses answers", 1, "nothing", logged)


@pytest.mark.slow
def test_a_full_disk_under_mlflow_does_not_stop_training(undisturbed: Path, tmp_path: Path, small_disk: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage), "--tracking-uri", f"sqlite:///{small_disk}/mlflow.db?timeout=5")
    job = start("sweep_dict_size", *flags, folder=log)
    wait_for(lambda: any(storage.glob("derived/features/*/shard-*")), process=job)
    ballast = small_disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4k"], capture_output=True, check=False)
    end = ended(job, log)
    assert len(list(storage.glob("trials/*/result.json"))) == len(list((undisturbed / "trials").iterdir()))
    assert "Traceback" not in end.out + end.err
    ballast.unlink()
    again = run("sweep_dict_size", *flags, folder=log)
    assert (again.status, again.err) == (0, ""), again
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{small_disk}/mlflow.db", storage)
    TABLE.add("the disk of MLflow's database full", 1, "nothing", f"all trials done; again, with room: {logged}")
