"""Where things lie under ``--storage``, and the one way files are written: whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.object_store import ObjectStore


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name once the block has ended well.

    A reader sees the old file or the new one, never a half-written one. Raises RequestError where the folder
    cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # a name that no file can have, or no folder: nothing was written, and it is told above
            temporary.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file as ``atomic_path`` does, and wait until the disk has it: a machine that is lost takes none of it.

    It costs milliseconds: for what is trained or measured, not for what is checked and soon made again. Raises
    RequestError as ``atomic_path``.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # before the rename: the name must never be on the disk without the content
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot sync a folder
            raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> RequestError:
    return RequestError(
        f"cannot write {path}: {error.strerror or error}; give a folder that can be written (--storage, --out)"
    )


@contextmanager
def only_process(lock: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the file ``lock``: of several processes, on this machine or sharing the folder, one at a time goes on.

    ``on_wait`` is called where another one holds it, and may raise instead of waiting; a process that dies lets go.
    Raises RequestError where the folder cannot be written or its file system has no locks.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = lock.open("a")
    except OSError as error:
        raise RequestError(f"cannot write {lock}: {error.strerror}; give a folder that can be written") from error
    with held:
        try:
            _flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            _flock(held, fcntl.LOCK_EX)
        yield


def _flock(held: IO[str], how: int) -> None:
    """Raises BlockingIOError where another process holds it and ``how`` says not to wait."""
    try:
        fcntl.flock(held, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise RequestError(
            f"cannot lock {held.name}: {error.strerror}; give a folder whose file system has locks (flock)"
        ) from error


SCRATCH = ".scratch-"


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A new folder below ``folder`` for the time of the block.

    What a killed process leaves of it, ``clear_scratch`` deletes: the lock beside it says whether somebody needs it.
    Raises RequestError where ``folder`` cannot be written.
    """
    scratch = folder / f"{SCRATCH}{os.getpid()}-{secrets.token_hex(4)}"
    lock = scratch.with_name(f"{scratch.name}.lock")
    with only_process(lock):
        try:
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lock.unlink(missing_ok=True)


def clear_scratch(folder: Path) -> None:
    """Delete the scratch folders below ``folder`` whose processes are dead."""

    def leave() -> None:
        raise BlockingIOError

    for lock in folder.glob(f"{SCRATCH}*.lock"):
        with suppress(BlockingIOError), only_process(lock, leave):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, as ``write_durably`` does, with sorted keys."""
    write_durably(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON that write_json wrote. Raises RequestError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} is missing or damaged ({error}); delete it and run again") from error


def short_digest(value: Any) -> str:
    """First 16 hexadecimal digits of the sha256 of ``value`` as canonical JSON: the key of a derived artefact."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Storage:
    """The folder that holds everything a run leaves behind; ``root`` is absolute.

    With a ``bucket`` behind it the folder is where jobs of this machine work: what a path is asked for is fetched.
    """

    root: Path
    bucket: ObjectStore | None = None

    @classmethod
    def open(cls, location: str, write: bool = True) -> Storage:
        """Create the folder if need be; ``write=False`` leaves it as it is, for a plan.

        Raises RequestError where it cannot be written, and for a bucket that does not answer.
        """
        if "://" in location:
            from ccim_ray.object_store import ObjectStore, default_working_folder  # pyarrow is slow to import

            root = default_working_folder(location)
            return cls(_writable(root, location), ObjectStore(location, root))
        root = Path(location).expanduser().absolute()
        return cls(_writable(root, location) if write else root)

    def __str__(self) -> str:
        return f"{self.bucket.address} (here {self.root})" if self.bucket else str(self.root)

    def kept_up_to_date(self) -> AbstractContextManager[None]:
        """Sends what is new to the bucket inside the block and at its end; without a bucket it does nothing."""
        return self.bucket.kept_up_to_date() if self.bucket else nullcontext()

    def _fetched(self, *parts: str) -> Path:
        if self.bucket:
            self.bucket.fetch("/".join(parts))
        return self.root.joinpath(*parts)

    def world(self, key: str) -> Path:
        """Pictures and annotations of one embedded world."""
        return self.root / "worlds" / key

    @property
    def frames(self) -> Path:
        """Frames decoded from videos: the root that the images of such a dataset are relative to."""
        return self.root / "derived" / "frames"

    def subjects(self, key: str) -> Path:
        """The subject table of one dataset as it was read."""
        return self._fetched("derived", "subjects", f"{key}.parquet")

    def detections(self, key: str) -> Path:
        """Folder of one detector's finds in one dataset, as shards."""
        return self._fetched("derived", "detections", key)

    def features(self, key: str) -> Path:
        """Folder of one backbone's feature shards of one view."""
        return self._fetched("derived", "features", key)

    def crops(self, key: str) -> Path:
        """Folder of one view's packed pictures."""
        return self._fetched("derived", "crops", key)

    def dictionary(self, key: str) -> Path:
        """One confounder dictionary."""
        return self._fetched("derived", "dictionaries", f"{key}.safetensors")

    def trial(self, signature: str) -> Path:
        """Folder of one trial: experiment, journal, checkpoint, best model, result."""
        return self._fetched("trials", signature)

    def sweep(self, sweep_id: str) -> Path:
        """Folder of one sweep: its ledger, tables and figures."""
        return self._fetched("sweeps", sweep_id)

    def search(self, search_id: str) -> Path:
        """Folder of one hyper-parameter search: its study, tables and figures."""
        return self._fetched("searches", search_id)

    def context_bias(self, key: str) -> Path:
        """Folder of one measurement of context bias: its table, values and chart."""
        return self._fetched("context_bias", key)

    @property
    def rates(self) -> Path:
        """Measured speeds of the stages on this storage's machines, for ``--plan``."""
        return self.root / "rates.json"


def _writable(root: Path, location: str) -> Path:
    probe = root / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"--storage {location} cannot be written: {error.strerror or error}; name a writable folder"
        ) from error
    return root
