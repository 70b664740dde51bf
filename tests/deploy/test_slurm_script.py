"""The SLURM script: shellcheck, what it refuses, and a whole run where SLURM's three commands are small stand-ins."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from running_processes import end_processes_naming, processes_naming

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"

SRUN = """#!/usr/bin/env bash
# Runs the command here, as one node would; every node is this machine.
while [ $# -gt 0 ]; do
    case "$1" in
        --nodes | --ntasks | --nodelist | --ntasks-per-node) shift 2 ;;
        *) break ;;
    esac
done
: "${SRUN_CPUS_PER_TASK:?is not set, and since SLURM 22.05 a step without it has one CPU}"
[ "$1" != hostname ] || { echo "$ADDRESS_OF_THE_HEAD"; exit; }
exec "$@"
"""
SCONTROL = "#!/usr/bin/env bash\necho node1\necho node2\n"


def test_bash_can_read_it():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_shellcheck_has_nothing_to_say():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("no shellcheck; the extra dev brings it")
    ended = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def run(*words, **environment):
    return subprocess.run(
        [SCRIPT, *words], capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )


def test_what_is_missing_is_said_in_one_line(tmp_path):
    no_job = run()
    assert (no_job.returncode, no_job.stderr) == (
        2,
        "error: name a job, such as jobs/sweep_dict_size.py, and its flags\n",
    )
    no_environment = run("jobs/train.py", SLURM_SUBMIT_DIR=str(tmp_path))
    assert no_environment.returncode == 2
    assert no_environment.stderr == f"error: {tmp_path}/.venv is missing; run make install there\n"


def address_here():
    """One that is not a loopback address, which the script refuses; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no address here but the loopback's")
        return asked.getsockname()[0]


@pytest.fixture
def allocation():
    """Environment of a job with two nodes, and the folder it was sent from."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    commands = folder / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    submitted = folder / "repository"
    (submitted / ".venv" / "bin").mkdir(parents=True)
    (submitted / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (submitted / ".venv" / "bin" / "activate").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    for name in ("jobs", "ccim_ray", "search_spaces"):
        (submitted / name).symlink_to(ROOT / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = str(os.getpid())
    dropped = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CCIM_RAY_STORAGE", "CCIM_RAY_WEIGHTS")
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_SUBMIT_DIR": str(submitted),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        "ADDRESS_OF_THE_HEAD": address_here(),
        "RAY_PORT": str(port),
    }
    yield environment, submitted
    end_processes_naming(str(folder))
    end_processes_naming(f"ccim_ray-{job}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(f"/tmp/ccim_ray-{job}", ignore_errors=True)


@pytest.mark.parametrize("address", ["127.0.1.1", "::1", "127.0.0.1 ::1"])
def test_a_head_that_names_itself_by_a_loopback_address_is_refused(allocation, address):
    environment, submitted = allocation
    ended = run("probe.py", **environment | {"ADDRESS_OF_THE_HEAD": address})
    first = address.partition(" ")[0]
    assert (ended.returncode, ended.stderr) == (
        2,
        f"error: node1 gives {first} as its own address, where no other node finds it; mend its /etc/hosts\n",
    )
    assert not list(submitted.glob(".ray-*"))


def test_every_step_is_told_its_cpus(allocation):
    environment, submitted = allocation
    srun = submitted.parent / "bin" / "srun"
    srun.write_text('#!/usr/bin/env bash\necho "steps of $SRUN_CPUS_PER_TASK CPUs" >&2\nexit 1\n')
    assert run("probe.py", **environment | {"SLURM_CPUS_PER_TASK": "6"}).stderr == "steps of 6 CPUs\n"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_job_runs_on_both_nodes_and_leaves_nothing_behind(allocation):
    environment, submitted = allocation
    (submitted / "probe.py").write_text(
        "import os, ray\n"
        "ray.init(log_to_driver=False)\n"
        "print('nodes', len(ray.nodes()), 'cpus', ray.cluster_resources()['CPU'], os.environ['RAY_AUTH_MODE'])\n"
    )
    ended = subprocess.run(
        [SCRIPT, "probe.py"], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nodes 2 cpus 2.0 token" in ended.stdout
    assert not list(submitted.glob(".ray-*"))
    assert not Path(f"/tmp/ccim_ray-{environment['SLURM_JOB_ID']}").exists()
    assert processes_naming(f"{environment['ADDRESS_OF_THE_HEAD']}:{environment['RAY_PORT']}") == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_when_the_time_is_up_the_job_is_told_and_its_status_is_kept(allocation):
    environment, submitted = allocation
    (submitted / "waits.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(2); pathlib.Path('saved').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path('started').touch()\n"
        "time.sleep(300)\n"
    )
    with (submitted / "log").open("w") as log:
        script = subprocess.Popen([SCRIPT, "waits.py"], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not (submitted / "started").exists():
            assert script.poll() is None, (submitted / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        script.terminate()
        assert script.wait(120) == 143
    assert (submitted / "saved").exists()
