"""A machine that is lost at once: what it had told to be written is on its disk, whole."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from ccim_ray.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint, save_weights
from ccim_ray.journal import Journal, read_journal
from ccim_ray.storage import atomic_path, write_json
from ccim_ray.trial_folder import TrialResult, read_result


@dataclass
class Disk:
    """A file system of its own, ``here``, on a device that is the file ``device``."""

    here: Path
    device: Path
    after: Path

    def after_the_loss(self):
        """The file system as it comes up again from what the device was sent until now, and nothing else."""
        copied = self.device.with_name("copied")
        shutil.copyfile(self.device, copied)
        subprocess.run(["mount", "-o", "loop", str(copied), str(self.after)], check=True)
        return self.after


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "here", tmp_path / "device", tmp_path / "after")
    with made.device.open("wb") as device:
        device.truncate(32 << 20)
    made.here.mkdir()
    made.after.mkdir()
    format_it = ["mkfs.ext4", "-q", "-F", str(made.device)]
    mount = ["mount", "-o", "loop", str(made.device), str(made.here)]
    try:
        for command in (format_it, mount):
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("mounting a file system is not allowed here")
    except FileNotFoundError:
        pytest.skip("no mount or mkfs.ext4 on this system")
    yield made
    for place in (made.here, made.after):
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


def model():
    torch.manual_seed(0)
    network = nn.Linear(100, 100)
    return network, torch.optim.SGD(network.parameters(), 0.1)


def test_a_trial_is_on_the_disk_as_far_as_it_has_been_told(disk):
    trial, (network, optimiser) = disk.here / "trials" / "t", model()
    save_weights(trial / "best.safetensors", network)
    with Journal(trial / "journal.jsonl") as journal:
        journal.append(0, {"train/loss": 0.5})
    save_checkpoint(trial / "checkpoint.pt", Checkpoint(epoch=1), network, optimiser)
    write_json(trial / "result.json", TrialResult("done", {"val/accuracy": 0.5}).as_dict())
    with atomic_path(disk.here / "shard") as temporary:  # not waited for, or the disk shows what was never sent to it
        temporary.write_bytes(bytes(100_000))

    found = disk.after_the_loss()
    shard = found / "shard"
    assert not shard.exists() or shard.stat().st_size == 0
    trial, (restored, optimiser) = found / "trials" / "t", model()
    nn.init.zeros_(restored.weight)
    load_weights(trial / "best.safetensors", restored)
    assert torch.equal(restored.weight, network.weight)
    assert [line.metrics for line in read_journal(trial / "journal.jsonl")] == [{"train/loss": 0.5}]
    assert load_checkpoint(trial / "checkpoint.pt", restored, optimiser) == Checkpoint(epoch=1)
    assert read_result(trial) == TrialResult("done", {"val/accuracy": 0.5})


def test_a_checkpoint_that_was_replaced_is_the_new_one(disk):
    path, (network, optimiser) = disk.here / "checkpoint.pt", model()
    for epoch in (1, 2):
        save_checkpoint(path, Checkpoint(epoch=epoch), network, optimiser)
    assert load_checkpoint(disk.after_the_loss() / path.name, *model()) == Checkpoint(epoch=2)
