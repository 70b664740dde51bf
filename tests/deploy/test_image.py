"""The Dockerfile's steps as plain commands: /etc, /home and /opt are private to the test, the rest is this machine.

It needs root (for a mount namespace) and, for what the steps install, a package index.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def instructions():
    """(word, rest) of every instruction, continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "\n", "\n".join(lines).replace("\\\n", "\x00"))
    for instruction in joined.split("\n"):
        word, _, rest = instruction.replace("\x00", "\\\n").partition(" ")
        yield word, rest.strip()


def is_left_out(word, rest):
    """apt-get writes to /usr and /var, which are this machine's: what it installs is read below, and not installed."""
    return word == "RUN" and rest.startswith("apt-get ")


def script(arguments, interpreter):
    """A shell script that does what the instructions say, in order; of the image they start from, ``python``."""
    lines = ["set -eu", f"mkdir /opt/image && ln -s {interpreter} /opt/image/python", "export PATH=/opt/image:$PATH"]
    for word, rest in instructions():
        if is_left_out(word, rest):
            continue
        if word == "RUN":
            lines.append(f"( {rest}\n)")
        elif word == "ENV":
            lines.append(f"export {rest}")
        elif word == "ARG":
            name, _, default = rest.partition("=")
            lines.append(f"{name}={shlex.quote(arguments.get(name, default))}")
        elif word == "COPY":
            *sources, target = rest.split()
            made = target if target.endswith("/") else str(Path(target).parent)
            lines.append(f"mkdir -p {made} && cp -r {' '.join(str(ROOT / source) for source in sources)} {target}")
        elif word == "USER":
            user = rest
        elif word == "WORKDIR":
            folder = rest
        elif word == "CMD":
            command = shlex.join(json.loads(rest))
        else:
            assert word == "FROM", word
    # The variables of the image stay; those of the machine that would change the outcome go.
    as_user = f"HOME=/home/{user} setpriv --reuid {user} --regid {user} --clear-groups"
    lines.append(f"cd {folder} && {as_user} {command}")
    # So `ray up` runs its commands; and its token is readable for the group of this number.
    lines += [f"{as_user} bash --login -c 'ray --version'", f"id --group {user}"]
    return "\n".join(lines)


def in_private_folders(folder, commands, **limits):
    mounts = ["set -eu", "mount --make-rprivate /"]
    for name in ("etc", "opt", "home"):
        upper, work = folder / name / "upper", folder / name / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        upper.chmod(0o755)
        mounts.append(f"mount -t overlay overlay -o lowerdir=/{name},upperdir={upper},workdir={work} /{name}")
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", "\n".join([*mounts, commands])],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        **limits,
    )


@pytest.fixture
def private(tmp_path):
    tried = in_private_folders(tmp_path / "tried", "true")
    if os.geteuid() != 0 or tried.returncode:
        pytest.skip(f"no mount namespace here: {tried.stderr.strip()}")
    return tmp_path / "image"


@pytest.fixture
def interpreter():
    """A Python of this machine that a user without rights may run, as that of the image; root's own is hidden."""
    asked = "import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
    # setpriv gives up its rights after it has found the program: a shell finds this one without them.
    user = ("setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups", "sh", "-c", 'exec "$0" "$@"')
    for found in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        ended = subprocess.run([*user, found, "-c", asked], capture_output=True, check=False)
        if ended.returncode == 0:
            return found
    pytest.skip("no Python 3.11 to 3.13 here that a user without rights may run")


def test_the_steps_end_without_root():
    words = [word for word, _ in instructions()]
    assert words.count("USER") == 1
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


def test_one_step_alone_is_not_run_here_and_it_installs_what_ray_up_copies_with():
    [left_out] = [rest for word, rest in instructions() if is_left_out(word, rest)]
    assert "install --yes --no-install-recommends rsync &&" in left_out
    assert left_out.endswith("rm -rf /var/lib/apt/lists/*")


def test_a_login_shell_finds_the_environment(private):
    """/etc/profile sets a PATH of its own, and `ray up` runs every command in a login shell."""
    [step] = [rest for word, rest in instructions() if word == "RUN" and "/etc/profile.d" in rest]
    asked = "HOME=/nowhere bash --login -c 'echo $PATH'"
    before, after = in_private_folders(private, f"{asked}\n( {step} )\n{asked}").stdout.split()
    assert not before.startswith("/opt/venv/bin:")
    assert after.startswith("/opt/venv/bin:")


def test_an_unknown_device_stops_the_build(private):
    steps = [rest for word, rest in instructions() if word == "RUN" and "DEVICE" in rest]
    assert len(steps) == 1
    ended = in_private_folders(private, f"DEVICE=tpu\n{steps[0]}")
    assert (ended.returncode, ended.stderr) == (2, "DEVICE=tpu: give cpu or gpu\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_steps_make_an_environment_that_runs_a_job(private, interpreter):
    """The wheels of DEVICE=gpu run on CPUs too; 6 GB are installed and taken away again."""
    try:
        ended = in_private_folders(private, script({"DEVICE": "gpu"}, interpreter), timeout=1700)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert "--sizes" in ended.stdout
        *_, version, group = ended.stdout.splitlines()
        assert version.startswith("ray, version ")
        assert f"sudo chgrp {group} /tmp/ray_tmp_mount/" in (ROOT / "deploy" / "ray_up.yaml").read_text()
    finally:
        shutil.rmtree(private, ignore_errors=True)
