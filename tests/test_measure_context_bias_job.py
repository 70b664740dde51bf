"""The job as a user runs it: on a small world, on a folder in EMOTIC's format, and where the request is wrong."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_runs import Ended, run_job
from PIL import Image

from ccim_ray.context_bias import measure
from ccim_ray.context_bias_request import BiasRequest, images_of_split, read_places365_names
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.measuring import BiasFlags, _request
from ccim_ray.pipeline.context_bias import measure_context_bias

FAST = ("--permutations", "50")


def results(ended: Ended) -> Path:
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Results in ")]
    return Path(line.removeprefix("Results in ").split(":")[0])


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "context_bias.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_one_line(ended: Ended, *words: str) -> None:
    assert ended.status == 2, ended.out + ended.err
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def emotic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of 150 pictures in EMOTIC's format."""
    root = tmp_path_factory.mktemp("emotic")
    write_world(WorldSettings(like="emotic", images=150, image_size=64), root)
    return root


@pytest.mark.slow
def test_a_small_world(tmp_path: Path) -> None:
    flags = ("--preset", "smoke", "--images", "300", "--storage", str(tmp_path), *FAST)
    plan = run_job("measure_context_bias", *flags, "--plan")
    assert plan.status == 0, plan.err
    assert "context (thin_resnet/scenes," in plan.out
    assert "156" in plan.out  # images of the train split alone
    assert not list(tmp_path.iterdir())

    ended = run_job("measure_context_bias", *flags)
    assert ended.status == 0, ended.err
    folder = results(ended)
    assert folder.parent == tmp_path / "context_bias"
    rows = rows_of(folder)
    assert [(row["category"], row["min_count"]) for row in rows] == [
        (name, least) for name in ("Anger", "Happy", "Fear") for least in ("1", "5")
    ]
    assert all(int(row["positives"]) + int(row["negatives"]) == 156 for row in rows)
    for row in rows:
        shown = f"{100 * float(row['zero_fraction']):.1f}" if row["zero_fraction"] else ""
        assert shown in ended.out
    assert any(row["zero_fraction"] for row in rows)
    values = json.loads((folder / "context_bias.json").read_text())
    assert values["scenes"] == "thin_resnet/scenes"
    assert values["world"]["bias"] == 0.8
    first = values["emotions"]["Anger"]["first_sample"]
    assert len(first["scene"]) == len(first["entropy"]) == len(first["null_high"])
    with Image.open(folder / "context_bias.png") as picture:
        assert picture.width > picture.height > 400

    again = run_job("measure_context_bias", *flags)
    assert "Extracting" not in again.out
    assert rows_of(results(again)) == rows

    true = run_job(
        "measure_context_bias", *flags, "--scenes", "true", "--categories", "all", "--splits", "train", "val"
    )
    assert true.status == 0, true.err
    assert "as annotated" in true.out
    assert len(rows_of(results(true))) == 14
    assert results(true) != folder


@pytest.mark.slow
def test_a_folder_in_the_format_of_emotic(emotic: Path, tmp_path: Path) -> None:
    data = ("--dataset", "emotic", "--data-root", str(emotic), "--storage", str(tmp_path), *FAST)
    victim = images_of_split(load_dataset("emotic", emotic), "train").subjects[0].image
    content = (emotic / victim).read_bytes()
    try:
        (emotic / victim).write_bytes(content[: len(content) // 2])  # readable header, unreadable picture
        ended = run_job("measure_context_bias", *data, "--scene-weights", "thin_resnet/scenes", "--unit", "person")
    finally:
        (emotic / victim).write_bytes(content)
    assert ended.status == 0, ended.err
    assert "1 of 76 subjects left out" in ended.out
    assert victim in ended.out
    assert {row["category"] for row in rows_of(results(ended))} == {"Anger", "Happiness", "Fear"}
    assert all(int(row["positives"]) + int(row["negatives"]) == 75 for row in rows_of(results(ended)))

    missing = run_job("measure_context_bias", *data)
    assert_one_line(missing, "resnet152_places365.safetensors", "import_weights")


def test_an_unknown_category(tmp_path: Path) -> None:
    flags = ("--preset", "smoke", "--storage", str(tmp_path), "--categories", "Joy")
    assert_one_line(run_job("measure_context_bias", *flags), "--categories Joy", "Anger, Disgust", "Surprise")
    assert not list(tmp_path.iterdir())


def request_for(root: Path, storage: Path, **flags: object) -> BiasRequest:
    values = {"dataset": "emotic", "data_root": root, "storage": str(storage), "scene_weights": "thin_resnet/scenes"}
    return _request(BiasFlags(**{**values, **flags}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"categories": ("Joy",)}, ["--categories Joy", "Affection, Anger"]),
        ({"splits": ("train", "test_foo")}, ["--splits test_foo", "train, val"]),
        ({"splits": ()}, ["--splits"]),
        ({"scene_weights": "resnet152/imagenet"}, ["--scene-weights resnet152/imagenet", "resnet152/places365"]),
        ({"scene_weights": "resnet152"}, ["--scene-weights resnet152"]),
        ({"scene_weights": "thin_resnet/places365"}, ["places365", "thin_resnet"]),
        ({"data_root": None}, ["--data-root"]),
        ({"scenes": "annotation"}, ["--scenes", "annotated"]),
        ({"preset": "odd"}, ["--preset odd"]),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_made(emotic, tmp_path, flags, words) -> None:
    with pytest.raises(RequestError) as told:
        measure_context_bias(request_for(emotic, tmp_path, **flags))
    assert all(word in str(told.value) for word in words), told.value
    assert not list(tmp_path.iterdir())


def test_every_option_has_a_result_of_its_own_and_shares_the_scenes(emotic: Path, tmp_path: Path) -> None:
    base = request_for(emotic, tmp_path)
    changes = (
        *({"weighting": "raw"}, {"ranking": "all"}, {"negatives": "all"}, {"samples": 3}, {"top_scenes": 7}),
        *({"unit": "person"}, {"min_count": 2}, {"permutations": 99}, {"seed": 1}, {"categories": ("Anger",)}),
        {"scenes": "annotation"},
    )
    requests = [request_for(emotic, tmp_path, **change) for change in changes]
    assert len({base.folder, *(request.folder for request in requests)}) == len(changes) + 1
    assert all(request.views == base.views for request in requests[:-1])
    more = request_for(emotic, tmp_path, splits=("train", "val"))
    assert more.views[0] == base.views[0]
    assert request_for(emotic, tmp_path, scenes="true").folder == requests[-1].folder


def test_what_is_measured_of_groupwalk_says_that_its_format_is_unverified(tmp_path: Path, capsys) -> None:
    root = tmp_path / "groupwalk"
    write_world(WorldSettings(like="groupwalk", images=100, image_size=64), root)
    request = request_for(root, tmp_path / "runs", dataset="groupwalk", scenes="annotation", permutations=40)
    assert measure_context_bias(request) == 0
    (title,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Context bias (Fig. 2)")]
    assert title.startswith("Context bias (Fig. 2): groupwalk (format unverified), train; scenes: annotation")
    assert json.loads((request.folder / "context_bias.json").read_text())["note"] == "format unverified"
    assert [row["category"] for row in rows_of(request.folder)[::2]] == ["Angry", "Happy"]


def test_one_row_for_every_image(emotic: Path) -> None:
    dataset = load_dataset("emotic", emotic)
    two = (replace(dataset.subjects[0], subject_id="a second person"), *dataset.subjects)
    images = images_of_split(replace(dataset, subjects=two), "train").subjects
    assert images[0].subject_id == "a second person"
    assert len(images) == len({subject.image for subject in dataset.subjects if subject.split == "train"})
    assert {subject.split for subject in images} == {"train"}


def test_scene_names_come_from_the_published_file(tmp_path: Path) -> None:
    path = tmp_path / "categories_places365.txt"
    names = ["airfield", "apartment_building/outdoor", *(f"scene_{number}" for number in range(2, 365))]
    path.write_text("\n".join(f"/{name[0]}/{name} {number}" for number, name in enumerate(names)))
    assert read_places365_names(path) == tuple(names)
    path.write_text(path.read_text().replace("scene_200 200", "scene_200 201"))
    with pytest.raises(RequestError, match=r"categories_places365\.txt holds 364 lines"):
        read_places365_names(path)


def test_recognised_scenes_are_those_of_the_head(emotic: Path) -> None:
    import torch

    from ccim_ray.datasets.images import read_rgb, resize
    from ccim_ray.perception.architectures import ViewRequest
    from ccim_ray.perception.views import ViewMaker
    from ccim_ray.perception.weights import load_backbone

    subjects = load_dataset("emotic", emotic).subjects[:40]
    requests = [ViewRequest("context", "thin_resnet", "scenes", output) for output in ("scene", "features")]
    (scenes, features), reasons = ViewMaker(emotic, requests, None, torch.device("cpu")).make(subjects, [0, 1])
    assert {reason for of_view in reasons for reason in of_view} == {None}
    assert features.shape == (40, 512)
    assert (scenes.shape, scenes.dtype) == ((40, 2), np.float32)
    backbone = load_backbone("thin_resnet", "scenes", keep_head=True)
    pictures = torch.from_numpy(np.stack([resize(read_rgb(emotic / subject.image), 64) for subject in subjects]))
    with torch.no_grad():
        probabilities = backbone.outputs(backbone.normalise(pictures)).softmax(1).numpy()
    np.testing.assert_array_equal(scenes[:, 0], probabilities.argmax(1))
    np.testing.assert_allclose(scenes[:, 1], probabilities.max(1), rtol=1e-4)
    assert len(np.unique(scenes[:, 0])) > 5


def test_scene_recognition_is_good_enough_to_measure_with(emotic: Path) -> None:
    """What is recognised says about the bias what the truth says."""
    import torch

    from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
    from ccim_ray.perception.architectures import ViewRequest
    from ccim_ray.perception.views import ViewMaker

    dataset = load_dataset("confounded_scenes", emotic)
    request = ViewRequest("context", "thin_resnet", "scenes", "scene")
    ((recognised, *_), _) = ViewMaker(emotic, [request], None, torch.device("cpu")).make(dataset.subjects, [0])
    true = np.array([SCENE_NAMES.index(str(subject.scene)) for subject in dataset.subjects])
    assert (recognised[:, 0] == true).mean() > 0.8
    options = request_for(emotic, emotic, permutations=40).options
    holds, image = dataset.targets[:, dataset.categories.index("Happiness")] > 0, np.arange(len(true))
    measured = [
        measure(scene, holds, image, options).information.value for scene in (recognised[:, 0].astype(int), true)
    ]
    assert measured[0] == pytest.approx(measured[1], abs=0.15)
