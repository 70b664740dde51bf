"""Predicting new pictures: the numbers of training, persons who are found, and what cannot be used, over Ray Data."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from detector_files import MOBILENET, write_detector
from job_runs import TINY, run_job
from PIL import Image
from safetensors.numpy import load_file
from untrained_model import write_untrained

from ccim_ray.chosen_model import choose_model
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.new_pictures import find_pictures, read_boxes
from ccim_ray.persons import write_person
from ccim_ray.prediction import PredictionRequest
from ccim_ray.storage import Storage
from ccim_ray.trained_model import load_trained

pytestmark = pytest.mark.slow

CATEGORIES = ["Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]


def write_boxes(path: Path, subjects: list[Subject]) -> Path:
    rows = [write_person(subject) for subject in subjects]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_result(folder: Path) -> tuple[list[dict], np.ndarray]:
    table = pq.read_table(folder / "predictions.parquet")
    return table.to_pylist(), np.stack([table[name].to_numpy() for name in CATEGORIES], axis=1)


def softmax(logits_SK: np.ndarray) -> np.ndarray:
    powers = np.exp(logits_SK - logits_SK.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def request_of(tmp_path: Path, model: Path, images: Path, boxes: Path | None = None, **changes: object):
    pictures = find_pictures(images)
    values = {
        "model": choose_model(str(model), None, Storage(tmp_path / "runs"), None),
        "pictures": pictures,
        "persons": read_boxes(boxes, pictures.root).persons if boxes else None,
        "of_world": False,
        "detector": None,
        "pose_detector": None,
        "depth_model": None,
        "annotated": 2,
        "storage": Storage(tmp_path / "runs"),
        "out": tmp_path / "out",
        "weights_dir": tmp_path / "weights",
    }
    return PredictionRequest(**(values | changes))


def test_a_trained_model_gives_its_test_pictures_the_scores_of_its_trial(tmp_path: Path) -> None:
    storage = str(tmp_path / "runs")
    trained = run_job("train", *TINY, "--storage", storage)
    assert trained.status == 0, trained.out + trained.err
    (trial,) = (tmp_path / "runs/trials").iterdir()
    (world,) = (tmp_path / "runs/worlds").iterdir()
    subjects = [subject for subject in load_dataset("confounded_scenes", world).subjects if subject.split == "test_id"]
    expected_SK = softmax(load_file(trial / "scores.safetensors")["test_id"])
    boxes = write_boxes(tmp_path / "boxes.csv", subjects)

    flags = ("--images", str(world), "--boxes", str(boxes), "--storage", storage, "--pictures", "3")
    ended = run_job("predict", *flags, "--out", str(tmp_path / "out"))
    assert ended.status == 0, ended.out + ended.err
    assert ended.err == ""
    assert f"trial {trial.name} (the only trial, val/accuracy" in ended.out
    rows, scores_SK = read_result(tmp_path / "out")
    done = [row["status"] == "ok" for row in rows]
    assert {row["status"] for row in rows} == {"ok", "no box in the file of boxes"}
    order = {subject.image: row for row, subject in enumerate(subjects)}
    places = [order[row["image"]] for row in rows if row["status"] == "ok"]
    assert sorted(places) == list(range(len(subjects)))
    np.testing.assert_allclose(scores_SK[done], expected_SK[places], atol=1e-5)
    tops = [row["top"] for row in rows if row["status"] == "ok"]
    assert tops == [CATEGORIES[k] for k in scores_SK[done].argmax(1)]
    assert len(list((tmp_path / "out/pictures").rglob("*.jpg"))) == 3

    printed = re.search(
        r"best model by validation: python jobs/predict\.py --model (models:/\S+@best)$", trained.out, re.M
    )
    assert printed, trained.out
    of_world = run_job("predict", "--model", printed[1], "--storage", storage, "--out", str(tmp_path / "do"))
    assert of_world.status == 0, of_world.out + of_world.err
    expected_SK = softmax(load_file(trial / "scores.safetensors")["test_do"])
    np.testing.assert_allclose(read_result(tmp_path / "do")[1], expected_SK, atol=1e-5)


@pytest.mark.parametrize("baseline", ["emot_net", "gcn_cnn", "caer_net", "emoticon"])
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_every_baseline_reads_what_the_boxes_tell(
    cluster: object, small_world: Path, tmp_path: Path, baseline: str, trainable: str
) -> None:
    from ccim_ray.pipeline.prediction import run_prediction

    write_untrained(tmp_path / "model", baseline, trainable, deconfounder="ccim")
    images = shutil.copytree(small_world, tmp_path / "images")
    subjects = list(load_dataset("confounded_scenes", images).subjects[:5])
    expected_SK, _ = load_trained(tmp_path / "model", root=images).score(subjects)
    request = request_of(tmp_path, tmp_path / "model", images, write_boxes(tmp_path / "boxes.csv", subjects))
    assert run_prediction(request) == 0
    rows, scores_SK = read_result(tmp_path / "out")
    order = {subject.image: row for row, subject in enumerate(subjects)}
    for row, scores_K in zip(rows, scores_SK, strict=True):
        if row["status"] == "ok":
            np.testing.assert_allclose(scores_K, expected_SK[order.pop(row["image"])], atol=1e-6)
    assert not order


def test_what_cannot_be_used_is_named_and_the_rest_predicted(
    cluster: object, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ccim_ray.pipeline.prediction import run_prediction

    write_untrained(tmp_path / "model")
    images = tmp_path / "images"
    images.mkdir()
    first, second, *_ = load_dataset("confounded_scenes", small_world).subjects
    shutil.copy(small_world / first.image, images / "good.png")
    content = (small_world / second.image).read_bytes()
    (images / "cut.png").write_bytes(content[: len(content) // 2])
    (images / "text.png").write_text("no picture")
    bomb = Image.new("1", (30_000, 30_000))
    bomb.save(images / "bomb.png")
    boxes = tmp_path / "boxes.csv"
    names = ("good", "good", "cut", "text", "bomb", "absent")
    corners = [(900, 0, 950, 9), first.body_box, second.body_box, (0, 0, 9, 9), (0, 0, 9, 9), (0, 0, 9, 9)]
    lines = [f"{name}.png,{','.join(map(str, box))}" for name, box in zip(names, corners, strict=True)]
    boxes.write_text("\n".join(["image,x1,y1,x2,y2", *lines]))
    request = request_of(tmp_path, tmp_path / "model", images, boxes)
    assert run_prediction(request) == 1
    rows, scores_SK = read_result(tmp_path / "out")
    assert [(row["image"], row["person"], row["status"]) for row in rows] == [
        ("absent.png", 0, "missing image"),
        ("bomb.png", 0, "image too large to decode safely"),
        ("cut.png", 0, "truncated or damaged image"),
        ("good.png", 0, "box does not lie in the image"),
        ("good.png", 1, "ok"),
        ("text.png", 0, "not an image"),
    ]
    known = np.isfinite(scores_SK).all(1)
    assert known.tolist() == [row["status"] == "ok" for row in rows]
    listed = (tmp_path / "out/defects.csv").read_text()
    assert "truncated or damaged image,cut.png person 0" in listed
    assert "1 x not an image, such as text.png person 0" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out/pictures").iterdir()] == ["good.png.jpg"]

    assert run_prediction(request) == 1
    again, scores_again_SK = read_result(tmp_path / "out")
    assert again == rows
    assert "predict:" not in capsys.readouterr().out  # nothing was missing
    shutil.copy(small_world / second.image, images / "cut.png")
    run_prediction(request)
    assert read_result(tmp_path / "out")[0][2]["status"] == "ok"


def test_persons_are_found_where_no_boxes_are_given(cluster: object, tmp_path: Path) -> None:
    from ccim_ray.pipeline.prediction import run_prediction

    network = write_detector(tmp_path / "weights", MOBILENET)
    write_untrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(3)
    expected: dict[str, list[tuple[float, list[float]]]] = {}
    for number in range(4):
        image = np.full((60, 90, 3), generator.integers(0, 256, 3), np.uint8)
        image[10:50, 20:60] = generator.integers(0, 256, (40, 40, 3))
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
        with torch.no_grad():
            (found,) = network([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        sure = (found["scores"] >= 0.5) & (found["labels"] == 1)
        boxes = zip(found["scores"][sure].tolist(), found["boxes"][sure].tolist(), strict=True)
        expected[f"{number}.png"] = sorted(boxes, reverse=True)
    assert any(expected.values()), "the seeded detector has to find somebody"
    request = request_of(tmp_path, tmp_path / "model", tmp_path / "images", detector=MOBILENET)
    assert run_prediction(request) == 0
    rows, _ = read_result(tmp_path / "out")
    for image, found in expected.items():
        of_image = [row for row in rows if row["image"] == image]
        if not found:
            assert [row["status"] for row in of_image] == ["nobody found"]
            continue
        assert {row["box_source"] for row in of_image} == {f"{MOBILENET}@coco"}
        np.testing.assert_allclose([row["box_score"] for row in of_image], [score for score, _ in found], atol=1e-4)
        boxes_P4 = [[row[name] for name in ("x1", "y1", "x2", "y2")] for row in of_image]
        np.testing.assert_allclose(boxes_P4, [np.clip(box, 0, [90, 60, 90, 60]) for _, box in found], atol=0.05)


def test_without_weights_of_a_detector_the_way_out_is_told_in_one_line(tmp_path: Path, monkeypatch) -> None:
    write_untrained(tmp_path / "model", "emoticon")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images/a.png")
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2,depth\na.png,1,2,30,40,a.png\n")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    flags = ("--model", str(tmp_path / "model"), "--images", str(tmp_path / "images"), "--storage", str(tmp_path / "r"))
    for more, words in (
        ((), ("import_weights.py --arch keypointrcnn", "or give --boxes FILE")),
        (("--boxes", str(tmp_path / "boxes.csv")), ("or give --pose-detector none",)),
    ):
        ended = run_job("predict", *flags, *more)
        assert ended.status == 2, ended.out + ended.err
        (line,) = ended.err.strip().splitlines()
        assert line.startswith("error: ")
        assert all(word in line for word in words), line
    ended = run_job("predict", *flags, "--boxes", str(tmp_path / "boxes.csv"), "--pose-detector", "none")
    assert ended.status == 0, ended.out + ended.err
