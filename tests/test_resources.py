"""How many trials run at a time follows from the cluster: shares of a GPU lie on one GPU, and a user may say less."""

import pytest

from ccim_ray.errors import RequestError
from ccim_ray.resources import ClusterResources, TrialResources, this_machine


@pytest.mark.parametrize(
    ("cpus", "gpus", "share", "workers", "expected"),
    [
        (2, 0, None, 1, 2),
        (8, 0, None, 3, 2),
        (16, 1, None, 1, 1),
        (16, 4, None, 1, 4),
        (16, 4, None, 2, 2),
        (2, 4, None, 1, 2),  # as many CPUs as trials are needed
        (16, 1, 0.5, 1, 2),
        (16, 2, 0.6, 1, 2),  # not 3: no GPU has 0.6 left
        (16, 3, 0.1, 1, 16),
        (64, 3, 0.1, 1, 30),
        (64, 3, 0.1, 3, 10),  # 3 / (0.1 * 3) is 9.99 to a computer
        (64, 3, 1 / 3, 1, 9),
        (64, 8, 2, 1, 4),
        (64, 8, 2, 3, 1),
        (16, 4, 0, 1, 16),
    ],
)
def test_as_many_trials_as_fit(cpus, gpus, share, workers, expected):
    assert TrialResources(gpus_per_worker=share).concurrent(ClusterResources(cpus, gpus), workers) == expected


def test_what_the_user_says_counts():
    assert TrialResources(max_concurrent=3).concurrent(ClusterResources(64, 8), 1) == 3


def test_above_one_gpus_are_whole():
    with pytest.raises(RequestError, match=r"--gpus-per-worker 1\.5: above 1"):
        TrialResources(gpus_per_worker=1.5)
    TrialResources(gpus_per_worker=2.0)


def test_the_device_names_the_kind_and_the_share():
    node = ClusterResources(16, 2, "H100")
    assert TrialResources(gpus_per_worker=0.5).device(node) == "H100 x 0.5"
    assert TrialResources().device(node) == "H100 x 1"
    assert TrialResources(gpus_per_worker=0).device(node) == "CPU"
    assert node.in_words() == "16 CPUs, 2 GPUs (H100)"


def test_gpus_of_this_machine_are_those_that_nvidia_smi_lists_and_the_environment_shows(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\necho NVIDIA H100 80GB HBM3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = this_machine()
    assert (found.gpus, found.accelerator) == (2, "H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert this_machine().gpus == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert this_machine() == ClusterResources(found.cpus, 0)
    program.unlink()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine() == ClusterResources(found.cpus, 0)
