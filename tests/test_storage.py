"""Files appear whole or not at all, and a place that cannot be written is one line."""

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.errors import RequestError
from ccim_ray.storage import Storage, atomic_path, short_digest, write_durably, write_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_the_file_appears_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("content")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "content"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt(), RequestError("no")])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first " * 100)
        second.write_text("second")
    assert path.read_text() == "first " * 100
    assert names(tmp_path) == ["file.txt"]


def test_below_a_regular_file_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RequestError) as error:
        write_json(tmp_path / "file" / "folder" / "result.json", {})
    message = str(error.value)
    assert str(tmp_path / "file" / "folder" / "result.json") in message
    assert "--storage" in message
    assert "\n" not in message


def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk):
    path = tmp_path / "result.json"
    write_json(path, {"kept": 1})
    with full_disk(), pytest.raises(RequestError, match="--storage"):
        write_json(path, ["x" * 100] * 1000)
    assert json.loads(path.read_text()) == {"kept": 1}
    assert names(tmp_path) == ["result.json"]


def test_a_disk_of_its_own_that_is_full_leaves_the_old_file(small_disk):
    path = small_disk / "checkpoint.pt"
    write_durably(path, b"old")
    with pytest.raises(RequestError, match=f"cannot write {path}: No space left on device; .*--storage"):
        write_durably(path, bytes(100 << 20))
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["checkpoint.pt"]


WITHOUT_LOCKS = """
import ctypes, platform, struct, sys
from pathlib import Path

LOAD, EQUALS, RETURN, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000 | int(sys.argv[2])
flock = {"x86_64": 73, "aarch64": 32}[platform.machine()]
rules = ((LOAD, 0, 0, 0), (EQUALS, 0, 1, flock), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW))
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HP", len(rules), ctypes.addressof(filter)))
kernel = ctypes.CDLL(None)
if kernel.prctl(38, 1, 0, 0, 0) or kernel.prctl(22, 2, program, 0, 0):
    sys.exit(77)

from ccim_ray.errors import RequestError
from ccim_ray.storage import only_process
try:
    with only_process(Path(sys.argv[1])):
        print("held")
except RequestError as error:
    print(error)
"""
"""The kernel answers flock() with an error in this process, as it does on file systems that have no locks."""


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_folder_without_locks_is_told(tmp_path, code):
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("the number of flock() is not known here")
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path / ".lock"), str(code)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if ended.returncode == 77:
        pytest.skip("this kernel takes no filters")
    told = f"cannot lock {tmp_path / '.lock'}: {os.strerror(code)}; give a folder whose file system has locks (flock)"
    assert (ended.stderr, ended.stdout) == ("", f"{told}\n")


@settings(deadline=None, max_examples=25)  # each waits for the disk
@given(JSON_VALUES)
def test_json_comes_back_and_does_not_depend_on_the_order_of_keys(value):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path, reversed_path = Path(folder) / "value.json", Path(folder) / "reversed.json"
        write_json(path, value)
        assert json.loads(path.read_text()) == value
        assert path.read_text().endswith("\n")
        if isinstance(value, dict):
            write_json(reversed_path, dict(reversed(value.items())))
            assert reversed_path.read_bytes() == path.read_bytes()


@given(JSON_VALUES, JSON_VALUES)
def test_digests_are_equal_exactly_where_the_json_is(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (short_digest(one) == short_digest(other)) == same


def test_a_digest_is_the_documented_one():
    import hashlib

    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()[:16]
    assert short_digest({"b": "x", "a": [1, 2.5, None]}) == expected


def test_opening_creates_an_empty_folder_with_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage.open("some/runs")
    assert storage.root == tmp_path / "some" / "runs"
    assert names(storage.root) == []
    assert Storage.open(str(storage.root)) == storage


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Storage.open("~/runs").root == tmp_path / "runs"


@pytest.mark.parametrize("location", ["file", "file/below"])
def test_an_unwritable_storage_is_one_line_that_names_the_flag(tmp_path, location):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RequestError) as error:
        Storage.open(str(tmp_path / location))
    assert str(error.value).startswith(f"--storage {tmp_path / location} ")
    assert "\n" not in str(error.value)


def test_an_address_of_object_storage_is_not_taken_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="s3://bucket/runs"):
        Storage.open("s3://bucket/runs")
    assert names(tmp_path) == []


def test_places_of_one_key_do_not_collide(tmp_path):
    storage = Storage(tmp_path)
    kinds = ("world", "subjects", "features", "crops", "dictionary", "trial", "sweep")
    places = [getattr(storage, kind)("0123456789abcdef") for kind in kinds] + [storage.rates]
    assert len(set(places)) == len(places)
    for place in places:
        assert place.is_relative_to(tmp_path)
        assert not any(place in other.parents for other in places)
