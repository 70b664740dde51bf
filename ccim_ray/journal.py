"""The journal of one trial: what it measured, one line an epoch, on disk before anything else happens.

The process that trains appends. Whoever follows the trial reads, and may do so at any time.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ccim_ray.errors import RequestError
from ccim_ray.storage import write_durably

CHECKSUM = "crc32"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One epoch: its step, when it was written (unix seconds), and its metrics."""

    step: int
    time: float
    metrics: dict[str, float]


class Journal:
    """Append-only JSON Lines file with strictly increasing steps.

    Opening it creates the folder, and cuts off a last line that a kill left half written.

    Raises:
        RequestError: the file is damaged elsewhere, or cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RequestError(f"cannot write {path}: {error.strerror}; choose another --storage") from error
        try:
            whole, lines = _parse(path, path.read_bytes())
        except RequestError:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, whole)
        self._last_step = lines[-1].step if lines else None

    @property
    def last_step(self) -> int | None:
        """Step of the last line, None while there is none."""
        return self._last_step

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line and wait until the disk has it.

        Raises:
            ValueError: ``step`` is not above the last one; call ``rewind`` first.
            RequestError: the disk is full or gone; the journal is as it was.
        """
        self.extend([JournalLine(step, time.time(), dict(metrics))])

    def extend(self, lines: Sequence[JournalLine]) -> None:
        """Write lines and wait once until the disk has them all. Raises as append."""
        whole = os.fstat(self._descriptor).st_size
        last_step = self._last_step
        try:
            for line in lines:
                if last_step is not None and line.step <= last_step:
                    raise ValueError(f"step {line.step} follows step {last_step} in {self.path}: rewind first")
                encoded = _encode(line)
                if os.write(self._descriptor, encoded) < len(encoded):  # a disk that runs full takes what still fits
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                last_step = line.step
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, whole)
            raise RequestError(f"cannot write {self.path}: {error.strerror}; make room and run again") from error
        self._last_step = last_step

    def rewind(self, step: int) -> None:
        """Drop every line after ``step``, at once or not at all: the epochs that will be trained again."""
        kept = [line for line in read_journal(self.path) if line.step <= step]
        write_durably(self.path, b"".join(_encode(line) for line in kept))
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._last_step = kept[-1].step if kept else None

    def close(self) -> None:
        """Release the file; every line is already on disk."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path, after_step: int = -1) -> list[JournalLine]:
    """Lines with a step above ``after_step``, in order; none where the file does not exist yet.

    A last line without its newline is still being written, or was cut by a kill, and is left out.

    Raises:
        RequestError: any other damage, with the file and the line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [line for line in _parse(path, content)[1] if line.step > after_step]


def _encode(line: JournalLine) -> bytes:
    # JSON has no NaN or infinity, and a diverged loss is a result: these travel as "nan", "inf", "-inf".
    metrics = {
        name: float(value) if math.isfinite(value) else str(float(value)) for name, value in line.metrics.items()
    }
    record = {"step": line.step, "time": line.time, "metrics": metrics}
    return json.dumps(record | {CHECKSUM: _checksum(record)}, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass"))


def _parse(path: Path, content: bytes) -> tuple[int, list[JournalLine]]:
    """Length of the whole lines in bytes, and the lines."""
    whole = content.rfind(b"\n") + 1
    lines: list[JournalLine] = []
    for number, text in enumerate(content[:whole].splitlines(), 1):
        try:
            record = json.loads(text)
            written = record.pop(CHECKSUM, None)  # none by versions before this one
            metrics = {str(name): float(value) for name, value in record["metrics"].items()}
            line = JournalLine(int(record["step"]), float(record["time"]), metrics)
            expected = _checksum(record)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise _damaged(path, number, "is not a journal line") from error
        if written not in (None, expected):
            raise _damaged(path, number, "does not have the checksum that was written")
        if lines and line.step <= lines[-1].step:
            raise _damaged(path, number, f"has step {line.step} after step {lines[-1].step}")
        lines.append(line)
    return whole, lines


def _damaged(path: Path, number: int, what: str) -> RequestError:
    return RequestError(f"{path} line {number} {what}: remove the folder {path.parent} to train this trial anew")
