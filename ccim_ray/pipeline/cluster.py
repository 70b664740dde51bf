"""Joining a Ray cluster, or starting one on this machine; leaving it cleanly."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ccim_ray.console import say
from ccim_ray.errors import RequestError
from ccim_ray.resources import ClusterResources
from ccim_ray.storage import Storage

# Ray reads these when it is imported or started. Train asks its workers for results at this interval, and a
# worker's report waits for it: two seconds, the default, would dominate short epochs.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}

LEAVING = "SIGTERM: leaving; the same command goes on from the last epochs"

REQUEST_ERROR = re.compile(rf"^{re.escape(RequestError.__module__)}\.RequestError: (.+)$", re.MULTILINE)


def join_cluster() -> ClusterResources:
    """Connect to the cluster of ``RAY_ADDRESS``, of the submitted job, or on this machine; else start a local one."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
        try:
            with _stderr_on_failure():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=_dashboard())
        except Exception as error:  # Ray raises bare ones, such as for a node that timed out on a busy machine
            reason = " ".join(str(error).split())[:200]
            raise RequestError(f"Ray did not start or answer ({reason}); run again, on a less busy machine") from error
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # stages show their own
    context.print_on_execution_start = False
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told in one line each
    return offered()


def offered() -> ClusterResources:
    """What the machines of the cluster offer now."""
    import ray

    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    mark = "accelerator_type:"
    kinds = "+".join(sorted(name.removeprefix(mark) for name in available if name.startswith(mark)))
    return ClusterResources(int(available.get("CPU", 1)), int(available.get("GPU", 0)), kinds)


def machines() -> int:
    """How many the cluster has now."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]


def require_one_machine(storage: Storage, alive: int) -> None:
    """Raises RequestError where a bucket is asked of several: its working folder lies on one alone."""
    if storage.bucket and alive > 1:
        raise RequestError(
            f"--storage {storage.bucket.address}: one machine works in a bucket, and this cluster has {alive}; give a "
            "folder that all of them see under one path (--storage /shared/runs), or run on one (unset RAY_ADDRESS)"
        )


@contextmanager
def _stderr_on_failure() -> Iterator[None]:
    """Hold back what Ray's core, which is not Python, prints while it starts; show it if starting fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _dashboard() -> bool | None:
    """A dashboard costs a second and a process: none for a cluster that lives as long as one job."""
    return None if os.environ.get("RAY_ADDRESS") else False


def leave_on_sigterm() -> None:
    """On SIGTERM (``ray job stop``, preemption) say so in a line, and exit with 143.

    What is finished is on disk by then: shards and dictionaries. While trials run, an Interruption handles it instead.

    To be called after join_cluster: Ray installs a handler of its own that aborts the process after three seconds.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        say(LEAVING)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handler)


@contextmanager
def plain_errors() -> Iterator[None]:
    """A RequestError raised in a Ray worker reaches the user as itself, not as the worker's traceback."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None and type(cause) is not RequestError:
            cause = getattr(cause, "cause", None) or cause.__cause__
        # Ray Data pickles what its workers raise, which loses the cause; the text of the traceback still has its line.
        told = [str(cause)] if cause else REQUEST_ERROR.findall(str(error))
        if not told:
            raise
        raise RequestError(told[-1]) from error
