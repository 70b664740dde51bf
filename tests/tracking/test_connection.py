"""Addresses: the default, the unusable, databases created at once, what is said on the way."""

import subprocess
import sys
from pathlib import Path

import pytest

from ccim_ray.environment import environment_tags
from ccim_ray.errors import RequestError
from ccim_ray.tracking import (
    Tracker,
    default_tracking_uri,
    logged_experiments,
)
from ccim_ray.tracking.connection import without_password


def test_a_database_that_does_not_exist_holds_no_experiments_and_is_not_created(tmp_path):
    assert logged_experiments(f"sqlite:///{tmp_path}/absent/mlflow.db") == []
    assert list(tmp_path.iterdir()) == []


def test_the_uri_is_absolute_or_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db?timeout=60"
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert default_tracking_uri(Path("runs")) == "http://tracking:5000"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "postgresql://user:secret@127.0.0.1:9/mlflow",
        "sqlite:///{file}/mlflow.db",
        "sqlite:///{file}",
        "file:///tmp/mlruns",
        "carrier-pigeon://coop",
    ],
)
def test_an_unusable_uri_is_one_line_that_names_it_and_the_flag(tmp_path, uri):
    file = tmp_path / "file"
    file.write_text("this is no database, and it is longer than the header of one; " * 4)
    with pytest.raises(RequestError) as raised:
        Tracker(uri.format(file=file), "caer_s/dict_size", tmp_path)
    message = str(raised.value)
    assert "--tracking-uri" in message
    assert uri.format(file=file).replace("secret", "***") in message
    assert "secret" not in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("postgresql://me:planted@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:pl@nted@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:pl/anted@host/db", "postgresql://me:***@host/db"),
        ("mysql+pymysql://:planted@host", "mysql+pymysql://:***@host"),
        ("https://host/?user=me&sslPassword=planted&x=1", "https://host/?user=me&sslPassword=***&x=1"),
        ("s3://bucket/x?secret_key=planted", "s3://bucket/x?secret_key=***"),
        (
            "ui --backend-store-uri 'mysql://me:planted@host' --port 5",
            "ui --backend-store-uri 'mysql://me:***@host' --port 5",
        ),
        ("sqlite:////a/b/mlflow.db?timeout=60", "sqlite:////a/b/mlflow.db?timeout=60"),
        ("http://127.0.0.1:5000 and a@b", "http://127.0.0.1:5000 and a@b"),
    ],
)
def test_passwords_in_addresses_are_hidden(written, shown):
    assert without_password(written) == shown


def test_environment_tags_name_versions_and_hardware():
    tags = environment_tags(["NVIDIA H100 80GB HBM3"])
    assert tags["ccim.gpus"] == "NVIDIA H100 80GB HBM3"
    assert tags["ccim.version.python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"ccim.version.torch", "ccim.version.mlflow", "ccim.version.ray", "ccim.version.ccim_ray"} <= set(tags)
    assert int(tags["ccim.cpu_count"]) >= 1
    assert "ccim.gpus" not in environment_tags()
    assert environment_tags(plug_ins={"my_models": "0.1.0"})["ccim.version.my_models"] == "0.1.0"


def test_tracking_is_imported_without_mlflow_and_says_nothing(tmp_path):
    script = f"""
import sys
import ccim_ray.tracking, ccim_ray.serving, ccim_ray.journal
assert not any(name.split(".")[0] in ("mlflow", "ray", "pandas") for name in sys.modules)
ccim_ray.tracking.Tracker("sqlite:///{tmp_path}/new/mlflow.db", "a/b", None)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")


@pytest.mark.slow
def test_processes_that_create_the_database_at_once_do_not_break_each_other(tmp_path):
    script = f'from ccim_ray.tracking import Tracker; Tracker("sqlite:///{tmp_path}/mlflow.db", "a/b", None)'
    started = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
