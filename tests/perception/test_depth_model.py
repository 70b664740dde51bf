"""Depth pictures of programs that a user brings, both kinds of file; the reference is their arithmetic in NumPy."""

import os
import pickle
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ccim_ray.datasets.images import resize
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest, architecture
from ccim_ray.perception.depth_model import CONSTANT, DEFAULT_SIDE, DepthModel, check_depth_model
from ccim_ray.perception.views import ViewMaker

CPU = torch.device("cpu")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class RedAsDepth(nn.Module):
    """Depth is the weighed colour of every second pixel: (B, S / 2, S / 2)."""

    def __init__(self, channel: bool = False):
        super().__init__()
        self.channel = channel
        self.weights = nn.Parameter(torch.tensor([3.0, -1.0, 0.5]).view(1, 3, 1, 1))

    def forward(self, x):
        depth = (x * self.weights).sum(1, keepdim=True)[:, :, ::2, ::2]
        return depth if self.channel else depth[:, 0]


class Returning(nn.Module):
    """Returns what it is told, whatever it is given."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "vector":
            return x.mean((2, 3))
        if self.kind == "not finite":
            return x[:, 0] / 0 * 0
        if self.kind == "two pictures":
            return torch.cat([x[:, 0], x[:, 0]])
        return x[:, 0] * 0 + 7


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def write_torchscript(module, path, side=16):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.eval(), torch.rand(1, 3, side, side)), path)
    return path


def write_exported(module, path, side=16, batch=1, dynamic=None):
    shapes = (dynamic,) if dynamic else None
    torch.export.save(
        torch.export.export(module.eval(), (torch.rand(batch, 3, side, side),), dynamic_shapes=shapes), path
    )
    return path


def noise(height=30, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected(image, side):
    normalised = (resize(image, side) / 255 - MEAN) / STD
    depth = (normalised @ [3.0, -1.0, 0.5])[::2, ::2]
    return (depth - depth.min()) / (depth.max() - depth.min()) * 255


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("kind", ["pt", "pt2", "pt2 of any size"])
def test_depth_is_what_the_program_says_scaled_to_the_picture(tmp_path, kind, channel):
    module, path = RedAsDepth(channel), tmp_path / f"model.{kind[:3].strip()}"
    side = 16 if kind == "pt2" else DEFAULT_SIDE
    if kind == "pt":
        write_torchscript(module, path)
    else:
        square = torch.export.Dim("side", min=8, max=1024)
        write_exported(module, path, dynamic=None if kind == "pt2" else {2: square, 3: square})
    model = DepthModel(path, CPU)
    assert model.side == side
    for image in (noise(), noise(50, 20, seed=1)):
        picture = model.picture(image)
        assert picture.dtype == np.uint8
        assert picture.shape == (side // 2, side // 2, 3)
        np.testing.assert_allclose(picture[:, :, 0], expected(image, side), atol=0.51)
        assert (picture == picture[:, :, :1]).all()
        assert (picture.min(), picture.max()) == (0, 255)


def test_a_batch_of_any_size_is_as_good_as_one(tmp_path):
    path = write_exported(RedAsDepth(), tmp_path / "model.pt2", batch=2, dynamic={0: torch.export.Dim("batch")})
    np.testing.assert_allclose(DepthModel(path, CPU).picture(noise())[:, :, 0], expected(noise(), 16), atol=0.51)


def refused(path):
    with pytest.raises(RequestError) as error:
        check_depth_model(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize("content", ["text", "weights", "truncated", "other kind"])
def test_a_file_that_is_no_program_is_refused_in_one_line(tmp_path, suffix, content, capfd):
    path = tmp_path / f"model{suffix}"
    write = {".pt": write_torchscript, ".pt2": write_exported}
    if content == "text":
        path.write_text("no program")
    elif content == "weights":
        torch.save(RedAsDepth().state_dict(), path)
    elif content == "truncated":
        write[suffix](RedAsDepth(), path)
        path.write_bytes(path.read_bytes()[:-200])
    else:
        other = {".pt": ".pt2", ".pt2": ".pt"}[suffix]
        path.write_bytes(write[other](RedAsDepth(), tmp_path / f"other{other}").read_bytes())
    assert {".pt": "is no TorchScript program", ".pt2": "is no exported program"}[suffix] in refused(path)
    assert "Traceback" not in capfd.readouterr().err


class Touch:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("where", ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0"])
def test_nothing_that_is_pickled_is_run(tmp_path, where):
    good, bad, touched = write_exported(RedAsDepth(), tmp_path / "good.pt2"), tmp_path / "bad.pt2", tmp_path / "touched"
    payload = tmp_path / "payload"
    torch.save((Touch(touched),), payload)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        content = {name: source.read(name) for name in source.namelist()}
        (folder,) = {name.split("/")[0] for name in content}
        content[f"{folder}/{where}"] = payload.read_bytes() if where.endswith(".pt") else pickle.dumps(Touch(touched))
        for name, value in content.items():
            target.writestr(name, value)
    before = dict(os.environ)
    refused(bad)
    assert not touched.exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("kind", "told"), [("vector", "a tensor (1, 3)"), ("not finite", "not finite"), ("two pictures", "(2, 384, 384)")]
)
def test_what_the_contract_does_not_allow_is_refused(tmp_path, kind, told):
    assert told in refused(write_torchscript(Returning(kind), tmp_path / "model.pt"))


def test_more_than_one_output_or_another_input_is_refused(tmp_path):
    assert "returns a tuple for one picture" in refused(write_torchscript(Pair(), tmp_path / "pair.pt"))
    assert "takes (4, 3, 16, 16)" in refused(write_exported(RedAsDepth(), tmp_path / "four.pt2", batch=4))


def test_a_program_that_cannot_take_the_size_says_so(tmp_path):
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.Unflatten(1, (4, 4)))
    message = refused(write_torchscript(fixed, tmp_path / "fixed.pt"))
    assert "fails on (1, 3, 384, 384)" in message
    assert "export it with the size that it takes" in message
    check_depth_model(write_exported(fixed, tmp_path / "fixed.pt2"))


def subject(image):
    values = {"subject_id": image, "image": image, "width": 40, "height": 30, "split": "train", "labels": ("Sad",)}
    return Subject(**values, body_box=(1.0, 2.0, 20.0, 28.0), box_source="annotation")


def test_the_view_holds_the_models_depth_and_constant_depth_is_a_reason(tmp_path):
    for number, image in enumerate((noise(), noise(seed=1), np.full((30, 40, 3), 90, np.uint8))):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    path = write_exported(RedAsDepth(), tmp_path / "model.pt2")
    arch = architecture("thin_resnet")
    requests = [ViewRequest("depth", "thin_resnet", depth_model=str(path)), ViewRequest("context", "thin_resnet")]
    # A picture beside the image does not count where a model was named.
    subjects = [replace(subject("0.png"), depth="1.png"), *(subject(f"{number}.png") for number in (1, 2, 7))]
    (depth, context), (of_depth, of_context) = ViewMaker(tmp_path, requests, None, CPU).make(subjects, [0, 1])
    for row in (0, 1):
        framed = arch.frame(np.repeat(np.round(expected(noise(seed=row), 16)).astype(np.uint8)[:, :, None], 3, 2))
        np.testing.assert_allclose(depth[row].astype(int), framed, atol=1)
        np.testing.assert_array_equal(context[row], arch.frame(noise(seed=row)))
    assert of_depth[:2] == [None, None]
    assert of_depth[2] == CONSTANT
    assert "missing image" in of_depth[3]
    assert (depth[2:] == 0).all()
    assert of_context[:3] == [None] * 3
