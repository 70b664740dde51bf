"""Reaching MLflow: the address, the first contact, and errors that a user can act on."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ccim_ray.errors import RequestError
from ccim_ray.storage import only_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUIET_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""Keeps MLflow from printing, phoning home, and copying project files into models; the user's own win."""

PROBE_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""The first request to a server says within seconds that nobody answers; later ones are patient."""

PROBE_SECONDS = 5
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def default_tracking_uri(storage: Path) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite database under ``storage``. Creates nothing."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database_under(storage)


def database_under(storage: Path) -> str:
    """The SQLite database of a storage."""
    # The path is absolute because jobs and trials run in folders of their own.
    return f"sqlite:///{storage.absolute()}/mlflow.db?timeout=60"


def logged_experiments(uri: str) -> list[str]:
    """Names of the experiments that MLflow holds, sorted; a database that does not exist yet holds none.

    Raises:
        RequestError: MLflow cannot be reached.
    """
    if holds_nothing_yet(uri):
        return []
    with request_errors(uri):
        return sorted(experiment.name for experiment in connect(uri).search_experiments())


def holds_nothing_yet(uri: str) -> bool:
    """Whether the address is a SQLite database that does not exist: connecting would create it."""
    database = _sqlite_path(uri)
    return database is not None and not database.exists()


def connect(uri: str) -> MlflowClient:
    """A client that has had its first answer; a SQLite database is created where there is none."""
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # MLflow reads its level at import, and something else may have imported it before.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    # It writes a page of traceback for each error that it raises, which request_errors tells in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if re.match(r"https?://", uri):
        with _environment(PROBE_SETTINGS):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        return client
    database = _sqlite_path(uri)
    # Two processes that create the same MLflow database at once break each other.
    lock = None
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = database.with_name(f".{database.name}.lock")
    with only_process(lock) if lock else contextlib.nullcontext():
        if re.match(r"(sqlite|postgresql|mysql|mssql)\b", uri):
            _probe_database(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _probe_database(uri: str) -> None:
    """Try the database once, for MLflow itself tries an unusable one for minutes."""
    import sqlalchemy

    url = sqlalchemy.make_url(uri)
    if url.host:
        port = url.port or DATABASE_PORTS[url.get_backend_name()]
        socket.create_connection((url.host, port), timeout=PROBE_SECONDS).close()
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            # Asks for the right to write, and gives it back when the connection closes.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if url.get_backend_name() == "sqlite" else "SELECT 1")
    finally:
        engine.dispose()


def _sqlite_path(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]) if match else None


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def request_errors(uri: str) -> Iterator[None]:
    """Say in one line that MLflow failed, where, and what to do."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        # Imported only now, for it is slow: the libraries behind MLflow raise their own exceptions.
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, (MlflowException, SQLAlchemyError, OSError, ImportError)):
            raise
        what = without_password(" ".join(str(error).split()))[:300]
        raise RequestError(
            f"MLflow at {without_password(uri)} failed: {what}; check --tracking-uri, then give the same "
            "command again: what was measured is kept and will be logged"
        ) from error


def without_password(text: str) -> str:
    """``text`` with the passwords of the addresses in it hidden, and what their options name as secret."""
    # SQLAlchemy takes passwords with "/", and what is pasted may hold "@": up to the last one, it may be password.
    hidden = re.sub(r"(://[^/@:\s]*):[^\s'\"]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|passwd|secret|token|key)[^=&\s]*=)[^&\s'\"]*", r"\1***", hidden)
