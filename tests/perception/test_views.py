"""What a network is shown of a subject: the right part of the right picture, and a reason where there is none."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ccim_ray.datasets.images import crop_square, mask_subject, resize
from ccim_ray.datasets.subject import Subject, face_region
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest, architecture, frame_view
from ccim_ray.perception.backbones import build_network
from ccim_ray.perception.geometry import geometry_of
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


def test_the_face_is_cropped_and_hidden_where_it_is():
    image, face = noise(0), (15.0, 22.0, 25.0, 34.0)
    known = subject(face_box=face)
    np.testing.assert_array_equal(frame_view("face", image, known, ARCH), crop_square(image, face, 64))
    hidden = frame_view("face_hidden_context", image, known, ARCH)
    np.testing.assert_array_equal(hidden, resize(mask_subject(image, face), 64))
    np.testing.assert_array_equal(frame_view("depth", image, known, ARCH), resize(image, 64))


def test_where_no_face_is_known_it_is_the_upper_third_of_the_body():
    image = noise(0)
    assert face_region(subject()) == pytest.approx((10, 20, 40, 20 + 50 / 3))
    assert face_region(subject(face_box=(1.0, 2.0, 3.0, 4.0))) == (1.0, 2.0, 3.0, 4.0)
    upper = (10.0, 20.0, 40.0, 20 + 50 / 3)
    np.testing.assert_array_equal(frame_view("face", image, subject(), ARCH), crop_square(image, upper, 64))
    hidden = frame_view("face_hidden_context", image, subject(), ARCH)
    np.testing.assert_array_equal(hidden, resize(mask_subject(image, upper), 64))


@pytest.mark.parametrize("view", [*VIEWS, "face", "face_hidden_context", "depth"])
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
    assert reasons[0] == "truncated or damaged image"  # the caller knows which picture
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
    maps = ViewRequest("context", "resnet18", "places365", "map")
    assert (maps.suffix, maps.title) == (".arrow", "context (resnet18/places365, map)")
    geometry = ViewRequest("agents", "resnet18")
    assert (geometry.suffix, geometry.title) == (".parquet", "agents")


def test_maps_are_halves_whose_mean_is_the_feature(root):
    requests = [ViewRequest("context", "thin_resnet", "scenes", output) for output in ("map", "features")]
    (maps, features), reasons = ViewMaker(root, requests, None, CPU).make(
        [subject("one.png"), subject("damaged.png"), subject("other.png")], [0, 1]
    )
    assert maps.shape == (3, 512, 4, 4)
    assert maps.dtype == np.float16
    assert features.dtype == np.float32
    np.testing.assert_allclose(maps.astype(np.float32).mean((2, 3)), features, rtol=2e-3, atol=1e-4)
    assert np.ptp(maps[0], axis=(1, 2)).max() > 0.1
    assert not maps[1].any()
    assert reasons[0] == reasons[1]


def test_geometry_rows_are_those_of_the_subjects_whose_image_is_usable(root):
    crowd = subject("one.png", other_boxes=((0.0, 0.0, 9.0, 9.0),), keypoints=tuple([(20.0, 30.0)] * 18))
    requests = [ViewRequest(view, "resnet18") for view in ("keypoints", "agents", "regions")]
    rows, _ = ViewMaker(root, requests, None, CPU).make([crowd, subject("damaged.png")], [0, 1, 2])
    for request, array in zip(requests, rows, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array[0], geometry_of(request.view, crowd, architecture("resnet18")))
        assert array[0].any()
        assert not array[1].any()


@pytest.fixture
def with_depth(root):
    """The same pictures, whose depth pictures are of another size; the other's is damaged."""
    (root / "depth").mkdir()
    for seed, name in ((7, "one.png"), (8, "other.png")):
        Image.fromarray(noise(seed, height=40, width=50)[:, :, 0]).save(root / "depth" / name)
    (root / "depth" / "other.png").write_bytes(b"no picture")
    return root


def test_depth_pictures_are_seen_as_grey_and_whole(with_depth):
    maker = ViewMaker(with_depth, [ViewRequest("depth", "thin_resnet"), ViewRequest("body", "thin_resnet")], None, CPU)
    twins = [
        subject("one.png", depth="depth/one.png"),
        subject("one.png", box=(1.0, 1.0, 9.0, 9.0), depth="depth/one.png"),
    ]
    (depth, body), reasons = maker.make(twins, [0, 1])
    grey = noise(7, height=40, width=50)[:, :, :1].repeat(3, axis=2)
    np.testing.assert_array_equal(depth[0], resize(grey, 64))
    np.testing.assert_array_equal(depth[0], depth[1])
    np.testing.assert_array_equal(body[0], frame_view("body", noise(0), twins[0], ARCH))
    assert reasons == [[None, None]] * 2


def test_what_a_view_holds_does_not_depend_on_the_depth_pictures_made_with_it(with_depth):
    requests = [ViewRequest(view, "thin_resnet") for view in ("context", "depth", "agents")]
    maker = ViewMaker(with_depth, requests, None, CPU)
    subjects = [subject(f"{name}.png", depth=f"depth/{name}.png") for name in ("one", "other", "one")]
    together, reasons = maker.make(subjects, [0, 1, 2])
    alone, reasons_alone = maker.make(subjects, [0])
    np.testing.assert_array_equal(together[0], alone[0])
    assert reasons[0] == reasons_alone[0] == reasons[2] == [None] * 3
    assert [reason is None for reason in reasons[1]] == [True, False, True]
    assert reasons[1][1] == "depth picture: not an image"
    assert not together[1][1].any()
    assert together[0][1].any()


def test_a_depth_picture_that_is_missing_is_told_in_one_line_where_it_is_wanted(with_depth):
    maker = ViewMaker(with_depth, [ViewRequest("depth", "thin_resnet"), ViewRequest("body", "thin_resnet")], None, CPU)
    subjects = [subject("one.png", depth="depth/one.png"), subject("other.png"), subject("other.png")]
    with pytest.raises(
        RequestError, match=r"^images without a depth picture.*: 1, the first other\.png.*depth/other\.png\.png"
    ) as error:
        maker.make(subjects, [0, 1])
    assert "\n" not in str(error.value)
    rows, _ = maker.make(subjects, [1])
    assert rows[0].any()
