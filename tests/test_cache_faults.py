"""A disk that runs full while a cache is written, and two runs that build the same one at once."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from job_runs import ROOT, job_command, job_environment, run_job

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.prepared import read_shards, read_subject_index, write_shard, write_subject_index

IDS = tuple(f"subject-{number}" for number in range(32))
FEATURES_SD = np.arange(32 * 512, dtype=np.float32).reshape(32, 512)
PICTURES_SHWC = np.arange(32 * 64 * 64 * 3).astype(np.uint8).reshape(32, 64, 64, 3)
BUILD = ("--preset", "smoke", "--images", "300", "--sizes", "8", "16")


def write_index(folder, world):
    write_subject_index(load_dataset("confounded_scenes", world), folder / "subjects.parquet")


def read_index(folder, world):
    ids = tuple(subject.subject_id for subject in load_dataset("confounded_scenes", world).subjects)
    return read_subject_index(folder / "subjects.parquet").subject_ids == ids


def write_features(folder, world):
    write_shard(folder / "shard-00000.parquet", list(IDS), FEATURES_SD, [None] * len(IDS))


def write_pictures(folder, world):
    write_shard(folder / "shard-00000.arrow", list(IDS), PICTURES_SHWC, [None] * len(IDS))


def read_rows(rows):
    return lambda folder, world: np.array_equal(read_shards(folder, IDS).take(np.arange(len(IDS))), rows)


def write_dictionary(folder, world):
    ConfounderDictionary.random(32, 512, 0).save(folder / "dictionary.safetensors")


def read_dictionary(folder, world):
    return ConfounderDictionary.load(folder / "dictionary.safetensors").size == 32


CACHES = {
    "subject index": (write_index, read_index),
    "feature shard": (write_features, read_rows(FEATURES_SD)),
    "picture shard": (write_pictures, read_rows(PICTURES_SHWC)),
    "dictionary": (write_dictionary, read_dictionary),
}


def fill(folder, leave):
    """Write a file until the disk is full, then give ``leave`` bytes back; returns the file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            stream.truncate(stream.tell() - leave)
    return ballast


@pytest.mark.parametrize("cache", CACHES)
def test_a_full_disk_is_one_line_and_with_room_the_cache_is_written(small_disk, small_world, cache):
    write, is_read_back = CACHES[cache]
    folder = small_disk / "derived"
    ballast = fill(small_disk, leave=8192)
    with pytest.raises(RequestError, match="cannot write .*/derived/.*No space left") as failure:
        write(folder, small_world)
    assert "\n" not in str(failure.value)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    ballast.unlink()
    write(folder, small_world)
    assert is_read_back(folder, small_world)


@pytest.mark.parametrize("cache", CACHES)
def test_a_full_disk_keeps_the_cache_that_was_there(tmp_path, small_world, full_disk, cache):
    """The same where no file system can be mounted, over a cache that is being written again."""
    write, is_read_back = CACHES[cache]
    write(tmp_path, small_world)
    (before,) = tmp_path.iterdir()
    content = before.read_bytes()
    with full_disk(), pytest.raises(RequestError, match=f"cannot write {before}"):
        write(tmp_path, small_world)
    assert list(tmp_path.iterdir()) == [before]
    assert before.read_bytes() == content
    assert is_read_back(tmp_path, small_world)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Storage in which one run has built everything; not to be changed."""
    storage = tmp_path_factory.mktemp("undisturbed")
    assert run_job("build_dictionary", *BUILD, "--storage", str(storage)).status == 0
    return storage


def files_of(storage):
    """Content of every file by its place, but for the measured speeds and the index, which names the data's folder."""
    found = {path.relative_to(storage): path.read_bytes() for path in storage.rglob("*") if path.is_file()}
    found.pop(Path("rates.json"))
    return {place: None if place.parent.name == "subjects" else content for place, content in found.items()}


@pytest.mark.slow
def test_a_job_whose_disk_ran_full_goes_on_when_there_is_room(small_disk, undisturbed):
    storage = small_disk / "runs"
    shutil.copytree(undisturbed / "worlds", storage / "worlds")
    ballast = fill(small_disk, leave=2**19)  # one shard of the three, not all
    flags = (*BUILD, "--storage", str(storage))
    ended = run_job("build_dictionary", *flags)
    assert ended.status == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: cannot write {storage}/derived/")
    assert "No space left" in line
    assert not list(storage.rglob("*.tmp"))
    kept = {path: path.stat().st_mtime_ns for path in storage.rglob("shard-*")}
    ballast.unlink()
    assert run_job("build_dictionary", *flags).status == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files_of(storage) == files_of(undisturbed)


@pytest.mark.slow
def test_two_runs_that_build_the_same_caches_at_once_end_well(tmp_path, undisturbed):
    command = job_command("build_dictionary", *BUILD, "--storage", str(tmp_path))
    runs = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=job_environment()
        )
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=280)
        assert (run.returncode, err) == (0, ""), out
    assert files_of(tmp_path) == files_of(undisturbed)
