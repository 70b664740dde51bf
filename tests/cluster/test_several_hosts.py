"""A sweep on several hosts with addresses of their own: submitted with a token, and one worker is cut off.

Once on a folder of the local disk that all of them see, once on GlusterFS, a network file system whose servers and
clients are programs: there each host has a client of its own, which is cut off together with its host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import Hosts, wait_until
from job_runs import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

EPOCHS = 60
SWEEP = f"--preset smoke --images 300 --epochs {EPOCHS} --seeds 0 1 2 --sizes 8 16".split()
TRIALS = 12
BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "something", "AWS_EC2_METADATA_DISABLED": "true"}
PASSWORD = "not-a-secret"  # pragma: allowlist secret

IN_MLFLOW = """
import json, mlflow
client = mlflow.MlflowClient()
(experiment,) = [e for e in client.search_experiments() if e.name == "confounded_scenes/dict_size"]
runs = client.search_runs([experiment.experiment_id], max_results=1000)
print(json.dumps([
    {"status": run.info.status, "tags": run.data.tags, "artifacts": len(client.list_artifacts(run.info.run_id)),
      "steps": [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]}
    for run in runs
]))
"""


SERVE_FILES = """
set -e
for own in /var/lib/glusterd /var/log/glusterfs /run; do mount -t tmpfs tmpfs "$own"; done
mkdir -p /run/gluster
glusterd
until gluster pool list > /dev/null 2>&1; do sleep 0.5; done
gluster --mode=script volume create shared "$0:$1" force
gluster --mode=script volume start shared
exec sleep infinity
"""


def program(name: str) -> str:
    """A server's program, from the path or from where Debian puts it. Skips the test where there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    pytest.importorskip("psycopg2")
    with Hosts(("head", "worker1", "worker2", "tracking", "laptop", "files"), tmp_path) as hosts:
        yield hosts


@dataclass(frozen=True)
class SharedFolder:
    """A folder of all hosts: its path on those that ran ``mount``, and where this process finds the same files."""

    path: Path
    mount: str
    seen_at: Path


@pytest.fixture(params=["local disk", "GlusterFS"])
def shared(request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path) -> SharedFolder:
    folder = tmp_path / "shared"
    folder.mkdir()
    if request.param == "local disk":
        return SharedFolder(folder, "true", folder)
    for needed in ("glusterd", "gluster", "mount.glusterfs"):
        program(needed)
    brick, address = tmp_path / "brick", hosts.address("files")
    brick.mkdir()
    hosts.start("files", "sh", "-c", SERVE_FILES, address, str(brick))
    try_out = f"mount -t glusterfs {address}:/shared {folder} && touch {folder}/a"
    wait_until(lambda: hosts.run("files", "sh", "-c", try_out).returncode == 0, 120, "GlusterFS to answer")
    return SharedFolder(folder, f"mount -t glusterfs {address}:/shared {folder}", brick)


@pytest.fixture
def tracking_uri(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow on a host of its own, with PostgreSQL behind it and artefacts on a server that speaks S3."""
    address = hosts.address("tracking")
    hosts.start("tracking", str(BIN / "moto_server"), "-H", address, "-p", "9000")
    data = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    shutil.chown(data, "nobody")
    (data / "password").write_text(PASSWORD)
    (data / "password").chmod(0o644)
    as_nobody = ["runuser", "-u", "nobody", "--"]
    made = [program("initdb"), "-D", f"{data}/pg", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={data}/password"]
    subprocess.run([*as_nobody, *made], check=True, capture_output=True)
    with (data / "pg" / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {address}/24 scram-sha-256\n")
    options = ["-D", f"{data}/pg", "-h", address, "-k", str(data)]
    hosts.start("tracking", *as_nobody, program("postgres"), *options)
    hosts.wait_until_open("tracking", 5432)
    hosts.wait_until_open("tracking", 9000)
    s3 = {"MLFLOW_S3_ENDPOINT_URL": f"http://{address}:9000", **KEYS}
    bucket = f"import boto3; boto3.client('s3', endpoint_url='http://{address}:9000').create_bucket(Bucket='mlflow')"
    assert hosts.run("tracking", sys.executable, "-c", bucket, environment=s3).returncode == 0
    database = f"postgresql+psycopg2://mlflow:{PASSWORD}@{address}:5432/postgres"
    served = ["--host", address, "--port", "5000", "--workers", "1", "--allowed-hosts", f"{address}:5000"]
    stores = ["--backend-store-uri", database, "--artifacts-destination", "s3://mlflow"]
    hosts.start("tracking", str(BIN / "mlflow"), "server", *served, *stores, environment=s3)
    hosts.wait_until_open("tracking", 5000, 240)
    return f"http://{address}:5000"


@pytest.fixture
def cluster(hosts: Hosts, shared: SharedFolder) -> Iterator[dict[str, str]]:
    """A head that trains nothing and two workers; the environment of who may submit to it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    token["PATH"] = f"{BIN}:{os.environ['PATH']}"  # a submitted `python` is the head's
    address = hosts.address("head")
    ray = [str(BIN / "ray"), "start", "--block"]
    temporary = Path(tempfile.mkdtemp(prefix="ccim", dir="/tmp"))  # short: names of sockets have a limit
    # Each host has one of its own there. Shared, one node would clear away the working folder of another's job.
    ray = ["sh", "-c", f'mount -t tmpfs tmpfs {temporary} && {shared.mount} && exec "$@"', "sh", *ray]
    as_head = ["--head", "--port=6379", f"--node-ip-address={address}", f"--dashboard-host={address}", "--num-cpus=0"]
    hosts.start("head", *ray, *as_head, f"--temp-dir={temporary}", environment=token)
    hosts.wait_until_open("head", 8265, 180)
    for name in ("worker1", "worker2"):
        own = ["--num-cpus=1", f"--node-ip-address={hosts.address(name)}"]
        hosts.start(name, *ray, f"--address={address}:6379", *own, environment=token)
    yield token | {"RAY_API_SERVER_ADDRESS": f"http://{address}:8265"}
    temporary.rmdir()  # empty here: what the hosts wrote lay in file systems of their own


def test_a_sweep_ends_right_though_a_worker_is_cut_off(
    hosts: Hosts, cluster: dict[str, str], tracking_uri: str, shared: SharedFolder
) -> None:
    storage, seen = shared.path / "storage", shared.seen_at / "storage"
    job = ["python", "jobs/sweep_dict_size.py", *SWEEP, "--storage", str(storage), "--tracking-uri", tracking_uri]
    submit = [str(BIN / "ray"), "job", "submit", "--working-dir", str(ROOT), "--submission-id", "sweep", "--no-wait"]
    without_token = {**cluster, "RAY_AUTH_TOKEN": "f" * 64}
    refused = hosts.run("laptop", *submit, "--", *job, environment=without_token)
    assert refused.returncode != 0
    assert not seen.exists()

    accepted = hosts.run("laptop", *submit, "--", *job, environment=cluster)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr

    def status() -> str:
        """In small letters: Ray writes of a job that runs RUNNING, and of one that has ended "succeeded"."""
        return hosts.run("laptop", str(BIN / "ray"), "job", "status", "sweep", environment=cluster).stdout.lower()

    def ran_on() -> Counter[str]:
        found = seen.glob("trials/*/environment.json")
        return Counter(json.loads(path.read_text())["ccim.host"] for path in found)

    def is_under_way() -> bool:
        assert "failed" not in status(), logs(hosts, cluster)
        return ran_on()["worker1"] > 0 and ran_on()["worker2"] > 0

    wait_until(is_under_way, 600, "trials on both workers")
    hosts.cut("worker2")
    cut_off = ran_on()["worker2"]
    wait_until(lambda: "succeeded" in status() or "failed" in status(), 600, "the job to end")
    assert "succeeded" in status(), logs(hosts, cluster)

    asked = hosts.run(
        "laptop", sys.executable, "-c", IN_MLFLOW, environment={"MLFLOW_TRACKING_URI": tracking_uri}, timeout=240
    )
    assert asked.returncode == 0, asked.stderr
    runs = json.loads(asked.stdout.splitlines()[-1])
    trials = [run for run in runs if "ccim.signature" in run["tags"]]
    assert len(trials) == TRIALS
    assert len({run["tags"]["ccim.signature"] for run in trials}) == TRIALS
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert len(runs) == TRIALS + 1
    assert all(run["steps"] == list(range(EPOCHS)) for run in trials)
    assert all(run["artifacts"] for run in runs)
    where = Counter(run["tags"]["ccim.host"] for run in trials)
    assert set(where) <= {"worker1", "worker2"}
    assert where["worker2"] <= cut_off
    assert where["worker1"] >= TRIALS - cut_off


def logs(hosts: Hosts, environment: dict[str, str]) -> str:
    return hosts.run("laptop", str(BIN / "ray"), "job", "logs", "sweep", environment=environment).stdout
