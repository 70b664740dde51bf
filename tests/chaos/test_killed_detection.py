"""Boxes of persons: a job killed while they are looked for, and shards of them that are lost or damaged."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from chaos_runs import TABLE, Fault, derived_of, kill_once, run
from detector_files import MOBILENET, write_detector

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

JOB, SHARD = "extract_features", "/derived/detections/.*/shard-"
SHARDS, SHARD_IMAGES = 4, 64
COUNTING = Fault("replace", SHARD, 0)
"""Strikes never."""


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Of the job, on pictures of persons without a box."""
    root = tmp_path_factory.mktemp("caer_s")
    write_world(WorldSettings(like="caer_s", images=240, image_size=64), root)
    (root / "body_boxes.csv").unlink()
    data = ("--dataset", "caer_s", "--data-root", str(root), "--detector", MOBILENET)
    return (*data, "--preset", "smoke", "--trainable", "head", "--stand-ins")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the detector's."""
    folder = tmp_path_factory.mktemp("weights")
    write_detector(folder)
    return str(folder)


@pytest.fixture(scope="module")
def straight(flags: tuple[str, ...], weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of a job that nothing disturbed; not to be changed."""
    folder = tmp_path_factory.mktemp("straight")
    end = run(JOB, *flags, "--storage", str(folder / "runs"), folder=folder / "log", CCIM_RAY_WEIGHTS=weights)
    assert (end.status, end.err) == (0, ""), end
    assert len(shards_of(folder / "runs")) == SHARDS
    return folder / "runs"


def shards_of(storage: Path) -> dict[Path, int]:
    """When each was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(storage.glob("derived/detections/*/shard-*"))}


def detect_again(flags: tuple[str, ...], weights: str, storage: Path, log: Path, kept: dict[Path, int]) -> str:
    """The job makes the shards that are not kept, each once, and touches no other; returns what it printed."""
    end = run(JOB, *flags, "--storage", str(storage), folder=log, fault=COUNTING, CCIM_RAY_WEIGHTS=weights)
    assert (end.status, end.err) == (0, ""), end
    made = SHARDS - len(kept)
    assert int((log / "events").read_text()) == made
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    pictures = int(re.search(r"detect: (\d+) pictures in", end.out)[1])
    assert (made - 1) * SHARD_IMAGES < pictures <= made * SHARD_IMAGES
    return end.out


def test_a_job_killed_while_it_detects_goes_on_with_the_shards_that_lack(
    flags: tuple[str, ...], weights: str, straight: Path, tmp_path: Path
) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    where = ("--storage", str(storage))
    kill_once(JOB, *flags, *where, folder=log, fault=Fault("replace", SHARD, 3), CCIM_RAY_WEIGHTS=weights)
    kept = shards_of(storage)
    assert 0 < len(kept) < SHARDS
    detect_again(flags, weights, storage, log, kept)
    assert derived_of(storage) == derived_of(straight)
    TABLE.add(
        "all processes of a job killed while boxes are detected, a shard half written",
        1,
        "nothing that was finished",
        "no picture of a stored shard detected again; equal to the bit",
    )


def test_shards_that_are_lost_or_damaged_are_detected_again_with_a_word(
    flags: tuple[str, ...], weights: str, straight: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(straight, storage)
    lost, flipped, cut, whole = shards_of(storage)
    lost.unlink()
    content = bytearray(flipped.read_bytes())
    content[len(content) // 4] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-50])
    kept = {whole: whole.stat().st_mtime_ns}
    printed = detect_again(flags, weights, storage, tmp_path / "log", kept)
    for path in (flipped, cut):
        assert re.search(f"made again: {path} is damaged", printed), printed
    assert derived_of(storage) == derived_of(straight)
    TABLE.add(
        "one of four shards of boxes deleted, one with a flipped bit, one cut",
        3,
        "these",
        "made again with a word, the other not touched; equal to the bit",
    )
