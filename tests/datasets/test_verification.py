"""Decoding every picture: what a header hides is found, and each defect is counted once."""

import contextlib
import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.datasets.images import read_rgb, read_size
from ccim_ray.datasets.verification import perceptual_hash, verify_images


@pytest.fixture
def world(small_world, tmp_path):
    """A copy of the world that may be damaged."""
    return shutil.copytree(small_world, tmp_path / "world")


def truncate(path):
    """Cut the second half of a file off; its header stays whole."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert read_size(path) == (64, 64)


def images_of(dataset):
    return [subject.image for subject in dataset.subjects]


def test_a_whole_download_has_no_defect(world, capsys):
    dataset = load_caer_s(world)
    verification = verify_images(dataset)
    assert "  decode: 60 images in " in capsys.readouterr().out
    assert verification.defects.counts == {}
    assert verification.damaged == frozenset()
    assert verification.images == tuple(images_of(dataset))
    assert len(set(verification.sha256)) == 60
    assert verification.hashes_NW.shape == (60, 4)
    assert not verification.uniform_N.any()


def test_truncated_bodies_are_found_though_their_headers_are_fine(world):
    victims = images_of(load_caer_s(world))[3:10]
    for victim in victims:
        truncate(world / victim)
    dataset = load_caer_s(world)
    assert dataset.defects.counts == {}
    verification = verify_images(dataset)
    assert verification.defects.counts == {"truncated or damaged image": 7}
    assert verification.defects.places["truncated or damaged image"] == victims
    assert verification.defects.examples["truncated or damaged image"] == victims[:5]
    assert verification.damaged == set(victims)
    assert not set(victims) & set(verification.images)
    assert len(verification.sha256) == len(verification.hashes_NW) == len(verification.uniform_N) == 53


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core decodes one picture at a time")
def test_pictures_are_decoded_side_by_side(world):
    """Opening a pipe waits for who writes to it: the second one is opened while the first one is waited for."""
    dataset = load_caer_s(world)
    first, second = images_of(dataset)[:2]
    for image in (first, second):
        (world / image).unlink()
        os.mkfifo(world / image)
    found = []
    checking = threading.Thread(target=lambda: found.append(verify_images(dataset)), daemon=True)
    checking.start()
    for image in (second, first):
        os.close(opened_for_writing(world / image))
    checking.join(timeout=60)
    assert found[0].damaged == {first, second}


def opened_for_writing(pipe):
    """Open a pipe to write once somebody reads it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # nobody reads it yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    pytest.fail(f"nobody opened {pipe}")


def test_what_is_known_to_be_lost_is_not_counted_again(world):
    images = images_of(load_caer_s(world))
    dataset = load_caer_s(world)
    for image in images[:3]:
        (world / image).unlink()
    verification = verify_images(dataset, known=images[:2])
    assert verification.defects.places == {"missing image": [images[2]]}
    assert verification.damaged == set(images[:3])


def test_what_the_loader_left_out_is_not_counted_again(world):
    images = images_of(load_caer_s(world))
    (world / images[0]).write_bytes(b"no image at all")
    (world / images[1]).write_bytes((world / images[1]).read_bytes()[:20])
    truncate(world / images[2])
    dataset = load_caer_s(world)
    before = dict(dataset.defects.counts)
    verification = verify_images(dataset)
    assert sum(before.values()) == 2
    assert sum(verification.defects.counts.values()) == 3
    assert dataset.defects.counts == before


def test_a_damaged_image_of_several_people_is_one_defect(tmp_path):
    def line(video, agent, split):
        return {
            **{"sample_id": f"{video}/{agent}/0", "video_id": video, "agent_id": agent, "frame_index": 0},
            **{"image": f"{video}.png", "bbox": [2, 2, 30, 60], "bbox_format": "xyxy_0based_halfopen"},
            **{"labels": ["Sad"], "split": split, "setting": None, "box_source": "annotation"},
        }

    rows = [line("a", "p", "train"), line("a", "q", "train"), line("b", "p", "val"), line("b", "q", "val")]
    rows.append(line("c", "p", "test"))
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    for name, pixels in zip("abc", noise, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    truncate(tmp_path / "b.png")
    verification = verify_images(load_groupwalk(tmp_path))
    assert verification.images == ("a.png", "c.png")
    assert verification.defects.counts == {"truncated or damaged image": 1}


def test_people_without_a_box_are_counted_unless_their_image_is_damaged(world):
    for name in ("train.txt", "test.txt", "body_boxes.csv"):
        (world / name).unlink()
    dataset = load_caer_s(world, LoadOptions(keep_unlocated=True))
    truncate(world / dataset.subjects[0].image)
    counts = verify_images(dataset).defects.counts
    assert counts == {"truncated or damaged image": 1, "no box": 59}


def test_black_frames_are_nearly_uniform(world):
    images = images_of(load_caer_s(world))
    rng = np.random.default_rng(0)
    Image.new("RGB", (64, 64)).save(world / images[4])
    Image.fromarray(rng.integers(10, 13, (64, 64, 3), np.uint8)).save(world / images[5])
    uniform_N = verify_images(load_caer_s(world)).uniform_N
    assert np.flatnonzero(uniform_N).tolist() == [4, 5]


def test_the_hash_is_the_sign_of_low_frequencies_about_their_median(small_world):
    picture = read_rgb(small_world / images_of(load_caer_s(small_world))[0])
    small = np.asarray(Image.fromarray(picture).convert("L").resize((64, 64), Image.Resampling.LANCZOS), float)
    low = dctn(small)[:16, :16]
    bits = low > np.median(low)
    words = perceptual_hash(picture)
    assert np.bitwise_count(words).tolist() == [
        bits[:8, :8].sum(),
        bits[:8, 8:].sum(),
        bits[8:, :8].sum(),
        bits[8:, 8:].sum(),
    ]
    first = np.unpackbits(words[:1].view(np.uint8)).reshape(8, 8)
    assert (first == bits[:8, :8]).all()
