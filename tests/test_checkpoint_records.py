"""A checkpoint that no training wrote is told before torch reads it, whatever memory it asks for."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from ccim_ray.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ccim_ray.checkpoint_records import damaged_record
from ccim_ray.trial_folder import clear_damaged_progress

HUGE = 1 << 32
ALLOWED = 1 << 26
"""Bytes that reading may take beyond what importing torch has taken."""

READ = """
import json, os, re, sys
from pathlib import Path
import torch
from torch import nn
from ccim_ray.checkpoint import load_checkpoint
from ccim_ray.errors import RequestError

def peak():
    return 1024 * int(re.search(r"VmPeak:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def read(path):
    model = nn.Linear(3, 2)
    optimiser, before = torch.optim.AdamW(model.parameters()), peak()
    try:
        load_checkpoint(path, model, optimiser)
        said = "read"
    except RequestError as error:
        said = str(error)
    print(json.dumps([path.name, said, peak() - before]), flush=True)

for path in sorted(Path(sys.argv[1]).iterdir()):
    child = os.fork()  # whose peak starts at what it has
    if not child:
        read(path)
        os._exit(0)
    os.waitpid(child, 0)
"""


class Named:
    """Pickles as a call of what ``name`` names in ``module``, whether it can be imported or not."""

    def __init__(self, module, name, *arguments):
        self.call = module, name, arguments


class Storage:
    def __init__(self, kind, key, count):
        self.pid = "storage", Global("torch", kind), key, "cpu", count


class Global:
    def __init__(self, module, name):
        self.named = module, name


class Pickler(pickle._Pickler):  # in Python, so that a class need not exist to be named
    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(b"c" + "\n".join((*value.named, "")).encode())
        elif isinstance(value, Named):
            module, name, arguments = value.call
            self.save(Global(module, name))
            self.save(arguments)
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def description(value):
    target = io.BytesIO()
    Pickler(target, 2).dump(value)
    return target.getvalue()


def tensor(storage, size, stride):
    return Named(
        "torch._utils", "_rebuild_tensor_v2", storage, 0, size, stride, False, Named("collections", "OrderedDict")
    )


def checkpoint_of(weight):
    """The content of a checkpoint with this as a weight."""
    return {"progress": {"epoch": 1}, "model": {"weight": weight}, "optimiser": {}}


def written(path, content, records=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else description(content))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        for name, data in (records or {"data/0": bytes(4)}).items():
            archive.writestr(f"archive/{name}", data)


def compressed(path, records, long):
    """Records that are compressed, of which one says that it holds gigabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    content = bytearray(path.read_bytes())
    entry = content.rindex(f"archive/{long}".encode()) - 46  # the directory lies at the end, with a name after each
    struct.pack_into("<I", content, entry + 24, HUGE - 2)
    path.write_bytes(content)


def bytes_by_number(path):
    written(path, checkpoint_of(Named("builtins", "bytearray", HUGE)))


def storage_by_number(path):
    written(path, checkpoint_of(Named("torch", "FloatStorage", HUGE // 4)))


def storage_beyond_its_record(path):
    written(path, checkpoint_of(tensor(Storage("FloatStorage", "0", HUGE // 4), (HUGE // 4,), (1,))))


def tensor_beyond_its_storage(path):
    """One value, again and again; the optimiser's state is copied to its parameter's type."""
    model = nn.Linear(3, 2)
    state = torch.optim.AdamW(model.parameters()).state_dict()
    again = tensor(Storage("DoubleStorage", "0", 1), (HUGE // 4,), (0,))
    weights = {"weight": tensor(Storage("FloatStorage", "1", 6), (2, 3), (3, 1))}
    weights["bias"] = tensor(Storage("FloatStorage", "2", 2), (2,), (1,))
    content = {"progress": {"epoch": 1}, "model": weights, "optimiser": state | {"state": {0: {"exp_avg": again}}}}
    written(path, content, {"data/0": bytes(8), "data/1": bytes(24), "data/2": bytes(8)})


def record_of_a_long_length(path):
    """Four bytes of a tensor that say that they are gigabytes."""
    weight = tensor(Storage("FloatStorage", "0", 1), (1,), (1,))
    compressed(path, {"data.pkl": description(checkpoint_of(weight)), "version": b"3\n", "data/0": bytes(4)}, "data/0")


def description_of_a_long_length(path):
    """The same of the record that is read first, and in which everything else is described."""
    compressed(path, {"data.pkl": description(checkpoint_of(None)), "version": b"3\n"}, "data.pkl")


def memo_of_a_high_number(path):
    written(path, b"\x80\x02}r" + struct.pack("<I", HUGE // 16) + b".")


def lists_of_lists(path):
    """Forty levels that hold the one below them twice."""
    value = []
    for _ in range(40):
        value = [value, value]
    written(path, checkpoint_of(value))


BOMBS = {
    bytes_by_number: "it names builtins.bytearray",
    storage_by_number: "not one of tensors",
    storage_beyond_its_record: f"{HUGE // 4} values of FloatStorage are not what the record 0 holds",
    tensor_beyond_its_storage: "in a storage of 1 values",
    record_of_a_long_length: "is compressed",
    description_of_a_long_length: "is compressed",
    memo_of_a_high_number: "LONG_BINPUT in it",
    lists_of_lists: "unfolds to more than it holds",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What was said of each bomb, and the memory that reading it took, in a process of its own."""
    folder = tmp_path_factory.mktemp("bombs")
    for make in BOMBS:
        make(folder / make.__name__)
    ended = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder, {name: said for name, *said in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.parametrize(("make", "words"), BOMBS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_what_asks_for_memory_is_damaged_and_gets_none(told, make, words):
    folder, by_name = told
    said, taken = by_name[make.__name__]
    assert said.startswith(f"checkpoint {folder / make.__name__} is damaged (")
    assert words in said
    assert "\n" not in said
    assert taken < ALLOWED


class Large(nn.Module):
    """Values of every kind, one of them in another order in memory."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm2d(4)
        self.convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.empty = nn.Parameter(torch.zeros(0, 3))
        for dtype in (torch.bool, torch.uint8, torch.int32, torch.float16, torch.bfloat16, torch.complex64):
            self.register_buffer(f"of_{dtype}".replace("torch.", ""), torch.ones(300, dtype=dtype))
        self.many = nn.ParameterList(torch.zeros(1) for _ in range(300))


def stepped(optimiser_of):
    model = Large()
    optimiser = optimiser_of(model.parameters())
    (model.linear(torch.ones(2, 3)).sum() + model.convolution(torch.ones(1, 3, 5, 5)).sum()).backward()
    optimiser.step()
    return model, optimiser


@pytest.mark.parametrize(
    "optimiser_of", [torch.optim.AdamW, torch.optim.Adam, lambda of: torch.optim.SGD(of, 0.1, 0.9)]
)
def test_what_training_writes_is_sound_for_every_kind_of_value(tmp_path, optimiser_of):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, Checkpoint(3, 0.5, 2), *stepped(optimiser_of))
    assert damaged_record(path) is None
    assert load_checkpoint(path, *stepped(optimiser_of)) == Checkpoint(3, 0.5, 2)


def test_a_record_longer_than_its_file_is_damage(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as records:
        records.writestr("data", b"0123456789")
    content = bytearray(path.read_bytes())
    struct.pack_into("<II", content, content.index(b"PK\x01\x02") + 20, 10**6, 10**6)  # both sizes, in the directory
    path.write_bytes(content)
    assert damaged_record(path) == "data claims more bytes than the file has"


def test_a_bomb_is_cleared_away_so_that_the_trial_starts_anew(tmp_path):
    bytes_by_number(tmp_path / "checkpoint.pt")
    (tmp_path / "best.safetensors").write_bytes(b"")
    assert "checkpoint.pt is damaged" in clear_damaged_progress(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_records_of_one_name_are_damage(tmp_path):
    """Who reads which of them is not for the file to decide."""
    path = tmp_path / "checkpoint.pt"
    written(path, checkpoint_of(None), {"data.pki": description(checkpoint_of(None))})
    path.write_bytes(path.read_bytes().replace(b"archive/data.pki", b"archive/data.pkl"))
    assert damaged_record(path) == "its records are not those of one checkpoint"


def test_a_record_that_is_said_to_be_encrypted_is_damaged(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 1}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] ^= 1  # the flag of encryption in the first entry of the directory
    path.write_bytes(content)
    assert "encrypted" in damaged_record(path)
