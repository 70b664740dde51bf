"""Detectors with their weights: torchvision's own networks are the reference. Real files, no network."""

import numpy as np
import pytest
import torch
import torchvision
from detector_files import MOBILENET, published_state, torchvision_detector, write_detector
from safetensors.torch import load_file, save_file
from torch import nn

from ccim_ray.errors import RequestError
from ccim_ray.perception.detection import load_detector
from ccim_ray.perception.imported_weights import check_import, import_weights, read_provenance
from ccim_ray.perception.weight_files import DETECTOR_FILES, weights_digest, weights_path

CPU = torch.device("cpu")
KEYPOINTS = "keypointrcnn_resnet50_fpn"


def pictures(count, sizes=((72, 96),)):
    generator = np.random.default_rng(5)
    made = []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        image = np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)
        image[20:50, 10:40] = generator.integers(0, 256, (30, 30, 3))
        made.append(image)
    return made


def reference(network, image):
    """Boxes and scores of category 1 by torchvision, one picture at a time."""
    with torch.no_grad():
        (found,) = network([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    return {name: value[found["labels"] == 1].numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """Folder of the weights, and torchvision's network with them."""
    folder = tmp_path_factory.mktemp("weights")
    return folder, write_detector(folder)


@pytest.fixture
def no_downloads(tmp_path, monkeypatch):
    """Whatever is asked for over the network is refused, and nothing was downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_persons_are_those_of_torchvision_whatever_is_beside_them(mobilenet):
    folder, network = mobilenet
    detector = load_detector(MOBILENET, folder, CPU)
    images = pictures(11, sizes=((72, 96), (96, 64)))
    found = dict(detector.detect(images))
    assert sorted(found) == list(range(11))
    for number in (0, 1, 5, 10):
        expected = reference(network, images[number])
        assert len(expected["scores"]) > 5
        np.testing.assert_allclose(found[number].scores_P, expected["scores"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[number].boxes_P4, expected["boxes"], rtol=1e-3, atol=0.05)
        assert found[number].joints_PJ3 is None


def test_other_categories_than_persons_are_left_out(mobilenet, tmp_path):
    folder, _ = mobilenet
    state = load_file(folder / f"{MOBILENET}_coco.safetensors")
    bias = state["roi_heads.box_predictor.cls_score.bias"]
    bias[1], bias[18] = -9, 9
    save_file(state, tmp_path / f"{MOBILENET}_coco.safetensors")
    ((_, persons),) = load_detector(MOBILENET, tmp_path, CPU).detect(pictures(1))
    assert persons.boxes_P4.shape == (0, 4)


@pytest.mark.slow
def test_poses_and_their_peaks_are_those_of_torchvision(tmp_path):
    network = write_detector(tmp_path, KEYPOINTS)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision sets it where it loads these weights
    detector = load_detector(KEYPOINTS, tmp_path, CPU)
    for each in (network, detector.network):
        each.transform.min_size = (128,)  # as fast as it can be
    (image,) = pictures(1)
    ((_, persons),) = detector.detect([image])
    expected = reference(network, image)
    assert len(expected["scores"])
    np.testing.assert_allclose(persons.scores_P, expected["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(persons.joints_PJ3[:, :, :2], expected["keypoints"][:, :, :2], rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(persons.joints_PJ3[:, :, 2], expected["keypoints_scores"], rtol=1e-2, atol=1e-3)


def refused(folder):
    with pytest.raises(RequestError) as error:
        load_detector(MOBILENET, folder, CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("defect", ["missing", "unexpected", "shape", "not finite", "truncated"])
def test_a_wrong_file_is_refused(mobilenet, tmp_path, defect):
    path = tmp_path / f"{MOBILENET}_coco.safetensors"
    state = load_file(mobilenet[0] / path.name)
    name = "rpn.head.cls_logits.weight"
    if defect == "missing":
        del state[name]
    if defect == "unexpected":
        state["roi_heads.mask.weight"] = torch.zeros(1)
    if defect == "shape":
        state[name] = state[name][:3].clone()
    if defect == "not finite":
        state[name][0] = float("nan")
    save_file(state, path)
    if defect == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    message = refused(tmp_path)
    assert str(path) in message
    words = {"unexpected": "roi_heads.mask.weight", "not finite": "not finite", "truncated": "not a readable"}
    assert words.get(defect, name) in message


def test_without_file_and_network_the_user_is_told_what_to_do(tmp_path, no_downloads):
    message = refused(tmp_path)
    assert f"could not be downloaded from https://download.pytorch.org/models/{DETECTOR_FILES[MOBILENET]}" in message
    assert str(tmp_path / f"{MOBILENET}_coco.safetensors") in message
    assert f"jobs/import_weights.py --arch {MOBILENET} --weights coco" in message
    assert message.endswith("or give --detector none")


def test_the_download_is_taken_from_torchs_cache(mobilenet, tmp_path, no_downloads):
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = published_state(mobilenet[1])
    torch.save(state, cache / DETECTOR_FILES[MOBILENET])
    loaded = load_detector(MOBILENET, tmp_path, CPU).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DETECTOR_FILES))
def test_the_network_is_the_one_that_torchvision_builds_around_these_weights(name, tmp_path, no_downloads):
    """The normalisation above all: torchvision freezes it, with an eps of 0 in some."""
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(published_state(torchvision_detector(name)), cache / DETECTOR_FILES[name])
    theirs = torchvision.models.get_model(name, weights="COCO_V1").eval()
    ours = load_detector(name, tmp_path, CPU).network
    assert str(ours) == str(theirs)
    state = ours.state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize("name", sorted(DETECTOR_FILES))
def test_the_download_is_the_one_that_torchvision_publishes(name):
    url = torchvision.models.get_model_weights(name)["COCO_V1"].url
    assert url.rpartition("/")[2] == DETECTOR_FILES[name]


def test_digests_tell_files_and_detectors_apart(mobilenet, tmp_path):
    of_downloads = {weights_digest(name, "coco", tmp_path) for name in DETECTOR_FILES}
    assert len(of_downloads) == 3
    assert weights_digest(MOBILENET, "coco", mobilenet[0]) not in of_downloads
    with pytest.raises(RequestError, match="choose one of coco"):
        weights_path(MOBILENET, "imagenet", tmp_path)


def test_a_download_is_imported_and_checked(tmp_path):
    network = torchvision_detector(MOBILENET)
    source = tmp_path / "download.pth"
    torch.save(network.state_dict(), source)  # with counters, as files saved while training have them
    imported = import_weights(source, MOBILENET, "coco", tmp_path)
    assert imported.path == weights_path(MOBILENET, "coco", tmp_path)
    assert imported.provenance["architecture"] == MOBILENET
    assert len({*imported.provenance["forward_check"].split()}) == 8
    check_import(imported.path)
    (image,) = pictures(1)
    ((_, persons),) = load_detector(MOBILENET, tmp_path, CPU).detect([image])
    np.testing.assert_allclose(persons.scores_P, reference(network, image)["scores"], rtol=1e-4, atol=1e-5)


def test_a_flipped_bit_of_an_imported_detector_is_told(tmp_path):
    torch.save(published_state(torchvision_detector(MOBILENET)), tmp_path / "download.pth")
    path = import_weights(tmp_path / "download.pth", MOBILENET, "coco", tmp_path).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestError, match=f"is damaged .*import it again with .*--arch {MOBILENET} --weights coco"):
        load_detector(MOBILENET, tmp_path, CPU)


@pytest.mark.parametrize("part", ["backbone.body.0.0", "rpn.head.cls_logits", "roi_heads.box_head.fc6"])
def test_every_part_of_the_network_is_in_the_forward_check(tmp_path, mobilenet, part):
    source = tmp_path / "download.pth"
    torch.save(published_state(mobilenet[1]), source)
    path = import_weights(source, MOBILENET, "coco", tmp_path).path
    state = load_file(path)
    state[f"{part}.weight"] = state[f"{part}.weight"] * 1.5
    save_file(state, path, metadata=read_provenance(path))
    with pytest.raises(RequestError, match="forward check"):
        check_import(path)


def test_weights_of_another_network_are_not_imported(tmp_path):
    source = tmp_path / "download.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), source)
    with pytest.raises(RequestError, match=f"does not hold {MOBILENET}.*--arch"):
        import_weights(source, MOBILENET, "coco", tmp_path)
    with pytest.raises(RequestError, match="no weights 'imagenet' exist"):
        import_weights(source, MOBILENET, "imagenet", tmp_path)
