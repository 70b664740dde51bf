"""An MLflow database of its own for every test, copied from one that is created once."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from ccim_ray.tracking import (
    Tracker,
)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    Tracker(f"sqlite:///{path}", "template", None)
    return path


@pytest.fixture
def storage(tmp_path, empty_database):
    folder = tmp_path / "runs with space"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def uri(storage):
    return f"sqlite:///{storage}/mlflow.db?timeout=60"


@pytest.fixture
def tracker(storage, uri):
    return Tracker(uri, "caer_s/dict_size", storage / "mlflow-artifacts")


@pytest.fixture
def server(storage, uri):
    """A tracking server on loopback that also serves artefacts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        uri,
        "--artifacts-destination",
        str(storage / "served"),
        "--workers",
        "1",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (storage / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (storage / "server.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
