"""Processes of this machine: those that name a text, such as a folder, and jobs that are waited for and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from job_runs import ROOT, job_command, job_environment


def processes_naming(text: str) -> list[int]:
    """Ids of the processes whose command line or working folder holds ``text``, this one aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = text in (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            named = named or text in str((folder / "cwd").readlink())
        except OSError:  # it has ended, or is another user's
            continue
        if named and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def end_processes_naming(text: str) -> None:
    """Kill them."""
    for pid in processes_naming(text):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(
    condition: Callable[[], object], seconds: float = 600, process: subprocess.Popen[str] | None = None
) -> None:
    """Until ``condition()``; the process must live meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the job ended too early"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def kill_job_when(reached: Callable[[], object], log: Path, job: str, *flags: str) -> None:
    """Start a job and SIGKILL its own process as soon as ``reached()``; what it printed is in ``log``.

    Processes that Ray started for it live on for a moment.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            job_command(job, *flags), stdout=output, stderr=output, cwd=ROOT, env=job_environment(), text=True
        )
        try:
            wait_for(reached, process=process)
        except AssertionError as error:
            raise AssertionError(f"{error}: {log.read_text()}") from error
        finally:
            process.kill()
            process.wait()
