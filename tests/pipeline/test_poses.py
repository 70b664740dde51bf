"""Faces and keypoints that EMOTIC lacks are found over Ray Data; the reference is torchvision."""

import numpy as np
import pytest
import torch
import torchvision
from detector_files import published_state, write_detector
from safetensors.torch import save_file
from small_emotic import write_emotic
from torch import nn

from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.perception.geometry import keypoints_of
from ccim_ray.perception.person_matching import openpose_points
from ccim_ray.pipeline.preparation import prepare
from ccim_ray.plan import make_plan
from ccim_ray.prepared import read_shards, read_subject_index
from ccim_ray.presets import default_experiment
from ccim_ray.reports.plan_report import plan_rows
from ccim_ray.storage import Storage

pytestmark = pytest.mark.slow

DETECTOR = "keypointrcnn_resnet50_fpn"
SPLITS = ("train", "val", "test")
NOBODY_THERE = "2.png"


def pictures():
    generator = np.random.default_rng(3)
    made = []
    for _ in SPLITS:
        # Long and low: the network enlarges a picture to 800 pixels, or to 1333 on its longer side.
        image = np.full((16, 200, 3), generator.integers(0, 256, 3), np.uint8)
        image[4:14, 20:60] = generator.integers(0, 256, (10, 40, 3))
        made.append(image)
    return made


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Folder of the weights, and torchvision's network with them."""
    folder = tmp_path_factory.mktemp("weights")
    network = write_detector(folder, DETECTOR)
    network.roi_heads.box_predictor.cls_score.bias.data[1] = 6  # every box is a person's
    save_file(published_state(network), folder / f"{DETECTOR}_coco.safetensors")
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision sets it where it loads these weights
    return folder, network


def test_poses_of_the_annotated_persons_reach_the_views(detector, cluster, tmp_path, capsys):
    folder, network = detector
    files, expected = {}, {}
    for number, (split, image) in enumerate(zip(SPLITS, pictures(), strict=True)):
        name = f"{number}.png"
        with torch.no_grad():
            (found,) = network([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        sure = found["scores"] >= 0.5
        if name == NOBODY_THERE or not sure.any():
            files[name] = (split, image, (1, 1, 3, 3))
            continue
        sides = found["boxes"][sure][:, 2:] - found["boxes"][sure][:, :2]
        # The annotation is 1-based and inclusive, in whole pixels: it is near the box, not the box.
        x1, y1, x2, y2 = (round(float(value)) for value in found["boxes"][sure][sides.prod(1).argmax()])
        files[name] = (split, image, (x1 + 1, y1 + 1, x2, y2))
        overlap = torchvision.ops.box_iou(torch.tensor([[x1, y1, x2, y2]]).float(), found["boxes"][sure])
        expected[f"emotic/images/{name}"] = openpose_points(found["keypoints"][sure][overlap.argmax()].numpy())
    assert len(expected) == len(SPLITS) - 1, "the seeded detector has to find somebody"
    root = write_emotic(tmp_path / "emotic", files)
    storage = Storage(tmp_path / "runs")

    def plan():
        base = default_experiment("emotic", "smoke", None, "emoticon", stand_ins=True).with_changes(deconfounder="none")
        return make_plan([("vanilla", base)], (0,), storage, root, folder, LoadOptions(pose_detector=DETECTOR))

    first = plan()
    fingerprint = first.source.fingerprint
    dataset = prepare(first, storage, cluster, folder)
    assert first.source.fingerprint == fingerprint
    for subject in dataset.subjects:
        if subject.image not in expected:
            assert (subject.keypoints, subject.face_box) == (None, None)
            continue
        np.testing.assert_allclose(subject.keypoints, expected[subject.image], atol=0.1)
    assert f"keypoints: 0 annotated, {len(expected)} found by {DETECTOR}@coco" in capsys.readouterr().out
    ids = read_subject_index(first.subjects).subject_ids
    (view,) = (planned for planned in first.views if planned.request.view == "keypoints")
    rows = read_shards(view.folder, ids).take(np.arange(len(ids)))
    np.testing.assert_allclose(rows, [keypoints_of(subject) for subject in dataset.subjects], rtol=1e-6)

    again = plan()
    assert {row.stage: row.to_do for row in plan_rows(again)}[f"detect ({DETECTOR}@coco)"] == "0"
    assert prepare(again, storage, cluster, folder).subjects == dataset.subjects
    assert "Looking for persons" not in capsys.readouterr().out
