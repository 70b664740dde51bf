"""A checkpoint restores training to the bit, and a damaged one is a line that says what to delete."""

import pickle

import pytest
import torch
from torch import nn

from ccim_ray.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_tensors,
    save_weights,
)
from ccim_ray.errors import RequestError


def make(width=5, momentum=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    if momentum is None:
        return model, torch.optim.AdamW(model.parameters(), 0.01)
    return model, torch.optim.SGD(model.parameters(), 0.01, momentum=momentum)


def train(model, optimiser, steps):
    for step in steps:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = model(inputs).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_training_goes_on_bit_for_bit(tmp_path, momentum):
    straight, optimiser = make(momentum=momentum)
    train(straight, optimiser, range(6))

    stopped, optimiser = make(momentum=momentum)
    train(stopped, optimiser, range(3))
    state = Checkpoint(epoch=3, best_value=0.25, best_epoch=1, stopped=True, seconds=1.5)
    save_checkpoint(tmp_path / "checkpoint.pt", state, stopped, optimiser)

    resumed, optimiser = make(momentum=momentum)
    train(resumed, optimiser, [77])
    assert load_checkpoint(tmp_path / "checkpoint.pt", resumed, optimiser) == state
    train(resumed, optimiser, range(3, 6))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_no_checkpoint_is_no_progress(tmp_path):
    model, optimiser = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_checkpoint(tmp_path / "checkpoint.pt", model, optimiser) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Malice:
    def __reduce__(self):
        return (open, ("malice-was-here", "w"))


def damaged(kind, path):
    model, optimiser = make()
    save_checkpoint(path, Checkpoint(), model, optimiser)
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no checkpoint")
    elif kind == "zeros":
        path.write_bytes(bytes(len(content)))
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "other content":
        torch.save([1, 2, 3], path)
    elif kind == "other progress":
        torch.save(torch.load(path, weights_only=True) | {"progress": {"epoch": 1, "mood": 2}}, path)
    elif kind == "other model":
        save_checkpoint(path, Checkpoint(), *make(width=6))
    elif kind == "other optimiser":
        partial = torch.optim.AdamW(list(model.parameters())[:2], 0.01)
        save_checkpoint(path, Checkpoint(), model, partial)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malice()))


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "emptied",
        "text",
        "zeros",
        "a folder",
        "other content",
        "other progress",
        "other model",
        "other optimiser",
        "pickle",
    ],
)
def test_a_damaged_checkpoint_is_one_line_with_the_folder_to_delete(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trial" / "checkpoint.pt"
    damaged(kind, path)
    with pytest.raises(RequestError) as error:
        load_checkpoint(path, *make())
    assert f"checkpoint {path} is damaged" in str(error.value)
    assert f"delete {path.parent}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "malice-was-here").exists()


def test_weights_come_back_and_the_same_weights_are_the_same_bytes(tmp_path):
    model, optimiser = make()
    train(model, optimiser, range(2))
    save_weights(tmp_path / "one.safetensors", model)
    save_weights(tmp_path / "other.safetensors", model)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    loaded, _ = make()
    load_weights(tmp_path / "one.safetensors", loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_weights_that_are_missing_damaged_or_of_another_model_are_named(tmp_path):
    path = tmp_path / "best.safetensors"
    model, _ = make()
    with pytest.raises(RequestError, match="weights .*best.safetensors"):
        load_weights(path, model)
    save_weights(path, make(width=6)[0])
    with pytest.raises(RequestError, match="weights .*best.safetensors"):
        load_weights(path, model)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RequestError, match="weights .*best.safetensors") as error:
        load_weights(path, model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", ["checkpoint", "tensors"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, full_disk, what):
    model, optimiser = make()
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(), pytest.raises(RequestError, match="--storage"):
        if what == "checkpoint":
            save_checkpoint(path, Checkpoint(), *make(width=4096))
        else:
            save_tensors(path, {"scores": torch.zeros(4096)})
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
