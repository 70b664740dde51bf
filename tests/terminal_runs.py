"""Jobs on a pseudo-terminal, where Ctrl-C is typed once the screen shows something, and what they leave running."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import secrets
import select
import signal
import struct
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from job_runs import ROOT, job_command, job_environment

CTRL_C = b"\x03"
SECONDS_TO_LEAVE = 20
"""For processes that end after the job whose they are, as Ray's do."""


@dataclass(frozen=True)
class Screen:
    """How a job on a terminal ended: status, what was written, and the ids of processes that it left behind."""

    status: int
    text: str
    left: list[int]


def job_on_a_terminal(name: str, *flags: str, interrupt_at: tuple[str, ...] = (), limit: float = 280) -> Screen:
    """Ctrl-C is typed when the screen shows the first pattern, again when what follows shows the second, and so on."""
    command, mark = job_command(name, *flags), f"TERMINAL_RUN={secrets.token_hex(8)}"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and hands that on
        variable, _, value = mark.partition("=")
        os.execve(command[0], command, job_environment() | {"TERM": "xterm-256color", variable: value})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    screen, seen, deadline = b"", 0, time.monotonic() + limit
    to_come = list(interrupt_at)
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:  # what Linux raises where the other end is closed
                break
        if to_come and re.search(to_come[0].encode(), screen[seen:]):
            os.write(terminal, CTRL_C)
            seen = len(screen)
            del to_come[0]
    else:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    return Screen(
        status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode(errors="replace")), left_behind(mark.encode())
    )


def left_behind(mark: bytes) -> list[int]:
    """Processes with this in their environment that do not end by themselves."""
    deadline = time.monotonic() + SECONDS_TO_LEAVE
    while (found := _processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _processes_with(mark: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
