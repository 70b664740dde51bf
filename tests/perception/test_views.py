"""What a network is shown of a subject: the right part of the right picture, and a reason where there is none."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ccim_ray.datasets.images import crop_square, mask_subject, resize
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest, architecture, frame_view
from ccim_ray.perception.backbones import build_network
from ccim_ray.perception.views import ViewMaker
from ccim_ray.perception.weights import load_backbone

ARCH = architecture("thin_resnet")
BOX = (10.0, 20.0, 40.0, 70.0)
VIEWS = ("context", "masked_context", "body")
CPU = torch.device("cpu")


def noise(seed, height=80, width=100):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def subject(image="one.png", box=BOX, **more):
    values = {"width": 100, "height": 80, "split": "train", "labels": ("Sad",), "box_source": "annotation"}
    return Subject(**values | {"subject_id": image, "image": image, "body_box": box} | more)


@pytest.fixture
def root(tmp_path):
    """Three pictures, one of which is cut short."""
    for seed, name in enumerate(("one.png", "other.png", "damaged.png")):
        Image.fromarray(noise(seed)).save(tmp_path / name)
    content = (tmp_path / "damaged.png").read_bytes()
    (tmp_path / "damaged.png").write_bytes(content[: len(content) // 2])
    return tmp_path


def test_each_view_shows_its_part():
    image = noise(0)
    np.testing.assert_array_equal(frame_view("context", image, subject(), ARCH), resize(image, 64))
    np.testing.assert_array_equal(
        frame_view("masked_context", image, subject(), ARCH), resize(mask_subject(image, BOX), 64)
    )
    np.testing.assert_array_equal(frame_view("body", image, subject(), ARCH), crop_square(image, BOX, 64))


def test_the_masked_context_knows_nothing_of_the_subject_and_all_of_the_others():
    image = noise(0)
    other_subject, other_surroundings = image.copy(), image.copy()
    other_subject[20:70, 10:40] = 255
    other_surroundings[20:70, 60:90] = 255
    seen = frame_view("masked_context", image, subject(), ARCH)
    np.testing.assert_array_equal(seen, frame_view("masked_context", other_subject, subject(), ARCH))
    assert (seen != frame_view("masked_context", other_surroundings, subject(), ARCH)).any()
    assert (
        frame_view("context", image, subject(), ARCH) != frame_view("context", other_subject, subject(), ARCH)
    ).any()
    np.testing.assert_array_equal(image, noise(0))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("arch", ["thin_resnet", "resnet18"])
def test_every_view_has_the_size_that_the_network_takes(view, arch):
    side = architecture(arch).input_size
    framed = frame_view(view, noise(0), subject(), architecture(arch))
    assert framed.shape == (side, side, 3)
    assert framed.dtype == np.uint8


def test_pictures_are_the_framed_views(root):
    maker = ViewMaker(root, [ViewRequest(view, "thin_resnet") for view in VIEWS], None, CPU)
    boxes = [BOX, (0.0, 0.0, 30.0, 30.0), BOX]
    images = ["one.png", "one.png", "other.png"]
    rows, reasons = maker.make([subject(*pair) for pair in zip(images, boxes, strict=True)], [0, 1, 2])
    assert reasons == [[None, None, None]] * 3
    for view, array in zip(VIEWS, rows, strict=True):
        for row, (seed, box) in enumerate(zip((0, 0, 1), boxes, strict=True)):
            np.testing.assert_array_equal(array[row], frame_view(view, noise(seed), subject(box=box), ARCH))


def test_features_are_those_of_the_backbone(root):
    requests = [ViewRequest("context", "thin_resnet", "random"), ViewRequest("body", "thin_resnet")]
    rows, _ = ViewMaker(root, requests, None, CPU).make([subject("one.png"), subject("other.png")], [0])
    backbone = load_backbone("thin_resnet", "random")
    framed = torch.from_numpy(np.stack([frame_view("context", noise(seed), subject(), ARCH) for seed in (0, 1)]))
    with torch.no_grad():
        expected = backbone(backbone.normalise(framed)).numpy()
    assert len(rows) == 1
    assert rows[0].dtype == np.float32
    np.testing.assert_allclose(rows[0], expected, rtol=1e-5, atol=1e-6)


def test_a_subject_has_the_same_features_in_any_company(root):
    maker = ViewMaker(root, [ViewRequest("masked_context", "thin_resnet", "random")], None, CPU)
    alone, _ = maker.make([subject("other.png")], [0])
    crowd = [subject("one.png")] * 70 + [subject("damaged.png"), subject("other.png")]
    together, _ = maker.make(crowd, [0])
    np.testing.assert_allclose(together[0][-1], alone[0][0], rtol=1e-4, atol=1e-5)
    assert (together[0][0] != together[0][-1]).any()


@pytest.mark.parametrize("weights", [None, "random"])
def test_an_unusable_image_gives_its_reason_and_zeros_and_stops_nothing(root, weights):
    maker = ViewMaker(root, [ViewRequest(view, "thin_resnet", weights) for view in VIEWS], None, CPU)
    images = ["damaged.png", "one.png", "missing.png", "missing.png", "one.png"]
    rows, by_view = maker.make([subject(image) for image in images], [0, 1, 2])
    reasons = by_view[0]
    assert by_view == [reasons] * 3
    assert [reason is None for reason in reasons] == [False, True, False, False, True]
    assert "truncated or damaged image" in reasons[0]
    assert "damaged.png" in reasons[0]
    assert reasons[2] == reasons[3]
    assert "missing image" in reasons[2]
    for array in rows:
        assert not array[[0, 2, 3]].any()
        assert array[[1, 4]].any()
        np.testing.assert_array_equal(array[1], array[4])


def test_only_the_wanted_views_are_made_in_their_order(root):
    requests = [ViewRequest(view, "thin_resnet") for view in VIEWS]
    rows, _ = ViewMaker(root, requests, None, CPU).make([subject("one.png")], [2, 0])
    np.testing.assert_array_equal(rows[0][0], frame_view("body", noise(0), subject(), ARCH))
    np.testing.assert_array_equal(rows[1][0], frame_view("context", noise(0), subject(), ARCH))


def test_weights_that_give_no_numbers_are_told(root, tmp_path):
    state = build_network("resnet18", 365).state_dict()
    state["layer4.1.bn2.weight"][3] = torch.nan
    save_file(state, tmp_path / "resnet18_places365.safetensors")
    maker = ViewMaker(root, [ViewRequest("context", "resnet18", "places365")], tmp_path, CPU)
    with pytest.raises(RequestError, match=r"context \(resnet18/places365\).*not finite"):
        maker.make([subject("one.png")], [0])


def test_weights_that_are_missing_are_an_error_before_any_image_is_read(tmp_path):
    with pytest.raises(RequestError, match=r"resnet18_places365\.safetensors"):
        ViewMaker(tmp_path, [ViewRequest("context", "resnet18", "places365")], tmp_path, CPU)


def test_requests_say_what_they_are():
    features, pictures = ViewRequest("body", "vgg16", "imagenet"), ViewRequest("body", "vgg16")
    assert (features.suffix, features.title) == (".parquet", "body (vgg16/imagenet)")
    assert (pictures.suffix, pictures.title) == (".arrow", "body (vgg16 pictures)")
