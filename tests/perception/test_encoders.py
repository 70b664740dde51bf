"""The networks that are trained from scratch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ARCHITECTURES, architecture
from ccim_ray.perception.backbones import build_backbone, build_network
from ccim_ray.perception.encoders import POOLINGS
from ccim_ray.perception.weight_files import available_weights, weights_digest, weights_path
from ccim_ray.perception.weights import load_backbone

every_encoder = pytest.mark.parametrize("arch", POOLINGS)


def pictures(backbone, batch, seed=0):
    side = backbone.input_size
    generator = torch.Generator().manual_seed(seed)
    images_BHWC = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
    return backbone.normalise(images_BHWC)


@pytest.mark.parametrize(("arch", "side"), [("caer_face", 6), ("caer_context", 7), ("depth_cnn", 3)])
def test_maps_and_features(arch, side):
    backbone = build_backbone(arch).eval()
    images_BCHW = pictures(backbone, 2)
    with torch.no_grad():
        maps = backbone.trunk(images_BCHW)
        assert maps.shape == (2, 256, side, side)
        torch.testing.assert_close(backbone(images_BCHW), maps.flatten(2).mean(2))
    assert backbone.feature_dim == 256


@pytest.mark.parametrize(("arch", "poolings"), [("caer_face", 4), ("caer_context", 4), ("depth_cnn", 5)])
def test_five_convolutions_with_batch_norm_relu_and_poolings(arch, poolings):
    torch.manual_seed(0)
    network = build_network(arch, 3).eval()
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256, 256]
    images_BCHW = torch.randn(2, 3, 64, 64)
    maps = images_BCHW
    with torch.no_grad():
        for k, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
            maps = F.conv2d(maps, convolution.weight, padding=1) / np.sqrt(1 + norm.eps)  # statistics are still 0, 1
            maps = F.max_pool2d(maps.relu(), 2) if k < poolings else maps.relu()
        torch.testing.assert_close(network(images_BCHW), network.fc(maps.mean((2, 3))), rtol=1e-4, atol=1e-6)


@every_encoder
def test_a_step_reaches_every_parameter_and_a_single_picture_works(arch):
    torch.manual_seed(0)
    backbone = build_backbone(arch).train()
    features_BD = backbone(pictures(backbone, 2))
    features_BD.square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert backbone.eval()(pictures(backbone, 1)).shape == (1, 256)


@every_encoder
def test_only_random_weights_exist_and_are_the_same_every_time(arch):
    assert available_weights(arch) == ("random",)
    assert weights_path(arch, "random") is None
    first, again = load_backbone(arch, "random"), load_backbone(arch, "random")
    images_BCHW = pictures(first, 1)
    with torch.no_grad():
        assert torch.equal(first(images_BCHW), again(images_BCHW))
    with pytest.raises(RequestError, match=f"no weights 'imagenet' exist for backbone '{arch}': choose one of random"):
        load_backbone(arch, "imagenet")
    with pytest.raises(RequestError, match=r"no trained head: choose another backbone$"):
        load_backbone(arch, "random", keep_head=True)


def test_digests_tell_the_encoders_apart():
    assert len({weights_digest(arch, "random") for arch in POOLINGS}) == len(POOLINGS)


def test_every_architecture_from_scratch_has_an_encoder():
    assert {name for name, entry in ARCHITECTURES.items() if entry.from_scratch} == set(POOLINGS)


def test_the_context_loses_its_border_and_face_and_depth_nothing():
    image_HWC = np.zeros((128, 171, 3), np.uint8)
    image_HWC[:7] = 255
    assert architecture("caer_context").frame(image_HWC).shape == (112, 112, 3)
    assert architecture("caer_context").frame(image_HWC).max() == 0
    assert architecture("depth_cnn").frame(image_HWC)[0].min() == 255
    assert architecture("caer_face").frame(image_HWC)[0].min() == 255


@pytest.mark.parametrize("arch", ["caer_face", "depth_cnn"])
def test_number_of_parameters(arch):
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 256)
    norms = 2 * (32 + 64 + 128 + 256 + 256)
    backbone = build_backbone(arch)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == convolutions + norms == 979_232
