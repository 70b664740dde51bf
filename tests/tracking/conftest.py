"""An MLflow database of its own for every test, copied from one that is created once."""

import shutil

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
