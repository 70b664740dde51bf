"""What a dataset lacks: who derives it, what of it enters which key, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_emotic import plain_pictures, write_emotic

from ccim_ray.command_line import TrainingFlags
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.errors import RequestError
from ccim_ray.perception.detection import read_detector_state
from ccim_ray.perception.detection_files import PictureDetections, pose_note, with_detected_poses, write_detections
from ccim_ray.perception.person_matching import Persons, match_pose
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.reports.plan_report import plan_rows
from ccim_ray.results import notes_of
from ccim_ray.storage import Storage
from ccim_ray.training_flags import BaselinesFlags, CcimFlags

DETECTOR = "keypointrcnn_resnet50_fpn"
BODY = (4.0, 2.0, 24.0, 32.0)
WITH_POSES = LoadOptions(pose_detector=DETECTOR)
NOBODY = Persons(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 17, 3), np.float32))


@pytest.fixture
def root(tmp_path):
    return write_emotic(tmp_path / "emotic", plain_pictures())


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def plan_of(root, storage, *baselines, options=WITH_POSES, **more):
    def base(name):
        experiment = default_experiment("emotic", "smoke", None, name, stand_ins=True, **more)
        return experiment.with_changes(dictionary__size=2)

    return make_plan([(name, base(name)) for name in baselines], (0,), storage, root, None, options)


def person(peak=5.0):
    """Somebody in BODY: COCO's joints one below the other; seen from the peak 0 on."""
    joints = np.stack([np.linspace(10, 16, 17), np.linspace(4, 30, 17), np.full(17, peak)], axis=1)
    return Persons(np.array([BODY], np.float32), np.ones(1, np.float32), joints[None].astype(np.float32))


def write_poses(planned, **by_stem):
    found = [PictureDetections(by_stem.get(f"of_{Path(image).stem}", NOBODY)) for image in planned.images]
    write_detections(planned.shard_path(0), planned.images, found)


@pytest.mark.parametrize(
    ("baseline", "note"),
    [
        (
            "emoticon",
            "faces: 0 annotated, 2 found by keypointrcnn_resnet50_fpn@coco, 4 taken as the upper third of the body; "
            "keypoints: 0 annotated, 3 found by keypointrcnn_resnet50_fpn@coco, 3 unknown",
        ),
        (
            "caer_net",
            "faces: 0 annotated, 2 found by keypointrcnn_resnet50_fpn@coco, 4 taken as the upper third of the body",
        ),
    ],
)
def test_poses_are_matched_by_body_and_the_rest_is_counted_in_a_note(root, storage, baseline, note):
    source = plan_of(root, storage, baseline).source
    assert len(source.poses.images) == 6
    # In the third picture the face is not seen, and in the fourth somebody else stands.
    elsewhere = replace(person(), boxes_P4=np.array([[30, 2, 46, 32]], np.float32))
    write_poses(source.poses, of_0=person(), of_1=person(), of_2=person(peak=-1.0), of_3=elsewhere)
    subjects = {Path(subject.image).stem: subject for subject in source.dataset.subjects}
    expected = match_pose(person(), BODY, 48, 40)
    assert expected.face_box is not None
    assert [(subjects[n].keypoints, subjects[n].face_box) for n in "01"] == [tuple_of(expected)] * 2
    assert (subjects["2"].keypoints, subjects["2"].face_box) == (expected.keypoints, None)
    assert {(subjects[n].keypoints, subjects[n].face_box) for n in "345"} == {(None, None)}
    assert source.dataset.note == note
    assert notes_of(source.dataset, [baseline])[0] == f"emotic: {note}"
    assert source.annotated.note == ""


def tuple_of(pose):
    return pose.keypoints, pose.face_box


def test_without_a_detector_unknown_keypoints_stand_in_the_note(root, storage):
    source = plan_of(root, storage, "emoticon", options=LoadOptions()).source
    assert source.poses is None
    assert source.dataset.note == (
        "faces: 0 annotated, 0 found, 6 taken as the upper third of the body; "
        "keypoints: 0 annotated, 0 found, 6 unknown"
    )
    assert plan_of(root, storage, "emot_net").source.dataset.note == ""


def test_an_annotated_face_stays(root, storage):
    source, face = plan_of(root, storage, "emoticon").source, (6.0, 3.0, 12.0, 9.0)
    first, *others = source.annotated.subjects
    annotated = replace(source.annotated, subjects=(replace(first, face_box=face), *others))
    write_poses(source.poses, **{f"of_{n}": person() for n in range(6)})
    posed = with_detected_poses(annotated, source.poses)
    assert posed.subjects[0].face_box == face
    assert {subject.keypoints for subject in posed.subjects} == {match_pose(person(), BODY, 48, 40).keypoints}
    note = pose_note(annotated, posed, source.poses, faces=True, keypoints=False)
    assert note == f"faces: 1 annotated, 5 found by {DETECTOR}@coco, 0 taken as the upper third of the body"
    assert pose_note(posed, posed, None, faces=True, keypoints=True) == ""


def test_poses_enter_the_keys_of_what_sees_them_and_no_others(root, storage):
    with_poses = plan_of(root, storage, "emot_net", "emoticon")
    without = plan_of(root, storage, "emot_net", "emoticon", options=LoadOptions())

    def keys(plan):
        return {view.request.title: view.key for view in plan.views}

    def signatures(plan):
        return {planned.setting: planned.trial.signature for planned in plan.trials}

    changed = {title.split()[0] for title in keys(with_poses) if keys(with_poses)[title] != keys(without)[title]}
    assert changed == {"face", "keypoints"}
    assert signatures(with_poses)["emot_net"] == signatures(without)["emot_net"]
    assert signatures(with_poses)["emoticon"] != signatures(without)["emoticon"]
    assert signatures(plan_of(root, storage, "emot_net")) == {"emot_net": signatures(with_poses)["emot_net"]}
    assert with_poses.source.fingerprint != without.source.fingerprint
    assert plan_of(root, storage, "emot_net").source.poses is None
    # Dictionaries need no pose, hence making them looks for none.
    only = with_poses.only((with_poses.dictionaries[0].features,), with_poses.dictionaries, storage)
    assert only.source.poses is None
    assert not storage.root.exists()


def test_the_depth_model_enters_the_keys_of_depth_alone(root, storage, tmp_path):
    def planned(content):
        (tmp_path / "model.pt").write_bytes(content)
        options = LoadOptions(depth_model=tmp_path / "model.pt")
        plan = plan_of(root, storage, "emot_net", "emoticon", options=options, has_depth=True)
        return {view.request.view: (view.key, view.request.depth_model) for view in plan.views}, plan

    (one, first), (other, second) = planned(b"one"), planned(b"another")
    assert {view for view in one if one[view] != other[view]} == {"depth"}
    assert {view: model for view, (_, model) in one.items() if model} == {"depth": str(tmp_path / "model.pt")}
    assert first.trials[0].trial.signature == second.trials[0].trial.signature
    assert first.trials[1].trial.signature != second.trials[1].trial.signature


def options_of(root, baseline="emoticon", **flags):
    return TrainingFlags(dataset="emotic", data_root=root, baseline=baseline, **flags).load_options()


def test_poses_are_looked_for_by_default_where_somebody_reads_them(root):
    assert options_of(root).pose_detector == DETECTOR
    assert options_of(root, "caer_net").pose_detector == DETECTOR
    assert options_of(root, "emot_net").pose_detector is None
    assert options_of(root, pose_detector="none").pose_detector is None
    several = BaselinesFlags(dataset="emotic", data_root=root, baselines=("emot_net", "emoticon"))
    assert several.load_options().pose_detector == DETECTOR
    faces_known = TrainingFlags(dataset="caer_s", data_root=root, baseline="caer_net")
    assert faces_known.load_options().pose_detector is None
    assert replace(faces_known, pose_detector=DETECTOR).load_options().pose_detector == DETECTOR
    assert replace(faces_known, baseline="emoticon").load_options().pose_detector == DETECTOR
    assert TrainingFlags(baseline="emoticon").load_options().pose_detector is None


def test_emoticon_reads_depth_where_there_is_any(root, tmp_path):
    def variant(**flags):
        experiment = CcimFlags(dataset="emotic", data_root=root, baseline="emoticon", **flags).experiment()
        return experiment.baseline_options["sociodynamic"]

    assert variant() == "agents"
    (tmp_path / "model.pt").write_bytes(b"")
    assert variant(depth_model=tmp_path / "model.pt") == "depth"
    assert variant(depth_model=tmp_path / "model.pt", baseline_options=("sociodynamic=agents",)) == "agents"
    for number in range(6):
        path = root / f"depth/emotic/images/{number}.png.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # One picture without depth is enough for agents; whether all have it is read once a command.
        if number == 5:
            assert variant(keep_overlap=True) == "agents"
        Image.new("L", (48, 40), 9).save(path)
    assert variant() == "depth"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"pose_detector": "openpose"}, "--pose-detector openpose: .* choose keypointrcnn_resnet50_fpn or none"),
        ({"pose_detector": DETECTOR, "baseline": "emot_net"}, "--pose-detector: no baseline .* leave the flag out"),
        ({"pose_detector": "none", "dataset": "confounded_scenes"}, "--pose-detector: the embedded world knows"),
        ({"depth_model": "m.pt", "dataset": "confounded_scenes"}, "--depth-model: the embedded world knows"),
        ({"depth_model": "m.pt", "baseline": "emot_net"}, "--depth-model: no baseline asked for reads depth"),
        (
            {"depth_model": "m.pt", "baseline_options": ("sociodynamic=agents",)},
            "--depth-model: no baseline asked for reads depth",
        ),
        ({"depth_model": "m.pth"}, r"--depth-model .*m\.pth: give TorchScript \(\.pt\) or an exported program"),
        ({"depth_model": "absent.pt"}, r"--depth-model .*absent\.pt: there is no such file"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_one_line(root, tmp_path, flags, told):
    values = {"dataset": "emotic", "baseline": "emoticon"} | flags
    if values["dataset"] == "emotic":
        values["data_root"] = root
    if "depth_model" in values:
        values["depth_model"] = tmp_path / values["depth_model"]
    with pytest.raises(RequestError, match=told) as error:
        TrainingFlags(**values).load_options()
    assert "\n" not in str(error.value)


def test_missing_weights_name_the_flag_that_does_without(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=r"import_weights\.py --arch keypointrcnn.* --pose-detector none") as error:
        read_detector_state(DETECTOR, tmp_path, "--pose-detector none")
    assert "\n" not in str(error.value)


def test_a_plan_tells_of_the_poses_to_look_for(root, storage):
    rows = {row.stage: row for row in plan_rows(plan_of(root, storage, "emoticon"))}
    row = rows[f"detect ({DETECTOR}@coco)"]
    assert (row.there, row.to_do, row.units) == ("0 pictures", "6", 6)
    assert not any(row.stage.startswith("detect") for row in plan_rows(plan_of(root, storage, "emot_net")))
