"""What must stay secret does: a sweep runs with secrets around it, and all that it leaves is searched for them."""

import subprocess

import pytest
from job_runs import job_command, job_environment, run_job
from mlflow import MlflowClient

SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTED-key-id-0412",
    "AWS_SECRET_ACCESS_KEY": "PLANTED-aws-secret-7713",
    "AWS_SESSION_TOKEN": "PLANTED-aws-session-9921",
    "MLFLOW_TRACKING_USERNAME": "PLANTED-user-1187",
    "MLFLOW_TRACKING_PASSWORD": "PLANTED-mlflow-password-5560",
    "MLFLOW_TRACKING_TOKEN": "PLANTED-mlflow-token-3349",
    "RAY_AUTH_TOKEN": "PLANTED-ray-token-" + "8" * 40,
    "HF_TOKEN": "PLANTED-hub-token-2208",
}


def found_in(folder):
    """Files below ``folder`` that hold a planted secret, by any name."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"PLANTED" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_keeps_the_secrets_of_its_environment(tmp_path):
    storage = tmp_path / "runs"
    flags = ("--preset", "smoke", "--images", "300", "--epochs", "1", "--sizes", "8", "--seeds", "0")
    command = job_command("sweep_dict_size", *flags, "--storage", str(storage))
    environment = {**job_environment(), **SECRETS, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path / "home")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "PLANTED" not in ended.stdout + ended.stderr
    assert (storage / "mlflow.db").is_file()
    assert found_in(storage) == []
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert len(runs) >= 3
    assert not any("PLANTED" in str(run.to_dictionary()) for run in runs)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--storage", "s3://PLANTED-key:PLANTED-secret@bucket/runs"), "keys come from the environment"),
        (("--tracking-uri", "postgresql://me:PLANTED@127.0.0.1:9/mlflow"), "postgresql://me:***@127.0.0.1:9/mlflow"),
        (("--tracking-uri", "http://me:PLANTED@127.0.0.1:9"), "http://me:***@127.0.0.1:9"),
    ],
)
def test_a_secret_in_an_address_is_not_told(flags, told, tmp_path):
    where = () if "--storage" in flags else ("--storage", str(tmp_path / "runs"))
    ended = run_job("sweep_dict_size", "--preset", "smoke", "--images", "300", *flags, *where)
    assert ended.status == 2
    assert told in ended.err
    assert "PLANTED" not in ended.out + ended.err
    assert found_in(tmp_path) == []


@pytest.mark.slow
def test_a_password_in_the_address_of_a_server_is_nowhere(server, tmp_path):
    """The server asks for no password; what matters is that the address is written with one."""
    address = server.replace("http://", "http://me:PLANTED-in-address@")
    storage = tmp_path / "runs"
    flags = ("--images", "300", "--epochs", "1", "--deconfounder", "none", "--preset", "smoke", "--seeds", "0")
    ended = run_job("train", *flags, "--storage", str(storage), "--tracking-uri", address)
    assert ended.status == 0, ended.err
    assert "PLANTED" not in ended.out + ended.err
    assert "me:***@" in ended.out
    assert found_in(tmp_path) == []
    client = MlflowClient(server)
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert len(runs) == 2
    assert not any("PLANTED" in str(run.to_dictionary()) for run in runs)
