"""`ray job submit --working-dir .` on a cluster whose nodes have the dependencies of the package and not the package.

The cluster is one node of a Python that sees every installed package but the editable one, with token authentication.
It has ports, a home and a temporary folder of its own, so it meets no other cluster on the machine.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest
from running_processes import end_processes_naming

ROOT = Path(__file__).parents[2]
SMOKE = ("--preset", "smoke", "--images", "300")

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A head node, and a repository to submit from."""

    def __init__(self, folder):
        self.folder = folder
        self.python = python_without_the_package(folder / "venv")
        self.repository = copy_of_the_repository(folder / "repository")
        self.storage = folder / "home" / "ccim_ray_runs"
        (folder / "home").mkdir()
        dropped = ("PYTHONPATH", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CCIM_RAY_STORAGE", "CCIM_RAY_WEIGHTS")
        dashboard = free_port()
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "HOME": str(folder / "home"),
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_AUTH_MODE": "token",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        self.ray("get-auth-token", "--generate")
        ports = ("port", "dashboard-agent-listen-port", "ray-client-server-port")
        self.head = subprocess.Popen(
            self.ray_command("start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", "--disable-usage-stats")
            + [f"--{name}={free_port()}" for name in ports]
            + [f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"],
            env=self.environment,
            cwd=folder,
            stdout=(folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.wait(lambda: self.ray("job", "list", check=False).returncode == 0, "the head to answer")

    def ray_command(self, *words):
        return [str(self.python), "-m", "ray.scripts.scripts", *words]

    def ray(self, *words, check=True, cwd=None, timeout=280):
        ended = subprocess.run(
            self.ray_command(*words),
            env=self.environment,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or ended.returncode == 0, ended.stdout + ended.stderr
        return ended

    def submit(self, *words, check=True, wait=True):
        how = [] if wait else ["--no-wait"]
        return self.ray("job", "submit", *how, "--working-dir", ".", *words, check=check, cwd=self.repository)

    def status(self, submission):
        said = self.ray("job", "status", submission).stdout.upper()  # small letters, of a job that has ended
        return next(word for word in ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING") if word in said)

    def wait(self, condition, what, seconds=240):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.head.poll() is None, (self.folder / "head.log").read_text()
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(1)

    def journals(self):
        found = self.storage.glob("trials/*/journal.jsonl")
        return {path: [json.loads(line) for line in path.read_text().splitlines()] for path in found}

    def close(self):
        self.head.send_signal(signal.SIGTERM)
        try:
            self.head.wait(30)
        except subprocess.TimeoutExpired:
            self.head.kill()
        end_processes_naming(str(self.folder))


def python_without_the_package(folder):
    """An interpreter with the installed packages on its path, where no .pth file of theirs is read."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def copy_of_the_repository(folder):
    """What git knows or would; and beside it what must not be shipped: results and an environment, 120 MB of them."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name in ("runs/features.bin", ".venv/lib/libtorch.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(60 * 2**20))
    return folder


@pytest.fixture(scope="module")
def cluster():
    # Ray's sockets lie below its folder and their paths may have 107 characters, which pytest's own folders take.
    folder = Path(tempfile.mkdtemp(prefix="ccim-", dir="/tmp"))
    opened = None
    try:
        opened = Cluster(folder)
        yield opened
    finally:
        if opened:
            opened.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(600)
def test_a_submitted_sweep_brings_the_package_and_nothing_else(cluster):
    code = "import importlib.util as u; print(u.find_spec('ray') is not None, u.find_spec('ccim_ray'))"
    seen = subprocess.run(
        [cluster.python, "-c", code], cwd="/", env=cluster.environment, capture_output=True, text=True
    )
    assert seen.stdout.strip() == "True None"

    ended = cluster.submit("--", "python", "jobs/sweep_dict_size.py", *SMOKE, "--epochs", "2", check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Done in" in ended.stdout
    [results] = cluster.storage.glob("sweeps/*/results.csv")
    assert "CCIM N=8" in results.read_text()

    [shipped] = (cluster.folder / "ray" / "ray").glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert (shipped / "jobs" / "sweep_dict_size.py").is_file()
    assert not (shipped / "runs").exists()
    assert not (shipped / ".venv").exists()
    assert sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file()) < 20 * 2**20


@pytest.mark.timeout(600)
def test_a_submitted_plan_is_of_the_cluster(cluster):
    """Hours and cost are known once a trial was measured there, such as in the test above."""
    job = ("--", "python", "jobs/sweep_dict_size.py", *SMOKE, "--epochs", "2", "--sizes", "32", "--seeds", "7")
    before = set(cluster.storage.glob("trials/*"))
    said = cluster.submit(*job, "--plan", "--price-per-hour", "2.50").stdout
    assert "Training on 2 CPUs, no GPU:" in said
    assert re.search(r"Cost( of training: [\d.]+, at 2\.5 for an hour of one CPU|: not known)", said)
    assert set(cluster.storage.glob("trials/*")) == before


@pytest.mark.timeout(600)
def test_a_stopped_job_saves_and_the_same_job_goes_on(cluster):
    job = ("--", "python", "jobs/train.py", *SMOKE, "--epochs", "20000")
    before = set(cluster.journals())
    cluster.submit("--submission-id", "first", *job, wait=False)

    def of_this_job():
        return {path: lines for path, lines in cluster.journals().items() if path not in before}

    cluster.wait(lambda: any(len(lines) > 20 for lines in of_this_job().values()), "the first epochs")
    cluster.ray("job", "stop", "first")
    cluster.wait(lambda: cluster.status("first") == "STOPPED", "the job to leave")
    assert (
        "SIGTERM: leaving; the same command goes on from the last epochs" in cluster.ray("job", "logs", "first").stdout
    )
    [(path, trained)] = of_this_job().items()
    assert not (path.parent / "result.json").exists()

    cluster.submit("--submission-id", "second", *job, wait=False)
    cluster.wait(lambda: len(cluster.journals()[path]) > len(trained), "an epoch more")
    cluster.ray("job", "stop", "second")
    cluster.wait(lambda: cluster.status("second") == "STOPPED", "the job to leave again")
    went_on = cluster.journals()[path]
    assert [line["step"] for line in went_on] == list(range(len(went_on)))
    kept = [line for line, earlier in zip(went_on, trained, strict=False) if line == earlier]
    assert len(kept) >= len(trained) - 1  # one may have ended after the checkpoint that it left with


@pytest.mark.timeout(120)
def test_nobody_submits_without_the_token(cluster):
    stranger = cluster.environment | {"HOME": str(cluster.folder / "stranger"), "RAY_AUTH_TOKEN": "0" * 32}
    ended = subprocess.run(
        cluster.ray_command("job", "submit", "--", "true"), env=stranger, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "token" in (ended.stdout + ended.stderr).lower()
