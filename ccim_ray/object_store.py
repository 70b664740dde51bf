"""A bucket as the home of a storage: what is needed is fetched from it, what is new is sent to it. Knows no Ray.

A job works in a folder of its machine. Artefacts go to the bucket as they are, a file an object, once. What changes
while a trial trains (journal, checkpoint, best weights) goes as one archive, so that nobody finds a checkpoint beside
the weights of another epoch. An object is either there whole or not at all.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ccim_ray.errors import RequestError
from ccim_ray.storage import atomic_path, read_json, short_digest, write_json

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEME = "s3://"
SEND_SECONDS = 30.0
"""Between two rounds of sending: what a machine that is lost at once takes with it."""

SENT_FOLDERS = ("derived", "trials", "sweeps", "searches", "context_bias")
"""What is kept in the bucket. Pictures of the embedded world and frames of videos are made again where they are
needed, Tune's and Train's own folders are of no use later, and MLflow's records are made again from the journals."""

NOT_SENT = "derived/frames"
TRIALS = "trials"
BLOCK = 1 << 20

State = tuple[int, int]
"""When a file was written, in ns, and its size in bytes; of a folder the newest time and the sum of sizes."""

CHECKPOINT = "checkpoint.pt"


def default_working_folder(address: str) -> Path:
    """Where a job works that keeps its results at this address: below CCIM_RAY_CACHE, else ~/.cache/ccim_ray."""
    base = os.environ.get("CCIM_RAY_CACHE") or "~/.cache/ccim_ray"
    return Path(base).expanduser().absolute() / short_digest(address)


class ObjectStore:
    """The bucket behind one storage.

    Args:
        address: ``s3://BUCKET/PREFIX``, with ``?region=`` or ``?endpoint_override=HOST:PORT&scheme=http`` where
            needed; the key and secret come from where AWS's own programs take them, such as AWS_ACCESS_KEY_ID.
        root: the working folder.

    Raises:
        RequestError: no such address, or no bucket that answers.
    """

    def __init__(self, address: str, root: Path) -> None:
        from pyarrow.fs import FileSystem, FileType  # slow to import: only where it is used

        self.address, self.root = address, root
        if not address.startswith(SCHEME) or "@" in address:
            raise RequestError(
                f"--storage {address.rpartition('@')[2]}: write {SCHEME}BUCKET/PREFIX; keys come from the environment"
            )
        try:
            self._bucket: FileSystem
            self._bucket, self._prefix = FileSystem.from_uri(address)
            found = self._bucket.get_file_info(self._prefix.split("/")[0])
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error
        if found.type == FileType.NotFound:
            raise RequestError(f"--storage {address}: there is no such bucket; create it, or name another")
        self._seen_path = root / ".object_store.json"
        self._seen: dict[str, list[int]] = read_json(self._seen_path) if self._seen_path.exists() else {}
        self._fetched: set[str] = set()
        self._lock = threading.RLock()

    def fetch(self, relative: str) -> None:
        """Bring a file or folder below the root up to date, once; what is newer here than in the bucket stays.

        Raises RequestError where the bucket does not answer or an archive is damaged.
        """
        with self._lock:
            if relative in self._fetched:
                return
            try:
                if relative.startswith(f"{TRIALS}/"):
                    self._fetch_trial(relative)
                else:
                    for info in self._objects(relative):
                        self._fetch_file(info)
            except OSError as error:
                raise self._unreachable(error) from error
            self._fetched.add(relative)
            write_json(self._seen_path, self._seen)

    def send(self) -> None:
        """Send what the bucket does not have yet. Raises RequestError where it does not answer."""
        with self._lock:
            try:
                for folder in SENT_FOLDERS:
                    if folder == TRIALS:
                        trials = self.root / folder
                        for trial in sorted(trials.iterdir()) if trials.is_dir() else ():
                            self._send_trial(trial)
                    else:
                        self._send_files(folder)
            except OSError as error:
                raise self._unreachable(error) from error
            finally:
                write_json(self._seen_path, self._seen)

    @contextmanager
    def kept_up_to_date(self) -> Iterator[None]:
        """Send every SEND_SECONDS inside the block, and all that is left at its end.

        A round that fails is tried again by the next one; the last one raises.
        """
        done = threading.Event()

        def follow() -> None:
            while not done.wait(SEND_SECONDS):
                try:
                    self.send()
                except RequestError as error:
                    from ccim_ray.console import say

                    say(f"  {error} (the job goes on; what is missing is sent later)")

        thread = threading.Thread(target=follow, name="object-store", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:  # which must not be hidden by one of the bucket's
            with suppress(RequestError):
                self.send()
            raise
        else:
            self.send()
        finally:
            done.set()
            thread.join()

    def _objects(self, relative: str) -> list[FileInfo]:
        """The object of this name, or all below it."""
        from pyarrow.fs import FileSelector, FileType

        path = f"{self._prefix}/{relative}"
        info = self._bucket.get_file_info(path)
        if info.type == FileType.File:
            return [info]
        below = self._bucket.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
        return [info for info in below if info.type == FileType.File]

    def _fetch_file(self, info: FileInfo) -> None:
        relative = info.path.removeprefix(f"{self._prefix}/")
        path = self._inside(self.root / relative)
        if not self._is_newer_there(relative, info, _state(path) if path.is_file() else None):
            return
        with (
            atomic_path(path) as temporary,
            self._bucket.open_input_stream(info.path) as source,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, BLOCK)
        self._remember(relative, _state(path), info)

    def _fetch_trial(self, relative: str) -> None:
        from pyarrow.fs import FileType

        info = self._bucket.get_file_info(f"{self._prefix}/{relative}.tar")
        folder = self.root / relative
        here = _newest(folder) if folder.is_dir() else None
        if info.type != FileType.File or not self._is_newer_there(relative, info, here):
            return
        with tempfile.TemporaryFile() as content:
            with self._bucket.open_input_stream(info.path) as source:
                shutil.copyfileobj(source, content, BLOCK)
            content.seek(0)
            try:
                _unpack(content, folder, info.path)
            except tarfile.TarError as error:
                raise RequestError(f"{info.path} is damaged ({error}); delete it to train the trial again") from error
        self._remember(relative, _newest(folder), info)

    def _send_files(self, folder: str) -> None:
        there: dict[str, FileInfo] | None = None
        for path in sorted((self.root / folder).rglob("*")):
            relative = path.relative_to(self.root).as_posix()
            hidden = any(part.startswith(".") for part in path.relative_to(self.root).parts)
            if hidden or not path.is_file() or relative.startswith(f"{NOT_SENT}/"):
                continue
            state = _state(path)
            if self._seen.get(relative, [])[:2] == [*state]:
                continue
            if there is None:
                there = {info.path: info for info in self._objects(folder)}
            info = there.get(f"{self._prefix}/{relative}")
            named_by_content = folder == "derived" and relative not in self._seen
            if info is None or not named_by_content or info.size != state[1]:
                with path.open("rb") as source:
                    info = self._put(relative, source)
            self._remember(relative, state, info)

    def _send_trial(self, folder: Path) -> None:
        relative = folder.relative_to(self.root).as_posix()
        state = _newest(folder)
        if state == (0, 0) or self._seen.get(relative, [])[:2] == [*state]:
            return
        with tempfile.TemporaryFile() as content:
            _pack(folder, content)
            content.seek(0)
            self._remember(relative, state, self._put(f"{relative}.tar", content))

    def _put(self, relative: str, source: IO[bytes]) -> FileInfo:
        path = f"{self._prefix}/{relative}"
        with self._bucket.open_output_stream(path) as target:
            shutil.copyfileobj(source, target, BLOCK)
        return self._bucket.get_file_info(path)

    def _is_newer_there(self, relative: str, info: FileInfo, here: State | None) -> bool:
        """Where both sides changed since they were last alike, the one that was written last counts."""
        seen = self._seen.get(relative)
        if here is None or seen is None:
            return here is None or info.mtime_ns > here[0]
        if seen[2:] == [info.mtime_ns, info.size]:
            return False
        return seen[:2] == [*here] or info.mtime_ns > here[0]

    def _remember(self, relative: str, here: State, info: FileInfo) -> None:
        self._seen[relative] = [*here, info.mtime_ns, info.size]

    def _inside(self, path: Path) -> Path:
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise RequestError(f"{self.address} holds a name that leaves its folder: {path}; delete it")
        return path

    def _unreachable(self, error: Exception) -> RequestError:
        reason = " ".join(str(error).split())[:200]
        return RequestError(f"--storage {self.address}: {reason}; check the address, the keys and the network")


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _newest(folder: Path) -> State:
    """(0, 0) where the folder is empty."""
    states = [_state(path) for path in _kept(folder)]
    return max((written for written, _ in states), default=0), sum(size for _, size in states)


def _kept(folder: Path) -> list[Path]:
    """A trial's files, without those that are being written; the checkpoint first.

    What is packed after the checkpoint may be ahead of it, and is written again, but never behind.
    """
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (path.name != CHECKPOINT, path.name))


def _pack(folder: Path, target: IO[bytes]) -> None:
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path in _kept(folder):
            content = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _unpack(source: IO[bytes], folder: Path, name: str) -> None:
    """Raises RequestError for a member that is no file of the folder itself.

    What is compressed, or has holes, could fill a disk from a few bytes: ``_pack`` writes neither.
    """
    with tarfile.open(fileobj=source, mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and not member.issparse() else None
            if file is None or "\0" in member.name or Path(member.name).name != member.name:
                raise RequestError(f"{name} holds {member.name!r}, which no trial's folder has; delete it")
            with atomic_path(folder / member.name) as temporary, temporary.open("wb") as target:
                shutil.copyfileobj(file, target, BLOCK)
