"""What listens, and where, while a job or a cluster runs and MLflow's pages are open: the table of docs/security.md."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_runs import TINY, job_command, job_environment
from tracking_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOOPBACK = "127.0.0.1"
JOB = ("sweep_dict_size", *TINY, "--sizes", "8", "--seeds", "0")

ASK = """
import sys
from ray._raylet import GcsClient
print("answered", len(GcsClient(address=f"127.0.0.1:{sys.argv[1]}").internal_kv_keys(b"", None, 5)))
"""


@pytest.fixture(autouse=True)
def sockets():
    if shutil.which("ss") is None:
        pytest.skip("needs ss of iproute2")


def parents():
    """Parent of every process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        except (OSError, ValueError):
            continue
    return found


def listening(ancestor):
    """(program, address, port) of everything that it or what it started listens on."""
    parent_of = parents()
    found = set()
    for line in subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        for program, pid in re.findall(r'\("([^"]+)",pid=(\d+)', line):
            above = int(pid)
            while above not in (0, 1, ancestor):
                above = parent_of.get(above, 0)
            if above == ancestor:
                found.add((program, address, int(port)))
    return found


class Started:
    """A program in a session of its own; ended, with what it started, at the end of the block."""

    def __init__(self, command, environment, log):
        self.log, self.seen = log, set()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def watch(self, until):
        """Note what listens until ``until()`` holds."""
        while not until():
            assert self.process.poll() is None or until(), self.log.read_text()
            self.seen |= listening(self.process.pid)
            time.sleep(0.2)
        return self.seen

    def programs(self):
        return {program for program, _, _ in self.seen}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def answers(port, **environment):
    """Whether Ray's head answers."""
    ended = subprocess.run(
        [sys.executable, "-c", ASK, str(port)],
        env=job_environment() | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "answered" in ended.stdout or "token" in ended.stderr.lower(), ended.stderr
    return "answered" in ended.stdout


def test_a_job_opens_ray_alone_and_that_to_the_token_alone(tmp_path):
    home = {"HOME": str(tmp_path)}
    command = job_command(*JOB, "--storage", str(tmp_path / "runs"))
    with Started(command, job_environment() | home, tmp_path / "job.log") as job:
        job.watch(lambda: {"gcs_server", "raylet"} <= job.programs())
        (port,) = (port for program, _, port in job.seen if program == "gcs_server")
        assert (tmp_path / ".ray/auth_token").is_file()
        assert answers(port, RAY_AUTH_MODE="token", **home)
        assert not answers(port, RAY_AUTH_MODE="disabled", **home)
        job.watch(lambda: "mlflow ui" in job.log.read_text())
    beyond = {program for program, address, _ in job.seen if address != LOOPBACK}
    assert {name for name in beyond if not name.startswith("ray::")} <= {
        "gcs_server",
        "raylet",
        Path(sys.executable).name,
    }
    assert 8265 not in {port for _, _, port in job.seen}
    ui = re.search(r"mlflow ui --backend-store-uri .+", job.log.read_text())
    command = [sys.executable, "-m", *shlex.split(ui[0]), "--port", str(free_port())]
    with Started(command, job_environment(), tmp_path / "ui.log") as pages:
        pages.watch(lambda: pages.seen)
    assert {address for _, address, _ in pages.seen} == {LOOPBACK}


def test_the_head_of_a_cluster_keeps_its_dashboard_to_itself(tmp_path_factory):
    """As the page says to start it, with ports and a folder of its own."""
    home = tmp_path_factory.mktemp("h")
    environment = job_environment() | {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(home)}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    port, dashboard = free_port(), free_port()
    flags = [f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=1", "--disable-usage-stats", "--block"]
    flags += [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "ray-client-server-port")]
    with Started([*ray, "start", "--head", *flags], environment, home / "head.log") as head:
        head.watch(lambda: {port, dashboard} <= {seen for _, _, seen in head.seen})
        assert answers(port, RAY_AUTH_MODE="token", HOME=str(home))
        assert not answers(port, RAY_AUTH_MODE="disabled", HOME=str(home))
    assert {address for _, address, seen in head.seen if seen == dashboard} == {LOOPBACK}
    assert LOOPBACK not in {address for _, address, seen in head.seen if seen == port}
