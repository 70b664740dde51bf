"""What a prediction is about: the persons of boxes and of detections, and requests that cannot be met."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained_model import write_untrained

from ccim_ray.chosen_model import choose_model
from ccim_ray.datasets.images import UnreadableImage
from ccim_ray.errors import RequestError
from ccim_ray.perception.detection_files import PictureDetections
from ccim_ray.perception.person_matching import Persons, match_pose
from ccim_ray.persons import Person
from ccim_ray.prediction import NO_BOX, NOBODY, OUTSIDE, located_by_detector, located_from_boxes, with_depth, with_poses
from ccim_ray.prediction_flags import PredictionFlags, predict
from ccim_ray.storage import Storage
from ccim_ray.trial_folder import MODEL_FILES

SIZES = {"a.png": (60, 40), "b.png": UnreadableImage(Path("b.png"), "not an image"), "c.png": (60, 40)}
BODY = (4.0, 2.0, 24.0, 32.0)


def persons(*scores, peak=5.0):
    """As many persons as scores, each ten pixels to the right of the one before, COCO's joints below each other."""
    boxes = np.array([BODY], np.float32) + np.arange(len(scores))[:, None] * np.float32([10, 0, 10, 0])
    joints = np.stack([np.linspace(10, 16, 17), np.linspace(4, 30, 17), np.full(17, peak)], axis=1)
    shift = np.arange(len(scores))[:, None, None] * np.float32([10, 0, 0])
    return Persons(boxes, np.array(scores, np.float32), (joints[None] + shift).astype(np.float32))


def test_lines_of_boxes_follow_pictures_and_then_the_file():
    given = [
        Person(image="c.png", box=(0, 0, 9, 9)),
        Person(image="a.png", box=(70, 0, 90, 9)),
        Person(image="a.png", box=(5, 5, 70, 30)),
        Person(image="b.png", box=(0, 0, 9, 9)),
    ]
    sizes = SIZES | {"d.png": (60, 40), "e.png": UnreadableImage(Path("e.png"), "missing image")}
    lines = located_from_boxes(["a.png", "b.png", "c.png", "d.png", "e.png"], given, sizes)
    assert [(line.image, line.person, line.status) for line in lines] == [
        ("a.png", 0, OUTSIDE),
        ("a.png", 1, None),
        ("b.png", 0, "not an image"),
        ("c.png", 0, None),
        ("d.png", None, NO_BOX),
        ("e.png", None, "missing image"),
    ]
    assert lines[1].subject.body_box == (5, 5, 60, 30)
    assert {line.subject.box_source for line in lines if line.subject} == {"user"}


def test_everybody_of_at_least_one_half_is_found_the_surest_first_with_pose():
    found = {"a.png": PictureDetections(persons(0.6, 0.4, 0.9)), "c.png": PictureDetections(persons(0.2))}
    lines = located_by_detector(["a.png", "b.png", "c.png"], found, SIZES, "detector@coco")
    assert [(line.image, line.person, line.status) for line in lines] == [
        ("a.png", 0, None),
        ("a.png", 1, None),
        ("b.png", None, "not an image"),
        ("c.png", None, NOBODY),
    ]
    assert [line.box_score for line in lines[:2]] == pytest.approx([0.9, 0.6])
    first, second = lines[0].subject, lines[1].subject
    assert (first.body_box, second.body_box) == ((24, 2, 44, 32), BODY)
    assert (first.other_boxes, second.other_boxes) == ((BODY,), ((24, 2, 44, 32),))
    expected = match_pose(persons(0.6, 0.4, 0.9), BODY, 60, 40)
    assert (second.keypoints, second.face_box) == (expected.keypoints, expected.face_box)
    assert second.face_box is not None


def test_a_picture_that_breaks_in_the_detector_keeps_its_reason():
    found = {"a.png": PictureDetections(persons(), "truncated or damaged image")}
    (line,) = located_by_detector(["a.png"], found, SIZES, "detector@coco")
    assert (line.status, line.person) == ("truncated or damaged image", None)


def test_poses_and_depth_are_added_to_what_is_known(tmp_path):
    face = (6.0, 3.0, 12.0, 9.0)
    given = [Person(image="a.png", box=BODY, face_box=face), Person(image="c.png", box=BODY, depth="own.png")]
    lines = located_from_boxes(["a.png", "c.png"], given, SIZES)
    posed = with_poses(lines, {"a.png": PictureDetections(persons(0.9))})
    assert posed[0].subject.face_box == face
    assert posed[0].subject.keypoints == match_pose(persons(0.9), BODY, 60, 40).keypoints
    assert posed[1] == lines[1]
    for name in ("a.png", "c.png"):
        (tmp_path / "depth").mkdir(exist_ok=True)
        (tmp_path / "depth" / f"{name}.png").touch()
    assert [line.subject.depth for line in with_depth(lines, tmp_path)] == ["depth/a.png.png", "own.png"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Flags that name an untrained model and a folder with one picture, to be changed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_untrained(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "pictures/a.png")
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\na.png,1,2,30,40\n")
    return PredictionFlags(
        model=str(tmp_path / "model"),
        images=tmp_path / "pictures",
        boxes=tmp_path / "boxes.csv",
        storage=str(tmp_path / "runs"),
        plan=True,
    )


def test_a_plan_names_model_and_pictures_and_writes_nothing(places, capsys):
    assert predict(places) == 0
    out = capsys.readouterr().out
    assert f"Model: {places.model}" in out
    assert f"To predict: 1 pictures in {places.images}, 1 boxes" in out
    assert predict(replace(places, boxes=None)) == 0
    assert "persons by fasterrcnn_resnet50_fpn" in capsys.readouterr().out
    assert not Path(places.storage).exists()


@pytest.mark.parametrize("baseline", ["caer_net", "emoticon"])
def test_by_default_one_detector_finds_persons_and_poses_where_they_are_read(places, capsys, baseline):
    write_untrained(Path(places.model), baseline)
    assert predict(replace(places, boxes=None)) == 0
    assert "persons by keypointrcnn_resnet50_fpn" in capsys.readouterr().out
    assert predict(replace(places, boxes=None, pose_detector="none")) == 0
    assert "persons by fasterrcnn_resnet50_fpn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": None}, "--boxes .*: name the pictures that they are of by --images"),
        ({"images": Path("absent")}, "--images .*absent: there is no such folder"),
        ({"boxes": Path("absent.csv")}, "absent.csv: cannot be read"),
        ({"detector": "fasterrcnn_resnet50_fpn"}, "--detector .*: --boxes tell where the persons are"),
        ({"detector": "none", "boxes": None}, "--detector none: somebody has to say"),
        ({"detector": "yolo", "boxes": None}, "--detector yolo: there is no such detector; choose one of faster"),
        ({"pose_detector": "openpose"}, "--pose-detector openpose: there is no such"),
        ({"pose_detector": "keypointrcnn_resnet50_fpn"}, "reads neither faces nor keypoints; leave the flag out"),
        ({"depth_model": Path("m.pt")}, "--depth-model: no baseline asked for reads depth"),
        ({"pictures": -1}, "--pictures -1"),
        ({"dataset": "emotic"}, "--dataset emotic chooses among trials, and --model .* names one"),
        ({"model": "best"}, "holds no trained model: train one with jobs/train.py"),
        ({"model": "0123456789abcdef"}, "holds no trained model"),
        ({"model": "latest"}, "--model latest: no folder, and no trial"),
        ({"model": "models:/nobody@champion"}, "--model models:/nobody@champion: MLflow at"),
        (
            {"images": None, "boxes": None, "detector": "fasterrcnn_resnet50_fpn"},
            "the embedded world knows its persons",
        ),
    ],
)
def test_requests_that_cannot_be_met_are_told_in_one_line(places, changes, told):
    with pytest.raises(RequestError, match=told) as error:
        predict(replace(places, **changes))
    assert "\n" not in str(error.value)


def test_one_picture_takes_its_own_boxes(places, tmp_path, capsys):
    Image.new("RGB", (60, 40)).save(places.images / "b.png")
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\na.png,1,2,30,40\nb.png,1,2,3,4\n")
    assert predict(replace(places, images=places.images / "b.png")) == 0
    assert "1 pictures" in capsys.readouterr().out
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\na.png,1,2,30,40\n")
    with pytest.raises(RequestError, match=r"holds no box of b\.png"):
        predict(replace(places, images=places.images / "b.png"))


def test_a_trial_is_named_by_its_signature_and_its_files_travel(tmp_path):
    storage = Storage(tmp_path / "runs")
    written = write_untrained(storage.trial("0123456789abcdef"))
    model = choose_model("0123456789abcdef", None, storage, None)
    assert model.experiment == written
    (tmp_path / "there").mkdir()
    model.write(tmp_path / "there")
    for name in MODEL_FILES:
        assert (tmp_path / "there" / name).read_bytes() == (storage.trial("0123456789abcdef") / name).read_bytes()
    other = choose_model(str(tmp_path / "there"), None, storage, None)
    assert other.digest == model.digest
    (tmp_path / "there/categories.json").write_text(json.dumps({"names": ["A"], "multi_label": False}))
    assert choose_model(str(tmp_path / "there"), None, storage, None).digest != model.digest
    settings = json.loads((tmp_path / "there/experiment.json").read_text())
    (tmp_path / "there/experiment.json").write_text(json.dumps(settings | {"amp": True}))
    with pytest.raises(RequestError, match=r"not of this version of ccim_ray \(amp: Extra inputs"):
        choose_model(str(tmp_path / "there"), None, storage, None).experiment  # noqa: B018 - read when first asked for
    (tmp_path / "there/experiment.json").write_text("{")
    with pytest.raises(RequestError, match=r"its experiment\.json is damaged"):
        choose_model(str(tmp_path / "there"), None, storage, None).experiment  # noqa: B018
    (tmp_path / "there/best.safetensors").unlink()
    with pytest.raises(RequestError, match=r"best\.safetensors missing"):
        choose_model(str(tmp_path / "there"), None, storage, None)
