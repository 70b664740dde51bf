"""A disk that runs full while a cache is written, and two runs that build the same one at once."""

import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torchvision
from job_runs import ROOT, job_command, job_environment, run_job

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import is_complete, write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.video_frames import LOST_FRAMES_FILE, lost_frames, write_frames
from ccim_ray.datasets.videos import BEYOND_THE_END
from ccim_ray.errors import RequestError
from ccim_ray.perception.detection_files import PictureDetections, PlannedDetections, write_detections
from ccim_ray.perception.imported_weights import check_import, import_weights
from ccim_ray.perception.person_matching import Persons
from ccim_ray.prepared import read_shards, read_subject_index, write_shard, write_subject_index
from ccim_ray.storage import only_process, write_json

IDS = tuple(f"subject-{number}" for number in range(32))
FEATURES_SD = np.arange(32 * 512, dtype=np.float32).reshape(32, 512)
RANDOM = np.random.default_rng(0)
FOUND = [Persons(RANDOM.random((99, 4), np.float32), RANDOM.random(99, np.float32)) for _ in IDS]
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


def write_found(folder, world):
    write_detections(folder / "shard-00000.parquet", IDS, [PictureDetections(persons) for persons in FOUND])


def read_found(folder, world):
    found = PlannedDetections("fasterrcnn_resnet50_fpn", folder, IDS).read()
    equal = [
        np.array_equal(found[name].persons.boxes_P4, one.boxes_P4)
        and np.array_equal(found[name].persons.scores_P, one.scores_P)
        for name, one in zip(IDS, FOUND, strict=True)
    ]
    return all(equal)


CACHES = {
    "detection shard": (write_found, read_found),
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
def video(tmp_path_factory):
    """Twelve frames of noise, of about 30 kB each as a cached picture."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 128, "yuv420p", 8_000_000
        for _ in range(12):
            picture_HWC = noise.integers(0, 255, (128, 160, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())
    return path


def frames_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".jpg"}


def test_a_disk_that_runs_full_while_frames_are_decoded_keeps_the_whole_ones(small_disk, video, tmp_path):
    write_frames(video, tmp_path / "frames", range(14))
    expected, folder = frames_in(tmp_path / "frames"), small_disk / "frames"
    ballast = fill(small_disk, leave=3 * max(map(len, expected.values())) + 8192)
    with pytest.raises(RequestError, match=r"cannot write .*/frames/0000\d\d.jpg: No space left") as failure:
        write_frames(video, folder, range(14))
    assert "\n" not in str(failure.value)
    there = frames_in(folder)
    assert 0 < len(there) < len(expected) == 12
    assert there.items() <= expected.items()
    assert len(list(folder.iterdir())) == len(there)  # neither half a picture nor a list of frames that are not lost
    ballast.unlink()
    write_frames(video, folder, [number for number in range(14) if f"{number:06d}.jpg" not in there])
    assert frames_in(folder) == expected
    assert lost_frames(folder) == lost_frames(tmp_path / "frames") == dict.fromkeys((12, 13), BEYOND_THE_END)


WRITE_FRAMES = """
import sys
from pathlib import Path
from ccim_ray.datasets.video_frames import write_frames
print("ready", flush=True)
for folder in sys.stdin:
    write_frames(Path(sys.argv[1]), Path(folder.strip()), range(14))
    print("done", flush=True)
"""


def test_two_runs_that_decode_the_same_video_at_once_leave_every_frame_whole(video, tmp_path):
    write_frames(video, tmp_path / "alone", range(14))
    command = [sys.executable, "-c", WRITE_FRAMES, str(video)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runs = [subprocess.Popen(command, text=True, env=job_environment(), **pipes) for _ in range(2)]
    assert [run.stdout.readline() for run in runs] == ["ready\n"] * 2
    for number in range(10):
        folder = tmp_path / str(number)
        for run in runs:
            run.stdin.write(f"{folder}\n")
            run.stdin.flush()
        assert [run.stdout.readline() for run in runs] == ["done\n"] * 2
        assert frames_in(folder) == frames_in(tmp_path / "alone")
        assert lost_frames(folder) == dict.fromkeys((12, 13), BEYOND_THE_END)
        assert not list(folder.glob("*.tmp"))
    for run in runs:
        _, err = run.communicate(timeout=60)
        assert (run.returncode, err) == (0, "")


def test_runs_that_lose_frames_at_once_forget_none(video, tmp_path):
    """One run reads the list, another one writes it, then the first one does."""
    folder = tmp_path / "frames"
    folder.mkdir()
    other = threading.Thread(target=write_frames, args=(video, folder, [12]))
    with only_process(folder / f".{LOST_FRAMES_FILE}.lock"):
        known = lost_frames(folder)
        other.start()
        other.join(timeout=1.5)
        write_json(folder / LOST_FRAMES_FILE, {str(number): why for number, why in {**known, 13: "beyond"}.items()})
    other.join(timeout=60)
    assert lost_frames(folder) == {12: BEYOND_THE_END, 13: "beyond"}


def digests_of(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_disk_that_runs_full_while_a_world_is_written_keeps_the_whole_pictures(small_disk, small_world):
    settings = WorldSettings.model_validate_json((small_world / "world.json").read_bytes())
    ballast = fill(small_disk, leave=2**17)
    with pytest.raises(RequestError, match=r"cannot write .*/world/.*No space left") as failure:
        write_world(settings, small_disk / "world")
    assert "\n" not in str(failure.value)
    assert not is_complete(settings, small_disk / "world")
    there, expected = digests_of(small_disk / "world"), digests_of(small_world)
    there.pop(Path("world.unfinished.json"))
    assert 0 < len(there) < len(expected)
    assert there.items() <= expected.items()
    ballast.unlink()
    write_world(settings, small_disk / "world")
    assert digests_of(small_disk / "world") == expected


def test_a_full_disk_while_weights_are_imported_leaves_no_file(tmp_path, full_disk):
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=365).state_dict(), tmp_path / "source.pth")
    arguments = (tmp_path / "source.pth", "resnet18", "places365", tmp_path / "weights")
    with full_disk(), pytest.raises(RequestError, match=r"cannot write .*resnet18_places365\.safetensors"):
        import_weights(*arguments)
    assert list((tmp_path / "weights").iterdir()) == []
    check_import(import_weights(*arguments).path)


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
