"""Frames of videos over Ray Data: resumed video by video, what cannot be decoded counted and the rest used."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ccim_ray.command_line import CommonFlags
from ccim_ray.dataset_check import check
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError
from ccim_ray.pipeline.frames import extract_frames
from ccim_ray.rates import Rates

pytestmark = pytest.mark.slow


def write_video(path: Path, first: int) -> None:
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(first)
        for _ in range(10):
            picture_HWC = noise.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four videos of ten frames, an agent in the even frames of each."""
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    lines = []
    for number, split in enumerate(("train", "train", "val", "test")):
        write_video(root / f"videos/{number}.mp4", number)
        lines += [
            {
                "sample_id": f"{number}/p/{frame}",
                "video_id": str(number),
                "agent_id": "p",
                "frame_index": frame,
                "video_file": f"videos/{number}.mp4",
                "bbox": [8, 8, 32, 40],
                "bbox_format": "xyxy_0based_halfopen",
                "labels": ["Happy"],
                "split": split,
                "setting": None,
                "box_source": "annotation",
            }
            for frame in range(0, 10, 2)
        ]
    (root / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def written(frames: Path) -> dict[str, int]:
    """When each frame was written."""
    return {str(path.relative_to(frames)): path.stat().st_mtime_ns for path in frames.rglob("*.jpg") if path.is_file()}


def test_frames_are_decoded_once_and_resumed_video_by_video(root, tmp_path, cluster, capsys) -> None:
    frames, rates = tmp_path / "frames", Rates(tmp_path / "rates.json")
    dataset = extract_frames(load_groupwalk(root), frames, rates)
    assert dataset.root == frames
    assert {subject.image for subject in dataset.subjects} == written(frames).keys()
    for subject in dataset.subjects:
        with Image.open(dataset.root / subject.image) as picture:
            assert picture.size == (subject.width, subject.height)
    assert "decode: 20 frames" in capsys.readouterr().out

    before = written(frames)
    extract_frames(load_groupwalk(root), frames, rates)
    assert written(frames) == before
    assert "Decoding" not in capsys.readouterr().out

    lost = [name for name in before if name.startswith("videos/2.mp4/")]
    for name in lost:
        (frames / name).unlink()
    extract_frames(load_groupwalk(root), frames, rates)
    after = written(frames)
    assert {name for name in before if after[name] != before[name]} == set(lost)
    assert "Decoding frames of 1 videos" in capsys.readouterr().out


def test_a_damaged_video_is_counted_and_the_others_are_used(root, tmp_path, cluster) -> None:
    content = (root / "videos/1.mp4").read_bytes()
    (root / "videos/1.mp4").write_bytes(content[: len(content) // 2])
    loaded, rates = load_groupwalk(root), Rates(tmp_path / "rates.json")
    dataset = extract_frames(loaded, tmp_path / "frames", rates)
    assert dataset.defects.counts == {"video that cannot be decoded": 1}
    assert loaded.defects.counts == {}
    there = [subject.video for subject in dataset.subjects if (dataset.root / subject.image).exists()]
    assert {video: there.count(video) for video in "023"} == {"0": 5, "2": 5, "3": 5}
    assert 0 < there.count("1") < 5
    again = extract_frames(load_groupwalk(root), tmp_path / "frames", rates)
    assert again.defects.counts == dataset.defects.counts


def test_a_check_reads_the_frames_and_counts_each_fault_once(root, tmp_path, cluster, capsys) -> None:
    content = (root / "videos/1.mp4").read_bytes()
    (root / "videos/1.mp4").write_bytes(content[: len(content) // 2])
    before = sorted(root.rglob("*"))
    flags = CommonFlags(dataset="groupwalk", data_root=root, storage=str(tmp_path / "runs"))
    assert check(flags, None) == 0
    assert sorted(root.rglob("*")) == before
    (report,) = (tmp_path / "runs").glob("checks/*/check.json")
    found = json.loads(report.read_text())
    assert {kind: defect["count"] for kind, defect in found["defects"].items()} == {"video that cannot be decoded": 1}
    assert found["root"] == str(root)
    assert found["fingerprint"] == load_groupwalk(root).fingerprint
    train = found["splits"]["train"]
    assert train["damaged_images"] > 0
    assert train["images"] == train["subjects"] == 10 - train["damaged_images"]
    assert f"Decoding frames of 4 videos to {tmp_path / 'runs'}" in capsys.readouterr().out


def test_nothing_that_can_be_decoded_is_an_error(root, tmp_path, cluster) -> None:
    lines = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    for line in lines:  # the header of Matroska does not say how many frames there are
        name = line["video_file"].replace(".mp4", ".mkv")
        write_video(root / name, 0)
        line |= {"video_file": name, "frame_index": line["frame_index"] + 100}
    (root / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(RequestError, match=r"none of the 20 frames needed of 4 videos .*20 x frame beyond the end"):
        extract_frames(load_groupwalk(root), tmp_path / "frames", Rates(tmp_path / "rates.json"))
