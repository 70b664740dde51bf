"""Which processes of this machine name a text, such as a test's own folder, on their command line."""

from __future__ import annotations

import os
import signal
from pathlib import Path


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
