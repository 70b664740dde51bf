"""Published weights are imported from every layout they come in. Real networks, files in the real formats."""

import io
import os
import pickle
import pickletools
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from job_runs import run_job
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ccim_ray.errors import RequestError
from ccim_ray.perception.imported_weights import (
    check_import,
    import_weights,
    read_provenance,
    source_sha256,
    to_torchvision_names,
)
from ccim_ray.perception.weights import load_backbone


def network(arch="resnet18", num_classes=365):
    torch.manual_seed(3)
    made = torchvision.models.get_model(arch, weights=None, num_classes=num_classes)
    for layer in made.modules():  # fresh running statistics are alike in every layer and would hide a swap
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
            nn.init.uniform_(layer.weight, 0.6, 1.0)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def resnet18():
    return network()


def without_counters(state):
    return OrderedDict((name, value) for name, value in state.items() if "num_batches_tracked" not in name)


def assert_same_network(path, source, arch="resnet18"):
    weights = path.stem.removeprefix(f"{arch}_")
    backbone = load_backbone(arch, weights, path.parent, keep_head=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.outputs(images), source(images), rtol=1e-4, atol=1e-4)
    assert {name for name, _ in source.state_dict().items()} == set(load_file(path))


def as_python_2_wrote(content):
    """Bytes of torch.save in its old format with Python 2's strings: bytes, where Python 3 has text."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    data, position, parts = buffer.getvalue(), 0, []
    for _ in range(5):  # magic number, protocol, system, content, keys of the storages; then raw values
        stream = io.BytesIO(data[position:])
        operations = list(pickletools.genops(stream))
        ends = [place for _, _, place in operations[1:]] + [stream.tell()]
        for (opcode, argument, place), end in zip(operations, ends, strict=True):
            if opcode.name == "BINUNICODE":
                text = argument.encode("latin1")
                parts.append(b"U" + bytes([len(text)]) + text)
            else:
                parts.append(data[position + place : position + end])
        position += stream.tell()
    return b"".join(parts) + data[position:]


def csail_checkpoint(net, arch="resnet18", **extra):
    state = OrderedDict((f"module.{name}", value) for name, value in without_counters(net.state_dict()).items())
    return {"epoch": 90, "arch": arch, "state_dict": state, "best_prec1": torch.tensor([54.2]), **extra}


class Marker:
    """A pickle of it creates the file ``path`` where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(*arguments, **options):
    with pytest.raises(RequestError) as error:
        import_weights(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_checkpoint_of_python_2_with_module_before_every_name(tmp_path, resnet18):
    path = tmp_path / "resnet18_places365.pth.tar"
    path.write_bytes(as_python_2_wrote(csail_checkpoint(resnet18, author="Zhou, \xe9cole")))
    with pytest.raises(UnicodeDecodeError):
        torch.load(path, weights_only=True)  # the file is what it says: the default encoding stops at it
    imported = import_weights(path, "resnet18", "places365", tmp_path)
    assert_same_network(imported.path, resnet18)
    counters = {name: value for name, value in load_file(imported.path).items() if "num_batches" in name}
    assert len(counters) == 20
    assert all(value.dtype == torch.int64 and value == 0 for value in counters.values())
    assert "module. removed" in imported.provenance["layout"]
    assert "20 batch counters" in imported.provenance["layout"]
    assert "state_dict" in imported.provenance["form"]


def test_object_in_an_old_checkpoint_needs_the_flag(tmp_path, resnet18):
    path = tmp_path / "resnet18_places365.pth.tar"
    path.write_bytes(as_python_2_wrote(csail_checkpoint(resnet18, best_prec1=np.float64(54.2))))
    message = refused(path, "resnet18", "places365", tmp_path)
    assert "--allow-pickle" in message
    assert "running code" in message
    assert source_sha256(path) in message
    assert list(tmp_path.iterdir()) == [path]
    imported = import_weights(path, "resnet18", "places365", tmp_path, allow_pickle=True)
    assert_same_network(imported.path, resnet18)
    assert "--allow-pickle" in imported.provenance["form"]


@pytest.mark.parametrize("old_format", [True, False])
def test_code_in_a_pickle_runs_only_with_the_flag(tmp_path, resnet18, old_format):
    path, marker = tmp_path / "resnet18_places365.pth.tar", tmp_path / "marker"
    torch.save(csail_checkpoint(resnet18, note=Marker(marker)), path, _use_new_zipfile_serialization=not old_format)
    message = refused(path, "resnet18", "places365", tmp_path)
    assert "mkdir" in message
    assert not marker.exists()
    import_weights(path, "resnet18", "places365", tmp_path, allow_pickle=True)
    assert marker.exists()  # so the file was dangerous


def sequential_translation(net):
    """State of the network as an nn.Sequential with numeric names, as the published ResNet-152 is."""

    def block(layer):
        convolutions = [getattr(layer, name) for name in ("conv1", "conv2", "conv3") if hasattr(layer, name)]
        norms = [getattr(layer, name) for name in ("bn1", "bn2", "bn3") if hasattr(layer, name)]
        branch = [part for pair in zip(convolutions, norms, strict=True) for part in (*pair, nn.ReLU())][:-1]
        shortcut = nn.Sequential(*layer.downsample) if layer.downsample else nn.Identity()
        return nn.Sequential(nn.Sequential(nn.Sequential(*branch), shortcut), nn.Identity(), nn.ReLU())

    stages = [nn.Sequential(*map(block, stage)) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)]
    top = nn.Sequential(nn.Identity(), net.fc)
    parts = [net.conv1, net.bn1, nn.ReLU(), net.maxpool, *stages, nn.AvgPool2d(7), nn.Flatten(), top]
    return without_counters(nn.Sequential(*parts).state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_sequential_with_numeric_names_is_mapped_by_order(tmp_path, resnet18, suffix):
    state = sequential_translation(resnet18)
    assert {"0.weight", "4.0.0.0.0.weight", "4.0.0.0.3.weight", "5.0.0.1.0.weight", "10.1.weight"} <= state.keys()
    path = tmp_path / f"source{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)  # the former sorts its names
    imported = import_weights(path, "resnet18", "places365", tmp_path)
    assert_same_network(imported.path, resnet18)
    assert "numeric names" in imported.provenance["layout"]


@pytest.mark.slow
def test_sequential_resnet152_of_777_tensors(tmp_path):
    source = network("resnet152")
    state = sequential_translation(source)
    assert len(state) == 777
    torch.save(state, tmp_path / "resnet152_places365-f928166e5c.pth")
    imported = import_weights(tmp_path / "resnet152_places365-f928166e5c.pth", "resnet152", "places365", tmp_path)
    assert_same_network(imported.path, source, "resnet152")


def test_sequential_of_another_network_names_both_sides(tmp_path, resnet18):
    path = tmp_path / "source.pth"
    state = sequential_translation(resnet18)
    torch.save(state, path)
    message = refused(path, "resnet50", "places365", tmp_path)
    for word in ("4.0.0.0.0.weight (64, 64, 3, 3)", "layer1.0.conv1.weight (64, 64, 1, 1)", "--arch"):
        assert word in message
    torch.save(OrderedDict(list(state.items())[:-2]), path)
    message = refused(path, "resnet18", "places365", tmp_path)
    assert "100 tensors" in message
    assert "102" in message


def vgg16_names(state):
    """torchvision's names -> the research names of the published VGG-16."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    convolutions = [f"features.conv{stage}_{k + 1}" for stage, n in enumerate((2, 2, 3, 3, 3), 1) for k in range(n)]
    names = [*convolutions, "classifier.fc6", "classifier.fc7", "classifier.fc8a"]
    renamed = dict(zip(layers, names, strict=True))
    return {name: f"{renamed[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in state}


@pytest.mark.parametrize("rename", ["research", "module", "sorted"])
def test_vgg16_under_other_names(rename):
    with torch.device("meta"):
        expected = torchvision.models.vgg16(weights=None, num_classes=365).state_dict()
    # Each tensor has one value of its own, so that a tensor in another's place shows, though many shapes are alike.
    state = {name: torch.tensor(float(k)).expand(value.shape) for k, (name, value) in enumerate(expected.items())}
    if rename == "module":
        source = {re.sub(r"^features\.", "features.module.", name): value for name, value in state.items()}
    else:
        names = vgg16_names(state)
        source = {names[name]: value for name, value in state.items()}
    if rename == "sorted":
        source = dict(sorted(source.items()))
    with torch.inference_mode():
        found, layout = to_torchvision_names(source, "vgg16", 365, Path("file"))
    assert list(found) == list(expected)
    assert {name: float(value.flatten()[0]) for name, value in found.items()} == {
        name: float(k) for k, name in enumerate(expected)
    }
    assert ("module." if rename == "module" else "conv1_1") in layout


@pytest.mark.slow
def test_vgg16_with_renamed_layers_from_file_to_features(tmp_path):
    source = network("vgg16")
    names = vgg16_names(source.state_dict())
    torch.save(OrderedDict((names[name], value) for name, value in source.state_dict().items()), tmp_path / "vgg16.pth")
    imported = import_weights(tmp_path / "vgg16.pth", "vgg16", "places365", tmp_path)
    assert_same_network(imported.path, source, "vgg16")
    assert "BGR" in imported.provenance["input_transform"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_plain_state_dict_of_imagenet(tmp_path, suffix):
    source, path = network(num_classes=1000), tmp_path / f"resnet18-f37072fd{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    imported = import_weights(path, "resnet18", "imagenet", tmp_path)
    assert imported.path == tmp_path / "resnet18_imagenet.safetensors"
    assert imported.provenance["layout"] == "torchvision's names"
    assert_same_network(imported.path, source)


def test_provenance_is_in_the_file(tmp_path, resnet18):
    path = tmp_path / "original name.pth"
    torch.save(resnet18.state_dict(), path)
    imported = import_weights(path, "resnet18", "places365", tmp_path / "new" / "folder")
    with safe_open(imported.path, framework="np") as file:
        metadata = file.metadata()
    assert len(metadata.pop("sha256")) == 64  # of the file's own content
    assert metadata == imported.provenance == read_provenance(imported.path)
    assert metadata["source"] == path.name
    assert metadata["source_sha256"] == source_sha256(path)
    assert (metadata["architecture"], metadata["weights"]) == ("resnet18", "places365")
    for word in ("RGB", "256 x 256", "224", "0.485"):
        assert word in metadata["input_transform"]
    assert f"torch {torch.__version__.partition('+')[0]}" in metadata["versions"]
    assert len([float(value) for value in metadata["forward_check"].split()]) == 8


def test_forward_check_finds_a_changed_weight(tmp_path, resnet18):
    torch.save(resnet18.state_dict(), tmp_path / "source.pth")
    path = import_weights(tmp_path / "source.pth", "resnet18", "places365", tmp_path).path
    check_import(path)
    tensors = load_file(path)
    tensors["layer2.0.conv1.weight"] = tensors["layer2.0.conv1.weight"].flip(0)
    save_file(tensors, path, metadata=read_provenance(path))
    with pytest.raises(RequestError, match="forward check"):
        check_import(path)
    save_file(tensors, path)
    with pytest.raises(RequestError, match="no provenance"):
        check_import(path)


def test_existing_weights_stay_unless_overwritten(tmp_path, resnet18):
    torch.save(resnet18.state_dict(), tmp_path / "source.pth")
    path = import_weights(tmp_path / "source.pth", "resnet18", "places365", tmp_path).path
    path.write_bytes(b"mine")
    assert "--overwrite" in refused(tmp_path / "source.pth", "resnet18", "places365", tmp_path)
    assert path.read_bytes() == b"mine"
    import_weights(tmp_path / "source.pth", "resnet18", "places365", tmp_path, overwrite=True)
    check_import(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["resnet18_places365.safetensors", "source.pth"]


def write_html(path, net):
    path.write_text("<html><body>404 Not Found</body></html>")


def write_pickle(path, net):
    path.write_bytes(pickle.dumps({"fc.weight": [1.0]}))


def write_empty(path, net):
    path.touch()


def write_zip_without_end(path, net):
    torch.save(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def write_old_format_without_end(path, net):
    path.write_bytes(as_python_2_wrote(csail_checkpoint(net))[:1_000_000])


def write_old_format_cut_in_the_pickle(path, net):
    path.write_bytes(as_python_2_wrote(csail_checkpoint(net))[:3_000])


def write_safetensors_without_end(path, net):
    save_file(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def write_wideresnet18(path, net):
    torch.save(csail_checkpoint(net, arch="wideresnet18"), path)


def write_1000_outputs(path, net):
    torch.save(network(num_classes=1000).state_dict(), path)


def write_resnet50(path, net):
    torch.save(torchvision.models.resnet50(weights=None, num_classes=365).state_dict(), path)


def write_other_dictionary(path, net):
    torch.save({"epoch": 3, "loss": 0.5}, path)


def write_list(path, net):
    torch.save([torch.zeros(3)], path)


def write_not_finite(path, net):
    state = dict(net.state_dict())
    torch.save(state | {"conv1.weight": state["conv1.weight"] * float("nan")}, path)


def write_nothing(path, net):
    pass


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_html, ("no weights file",)),
        (write_pickle, ("no weights file",)),
        (write_empty, ("no weights file",)),
        (write_zip_without_end, ("truncated",)),
        (write_old_format_without_end, ("truncated",)),
        (write_old_format_cut_in_the_pickle, ("truncated",)),
        (write_safetensors_without_end, ("safetensors",)),
        (write_wideresnet18, ("wideresnet18", "not resnet18")),
        (write_1000_outputs, ("1000 outputs", "365", "--weights")),
        (write_resnet50, ("does not hold resnet18", "layer1.0.conv3.weight", "more", "--arch")),
        (write_other_dictionary, ("'epoch'", "int")),
        (write_list, ("list", "state_dict")),
        (write_not_finite, ("not finite",)),
        (write_nothing, ("No such file",)),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, resnet18, write, words):
    path = tmp_path / "download.pth"
    write(path, resnet18)
    message = refused(path, "resnet18", "places365", tmp_path / "weights")
    for word in (str(path), *words):
        assert word in message, message
    assert "--allow-pickle" not in message
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("arch", "weights", "word"),
    [
        ("resnet999", "places365", "resnet18"),
        ("resnet18", "random", "places365"),
        ("thin_resnet", "imagenet", "scenes"),
    ],
)
def test_weights_that_cannot_be_imported(tmp_path, arch, weights, word):
    assert word in refused(tmp_path / "any.pth", arch, weights, tmp_path)


def test_the_job_says_what_it_did(tmp_path, resnet18):
    source = tmp_path / "resnet18_places365.pth.tar"
    source.write_bytes(as_python_2_wrote(csail_checkpoint(resnet18)))
    flags = (str(source), "--arch", "resnet18", "--weights", "places365", "--weights-dir", str(tmp_path))
    ended = run_job("import_weights", *flags)
    assert ended.status == 0, ended.err
    for word in (source_sha256(source), "module. removed", "forward check", "resnet18_places365.safetensors"):
        assert word in ended.out
    assert_same_network(tmp_path / "resnet18_places365.safetensors", resnet18)
    again = run_job("import_weights", *flags)
    assert again.status == 2
    (line,) = again.err.splitlines()
    assert line.startswith("error: ")
    assert "--overwrite" in line
