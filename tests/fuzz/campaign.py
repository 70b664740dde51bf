"""Mutated inputs for every parser: nothing but the named errors, bounded memory, and no file touched outside.

    PYTHONPATH=tests python -m fuzz.campaign [--inputs 100000] [--seed 0] [--only NAME ...] [--keep FOLDER]

Each target runs in child processes that are held to MEMORY bytes more than they start with. Where atheris is installed
it chooses inputs by the code that they reach; otherwise mutation is blind, and the first line says so. What a failure
was made of is kept in FOLDER. Exit status 1 where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MEMORY = 1 << 30
"""Bytes of address space beyond what a process that has imported everything takes."""

SILENT_SECONDS = 60
"""A single input may take, on a busy machine."""

MOST_FAILURES = 5
"""Shown of one target; it goes on all the same."""


@dataclass
class Told:
    """What became of a target's inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.outcomes.total()


def run_target(name: str, inputs: int, seed: int, guided: bool, keep: Path) -> Told:
    """All inputs of one target, in as many processes as it takes: one that dies ends at the input that killed it."""
    from fuzz.targets import state_of, write_canary

    told = Told()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary)
        canary = write_canary(folder)
        before = state_of(canary)
        attempt = 0
        while told.inputs < inputs and len(told.failures) < 20:
            apart = folder / f"process-{attempt}"
            apart.mkdir()
            (apart / "canary").symlink_to(canary)
            ended = _process(name, inputs - told.inputs, seed * 1000 + attempt, guided, apart)
            for line in _lines(apart / "told.jsonl"):
                told.outcomes[line["outcome"]] += 1
                if line["outcome"] == "failed":
                    told.failures.append(
                        f"{line['what']} [{_kept(keep, name, len(told.failures), bytes.fromhex(line['input']))}]"
                    )
            if ended is not None:
                data = (apart / "current").read_bytes() if (apart / "current").exists() else b""
                _judge_death(name, ended, data, told, folder / f"again-{attempt}", canary, keep)
            attempt += 1
        if state_of(canary) != before:
            told.failures.append("it touched the canary")
        beside = {path.name for path in folder.iterdir() if not path.name.startswith(("process-", "again-"))} - {
            "canary"
        }
        if beside:
            told.failures.append(f"it wrote {', '.join(sorted(beside))} outside its root")
    return told


def _process(name: str, inputs: int, seed: int, guided: bool, folder: Path) -> str | None:
    """How the process died; None where it ended well. It is forked, for imports take seconds."""
    from fuzz.worker import work

    (folder / "log").touch()
    process = os.fork()
    if process == 0:
        with (folder / "log").open("wb", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                work(name, inputs, seed, guided, folder, MEMORY)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
    last, changed = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
        size = (folder / "told.jsonl").stat().st_size if (folder / "told.jsonl").exists() else -1
        if size != last:
            last, changed = size, time.monotonic()
        elif time.monotonic() - changed > SILENT_SECONDS:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return f"no answer within {SILENT_SECONDS} s"
    code = os.waitstatus_to_exitcode(status)
    words = (folder / "log").read_text(errors="replace").strip().splitlines()
    return f"ended with {code}: {words[-1][:300] if words else 'no word'}" if code else None


def _judge_death(name: str, ended: str, data: bytes, told: Told, folder: Path, canary: Path, keep: Path) -> None:
    """Where the product reads in a process of its own, that way must end with the named error."""
    from fuzz.targets import NAMED, make_target

    folder.mkdir()
    (folder / "canary").symlink_to(canary)
    target = make_target(name, folder)
    if target.in_own_process is None or "ended with -" not in ended:
        told.outcomes["failed"] += 1
        told.failures.append(f"{ended} [{_kept(keep, name, len(told.failures), data)}]")
        return
    try:
        target.in_own_process(data)
        told.outcomes["read"] += 1  # what SciPy reads beyond its buffer differs from process to process
    except NAMED:
        told.outcomes["crash held by a process of its own"] += 1


def _lines(path: Path) -> list[dict[str, str]]:
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


def _kept(keep: Path, name: str, number: int, data: bytes) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{kept_name(name)}-{number}"
    path.write_bytes(data)
    return path


def kept_name(target: str) -> str:
    """As a file may be called."""
    return "".join(letter if letter.isalnum() else "_" for letter in target)


def _instrumented() -> contextlib.AbstractContextManager[None]:
    import atheris

    instrumented: contextlib.AbstractContextManager[None] = atheris.instrument_imports(include=["ccim_ray"])
    return instrumented


def main() -> int:
    os.environ.update(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="2")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, shared among the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="targets, of those that a run names")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder for inputs that failed")
    flags = parser.parse_args()
    guided = importlib.util.find_spec("atheris") is not None
    # Everything is imported here, once; atheris counts the code that it has seen being imported.
    with _instrumented() if guided else contextlib.nullcontext():
        from fuzz.targets import SHARES, names
    chosen = flags.only or list(names())
    if unknown := set(chosen) - set(names()):
        parser.error(f"unknown target {sorted(unknown)[0]!r}; choose of {', '.join(names())}")
    how = "guided by the code that they reach (atheris)" if guided else "blind: atheris is not installed"
    each = flags.inputs / sum(SHARES.get(name, 1) for name in chosen)
    print(f"{flags.inputs} mutated inputs to {len(chosen)} targets, seed {flags.seed}, {how}", flush=True)
    total, failed, started = Counter[str](), 0, time.monotonic()
    for name in chosen:
        began = time.monotonic()
        told = run_target(name, math.ceil(each * SHARES.get(name, 1)), flags.seed, guided, flags.keep)
        total += told.outcomes
        failed += len(told.failures)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.outcomes.items()))
        print(f"{name:26} {told.inputs:6} inputs in {time.monotonic() - began:5.1f} s: {counts}", flush=True)
        for failure in told.failures[:MOST_FAILURES]:
            print(f"    {failure}", flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
    print(f"{total.total()} inputs in {time.monotonic() - started:.0f} s: {counts}; {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
