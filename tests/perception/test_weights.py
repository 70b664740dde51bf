"""Where weights come from, and what is said when they are not there. Real files, no network."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

import ccim_ray
from ccim_ray.errors import RequestError
from ccim_ray.perception import weights as weights_module
from ccim_ray.perception.backbones import ThinResNet
from ccim_ray.perception.imported_weights import check_import, import_weights
from ccim_ray.perception.weight_files import (
    IMAGENET_FILES,
    STAND_IN_OUTPUTS,
    available_weights,
    imagenet_url,
    weights_digest,
    weights_path,
)
from ccim_ray.perception.weights import load_backbone


def resnet18_file(path, *, num_classes=365, dtype=torch.float32):
    torch.manual_seed(1)
    network = torchvision.models.resnet18(weights=None, num_classes=num_classes).eval()
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    save_file(state, path)
    return network


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_places365_file_gives_the_networks_features_and_scenes(tmp_path):
    network = resnet18_file(tmp_path / "resnet18_places365.safetensors")
    backbone = load_backbone("resnet18", "places365", tmp_path, keep_head=True)
    assert not backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.outputs(images), network(images))
        network.fc = torch.nn.Identity()
        torch.testing.assert_close(backbone(images), network(images))
    assert load_backbone("resnet18", "places365", tmp_path).head is None


@pytest.mark.parametrize("place", [0.0001, 0.3, 0.9999])
def test_a_flipped_bit_of_imported_weights_is_told_with_the_command_that_imports_them(tmp_path, place):
    """Without the digest a changed weight would change features, and say nothing."""
    resnet18_file(tmp_path / "download.safetensors")
    path = import_weights(tmp_path / "download.safetensors", "resnet18", "places365", tmp_path).path
    load_backbone("resnet18", "places365", tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    again = r"import it again with jobs/import_weights\.py --arch resnet18 --weights places365 --overwrite"
    with pytest.raises(RequestError, match=f"{re.escape(str(path))} is damaged .*: {again}") as error:
        load_backbone("resnet18", "places365", tmp_path)
    one_line(error)
    with pytest.raises(RequestError, match=re.escape(str(path))):
        check_import(path)


def test_old_checkpoints_without_batch_counters_load(tmp_path):
    path = tmp_path / "resnet18_places365.safetensors"
    resnet18_file(path)
    save_file({name: value for name, value in load_file(path).items() if "num_batches_tracked" not in name}, path)
    backbone = load_backbone("resnet18", "places365", tmp_path)
    assert not any(value.is_meta for value in backbone.state_dict().values())


def test_folder_comes_from_the_environment(tmp_path, monkeypatch):
    resnet18_file(tmp_path / "resnet18_imagenet.safetensors", num_classes=1000, dtype=torch.float16)
    monkeypatch.setenv("CCIM_RAY_WEIGHTS", str(tmp_path))
    assert weights_path("resnet18", "imagenet") == tmp_path / "resnet18_imagenet.safetensors"
    parameters = load_backbone("resnet18", "imagenet").parameters()
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


@pytest.mark.parametrize("ask", [load_backbone, weights_digest, weights_path])
def test_missing_places365_names_the_exact_path(tmp_path, ask):
    with pytest.raises(RequestError) as error:
        ask("resnet152", "places365", tmp_path)
    message = one_line(error)
    assert str(tmp_path / "resnet152_places365.safetensors") in message
    assert "no other weights are used" in message


def test_default_folder_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("CCIM_RAY_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RequestError, match=re.escape(str(tmp_path / ".cache" / "ccim_ray" / "weights"))):
        load_backbone("vgg16", "places365")


@pytest.mark.parametrize(
    ("arch", "weights", "existing"),
    [
        ("resnet18", "scenes", "places365, imagenet, random"),
        ("thin_resnet", "places365", "scenes, objects, bodies, random"),
        ("thin_resnet", "imagenet", "scenes, objects, bodies, random"),
        ("vgg16", "places", "places365, imagenet, random"),
    ],
)
def test_combinations_that_do_not_exist_list_what_exists(tmp_path, arch, weights, existing):
    for ask in (load_backbone, weights_digest):
        with pytest.raises(RequestError) as error:
            ask(arch, weights, tmp_path)
        assert one_line(error).endswith(existing)


def test_corrupt_file_is_a_request_error(tmp_path):
    path = tmp_path / "resnet18_places365.safetensors"
    resnet18_file(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RequestError, match="not a readable safetensors file") as error:
        load_backbone("resnet18", "places365", tmp_path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("defect", ["outputs", "missing", "unexpected", "another network"])
def test_weights_of_another_network_are_refused(tmp_path, defect):
    path = tmp_path / "resnet18_places365.safetensors"
    resnet18_file(path, num_classes=1000 if defect == "outputs" else 365)
    state = load_file(path)
    if defect == "missing":
        del state["layer3.0.conv1.weight"]
    if defect == "unexpected":
        state["layer5.weight"] = torch.zeros(1)
    if defect == "another network":
        state = ThinResNet(365).state_dict()
    save_file(state, path)
    with pytest.raises(RequestError, match="does not hold resnet18 with 365 outputs") as error:
        load_backbone("resnet18", "places365", tmp_path)
    assert str(path) in one_line(error)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_backbone("thin_resnet", "random").state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    second = load_backbone("thin_resnet", "random").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_random_weights_have_no_head():
    with pytest.raises(RequestError, match=r"no trained head.*places365, imagenet$"):
        load_backbone("resnet18", "random", keep_head=True)


@pytest.mark.parametrize("arch", IMAGENET_FILES)
def test_imagenets_files_are_those_that_torchvision_downloads(arch):
    assert imagenet_url(arch).endswith(f"/{IMAGENET_FILES[arch]}")


def test_imagenet_uses_torchs_download_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = torchvision.models.resnet18(weights=None).eval()
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / "resnet18-f37072fd.pth")
    backbone = load_backbone("resnet18", "imagenet", tmp_path)
    torch.testing.assert_close(backbone.trunk.get_parameter("conv1.weight"), network.conv1.weight)


def test_failing_download_is_a_request_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=r"could not be downloaded from https://.*resnet18-f37072fd\.pth") as error:
        load_backbone("resnet18", "imagenet", tmp_path)
    assert str(tmp_path / "resnet18_imagenet.safetensors") in one_line(error)


def test_digest_follows_the_file(tmp_path):
    path = tmp_path / "resnet18_imagenet.safetensors"
    without_file = weights_digest("resnet18", "imagenet", tmp_path)
    resnet18_file(path, num_classes=1000)
    assert weights_digest("resnet18", "imagenet", tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights_digest("resnet18", "imagenet", tmp_path) != without_file
    assert weights_digest("resnet50", "imagenet", tmp_path) != without_file


def test_digests_of_the_committed_and_the_random_weights_differ():
    digests = {
        weights_digest(arch, weights)
        for arch in ("thin_resnet", "resnet18")
        for weights in available_weights(arch)
        if weights != "places365"
    }
    assert len(digests) == 6
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)


@pytest.mark.parametrize("name", sorted(STAND_IN_OUTPUTS))
def test_stand_ins_are_small_and_load(name):
    path = weights_path("thin_resnet", name)
    assert path.stat().st_size < 900_000
    backbone = load_backbone("thin_resnet", name, keep_head=True)
    with torch.no_grad():
        images_BHWC = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
        assert backbone.outputs(backbone.normalise(images_BHWC)).shape == (2, STAND_IN_OUTPUTS[name])


def test_no_pickle_is_loaded_without_weights_only_but_behind_the_flag():
    unsafe = [
        path.name
        for path in Path(ccim_ray.__file__).parent.rglob("*.py")
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", path.read_text())
        if "weights_only=True" not in call
    ]
    assert unsafe == ["imported_weights.py"]  # whose tests show that it takes --allow-pickle
    assert "weights_only=True" in Path(weights_module.__file__).read_text()
