"""What a backbone computes: shapes, pooling, normalisation and framing."""

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ARCHITECTURES, architecture
from ccim_ray.perception.backbones import ThinResNet, build_backbone


@pytest.mark.parametrize(
    ("arch", "feature_dim"),
    [
        ("thin_resnet", 512),
        ("resnet18", 512),
        ("resnet50", 2048),
        ("resnet152", 2048),
    ],
)
def test_features_have_the_dimension_of_the_last_pooling_layer(arch, feature_dim):
    backbone = build_backbone(arch).eval()
    with torch.no_grad():
        features_BD = backbone(torch.randn(2, 3, 64, 64))
    assert features_BD.shape == (2, feature_dim)
    assert backbone.feature_dim == feature_dim
    assert features_BD.dtype == torch.float32
    assert (features_BD >= 0).all()


def test_input_sizes():
    sizes = {name: entry.input_size for name, entry in ARCHITECTURES.items()}
    torchvisions = {"resnet18": 224, "resnet50": 224, "resnet152": 224, "vgg16": 224}
    assert sizes == torchvisions | {"thin_resnet": 64, "caer_face": 96, "caer_context": 112, "depth_cnn": 112}


def test_vgg16_averages_its_last_pooling_layer():
    torch.manual_seed(0)
    backbone = build_backbone("vgg16").eval()
    with torch.device("meta"):
        reference = torchvision.models.vgg16(weights=None, num_classes=1)
    reference.features.load_state_dict(backbone.trunk.get_submodule("features").state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = reference.eval().features(images)
        torch.testing.assert_close(backbone(images), maps.sum((2, 3)) / (2 * 3))
    assert backbone.feature_dim == 512


@pytest.mark.parametrize("arch", ["resnet18", "thin_resnet"])
def test_head_gives_what_the_whole_network_gives(arch):
    torch.manual_seed(0)
    backbone = build_backbone(arch, num_outputs=7).eval()
    network = (ThinResNet(7) if arch == "thin_resnet" else torchvision.models.resnet18(num_classes=7)).eval()
    state = backbone.trunk.state_dict()
    state |= {f"fc.{name}": value for name, value in backbone.head[2].state_dict().items()}
    network.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.outputs(images), network(images))
        torch.testing.assert_close(backbone.head[2](backbone(images)), network(images))


def test_without_a_head_there_are_no_outputs_and_no_unused_parameters():
    backbone = build_backbone("thin_resnet")
    with pytest.raises(ValueError, match="without its head"):
        backbone.outputs(torch.zeros(1, 3, 64, 64))
    backbone(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_normalisation_is_torchvisions():
    images_BHWC = torch.randint(0, 256, (2, 8, 9, 3), dtype=torch.uint8)
    found = build_backbone("resnet18").normalise(images_BHWC)
    to_float = torchvision.transforms.Compose(
        [
            torchvision.transforms.ConvertImageDtype(torch.float32),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(found, to_float(images_BHWC.permute(0, 3, 1, 2)))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("images", [torch.zeros(1, 8, 8, 3), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_normalisation_refuses_other_scales_and_orders(images):
    with pytest.raises(ValueError, match="uint8"):
        build_backbone("thin_resnet").normalise(images)


def test_framing_keeps_the_centre_for_torchvision_and_everything_for_thin():
    image_HWC = np.zeros((512, 512, 3), np.uint8)
    image_HWC[:20] = 255
    assert architecture("resnet18").frame(image_HWC).shape == (224, 224, 3)
    assert architecture("resnet18").frame(image_HWC).max() == 0
    squashed = architecture("thin_resnet").frame(image_HWC)
    assert squashed.shape == (64, 64, 3)
    assert squashed[0].min() == 255


def test_framing_of_a_wide_picture_keeps_both_sides():
    image_HWC = np.zeros((64, 640, 3), np.uint8)
    image_HWC[:, :320] = 200
    framed = architecture("thin_resnet").frame(image_HWC)
    assert framed[:, :31].min() == 200
    assert framed[:, 33:].max() == 0


def test_thin_resnet_downsamples_by_sixteen():
    backbone = build_backbone("thin_resnet").eval()
    with torch.no_grad():
        maps = backbone.trunk(torch.randn(1, 3, 64, 64))
        assert maps.shape == (1, 512, 4, 4)
        images = torch.randn(1, 3, 48, 80)
        torch.testing.assert_close(backbone(images), F.adaptive_avg_pool2d(backbone.trunk(images), 1).flatten(1))


def test_unknown_architecture_is_a_request_error():
    with pytest.raises(RequestError, match=r"unknown backbone 'resnet34'.*resnet18, resnet50"):
        build_backbone("resnet34")
