"""The process that reads one target's mutated inputs; the campaign forks it, and counts what it writes down."""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from fuzz.mutations import LONGEST, mutated
from fuzz.targets import make_target, outcome

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.getaddrinfo",
)
CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)


class Touched(BaseException):
    """A file outside the root was written, one of the canary's opened, or a program started."""


class Guard:
    """Watches what Python does while ``watching``; what C++ and Rust do shows in the canary and beside the root."""

    def __init__(self, root: Path) -> None:
        self.watching = False
        self._root = os.path.realpath(root)
        self._canary = os.path.realpath(root.parent / "canary")
        self._allowed = (self._root + os.sep, "/dev/", "/proc/", tempfile.gettempdir() + "/tmp")
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event in FORBIDDEN:
            raise Touched(f"{event}{arguments!r:.200}")
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(self._canary) or ((arguments[2] or 0) & WRITING and not self._is_allowed(path)):
                raise Touched(f"open {path}")
        elif event in CHANGING:
            for argument in arguments:
                if isinstance(argument, str | bytes | os.PathLike):
                    folder, name = os.path.split(os.path.abspath(os.fsdecode(argument)))  # noqa: PTH100
                    path = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
                    if not self._is_allowed(path + os.sep):
                        raise Touched(f"{event} {path}")

    def _is_allowed(self, path: str) -> bool:
        return path.startswith(self._allowed)


def limit_memory(more: int) -> None:
    """Hold this process to ``more`` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Reader:
    """Reads inputs and writes down what became of each."""

    def __init__(self, name: str, folder: Path) -> None:
        self.target = make_target(name, folder)
        for seed in self.target.seeds:  # which imports what is imported late
            outcome(self.target, seed)
        self._guard = Guard(folder / "root")
        self._current = (folder / "current").open("wb", buffering=0)
        self._told = (folder / "told.jsonl").open("w")
        self._length = 0

    def read(self, data: bytes) -> None:
        """One input."""
        os.pwrite(self._current.fileno(), data, 0)
        os.ftruncate(self._current.fileno(), len(data))
        self._guard.watching = True
        try:
            line = {"outcome": outcome(self.target, data)}
        except (Exception, Touched) as error:
            self._guard.watching = False
            frames = traceback.extract_tb(error.__traceback__)
            where = next((f for f in reversed(frames) if "/ccim_ray/" in f.filename), frames[-1])
            what = f"{type(error).__name__}: {error!s:.200} at {Path(where.filename).name}:{where.lineno}"
            line = {"outcome": "failed", "what": " ".join(what.split()), "input": data.hex()}
        finally:
            self._guard.watching = False
        self._told.write(json.dumps(line) + "\n")
        self._told.flush()


def work(name: str, inputs: int, seed: int, guided: bool, folder: Path, memory: int) -> None:
    """Read this many mutated inputs, with at most so many bytes of memory more than now."""
    sys.dont_write_bytecode = True
    reader = Reader(name, folder)
    target = reader.target
    limit_memory(memory)
    if not guided:
        draw = random.Random(seed)
        for _ in range(inputs):
            reader.read(mutated(target.seeds, target.mutations, draw))
        return
    import atheris

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        draw = random.Random(number)
        seeds = (data,) if data and draw.random() < 0.5 else target.seeds
        return mutated(seeds, target.mutations, draw)[:longest]

    # The handlers of libFuzzer would hide from the campaign what ended the process.
    quiet = [f"-handle_{signal}=0" for signal in ("segv", "abrt", "bus", "ill", "fpe")]
    limits = [f"-runs={inputs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=1000"]
    atheris.Setup(["fuzz", "-len_control=0", *limits, *quiet], reader.read, custom_mutator=mutate)
    atheris.Fuzz()
