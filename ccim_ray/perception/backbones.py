"""Convolutional trunks that turn pictures into features: the context's X -> g and the subject's body.

Shape suffixes: B pictures, C colour channels (RGB), H height, W width, D feature dimensions, K outputs,
S side of a network's square input.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ccim_ray.perception.architectures import ARCHITECTURES, Architecture, architecture
from ccim_ray.perception.encoders import build_encoder


class ThinResNet(nn.Module):
    """A residual network small enough to train on one CPU core in minutes, for the embedded world.

    After a stride-2 stem, four residual blocks of ``width`` x (1, 2, 4, 8) channels at strides 1, 2, 2, 2,
    then a pointwise convolution to 512 channels. Takes any input of at least 16 x 16 pixels.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = _convolution(3, width, kernel=5, stride=2)
        self.blocks = nn.Sequential(
            *(_ResidualBlock(channels[k], channels[k + 1], stride=1 if k == 0 else 2) for k in range(len(channels) - 1))
        )
        self.expand = _convolution(channels[-1], ARCHITECTURES["thin_resnet"].feature_dim, kernel=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(ARCHITECTURES["thin_resnet"].feature_dim, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Outputs (B, num_classes) for normalised float pictures (B, 3, H, W)."""
        maps = self.expand(self.blocks(self.stem(images_BCHW)))
        outputs_BK: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return outputs_BK


class _ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, kernel=3, stride=stride)
        self.second = _convolution(channels_out, channels_out, kernel=3, activation=False)
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity()
            if same_shape
            else _convolution(channels_in, channels_out, kernel=1, stride=stride, activation=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(maps)) + self.shortcut(maps))


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, activation: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activation else nn.Sequential(*layers)


class Backbone(nn.Module):
    """A network cut behind its last pooling layer, with its normalisation.

    Args:
        arch: architecture that ``network`` is an instance of.
        network: the whole network with the layer names of torchvision; its layers are taken over.
        keep_head: keep what follows the pooling layer for ``outputs``. Without it no parameter is unused in
            ``forward``, which DDP requires.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: Architecture, network: nn.Module, *, keep_head: bool = False) -> None:
        super().__init__()
        self.architecture = arch
        layers = dict(network.named_children())
        head, pooling = layers.pop(arch.head), layers.pop("avgpool")
        self.trunk = nn.Sequential()
        for name, layer in layers.items():
            self.trunk.add_module(name, layer)
        self.head = nn.Sequential(pooling, nn.Flatten(1), head) if keep_head else None
        self.register_buffer("mean", torch.tensor(arch.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(arch.std).view(1, 3, 1, 1), persistent=False)
        # 10 to 20 per cent faster on a CPU, and what tensor cores want.
        self.lay_out(torch.channels_last)

    def lay_out(self, memory_format: torch.memory_format) -> Backbone:
        """Put weights, and from now on pictures, into this memory order; returns itself."""
        self._memory_format = memory_format
        return self.to(memory_format=memory_format)

    @property
    def feature_dim(self) -> int:
        """D, the length of a feature vector."""
        return self.architecture.feature_dim

    @property
    def input_size(self) -> int:
        """S, side of the square input in pixels."""
        return self.architecture.input_size

    def normalise(self, images_BHWC: Tensor) -> Tensor:
        """RGB pictures (B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels_last order, on their device.

        ValueError where they are not uint8, since another scale would pass unnoticed.
        """
        if images_BHWC.dtype != torch.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[-1] != 3:
            raise ValueError(f"pictures must be uint8 (B, H, W, 3), not {images_BHWC.dtype} {tuple(images_BHWC.shape)}")
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255)
        return images_BCHW.sub_(self.mean).div_(self.std)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Features (B, D) of normalised float pictures: the global average of the last pooling layer."""
        return self.features(images_BCHW, "pooled")

    def features(self, images_BCHW: Tensor, form: Literal["pooled", "map"]) -> Tensor:
        """The last feature map (B, D, h, w) of normalised float pictures, or its global average (B, D)."""
        maps: Tensor = self.trunk(images_BCHW.contiguous(memory_format=self._memory_format))
        return maps.mean((2, 3)) if form == "pooled" else maps

    def outputs(self, images_BCHW: Tensor) -> Tensor:
        """Outputs (B, K) of the head, such as scene logits; ValueError where the head was not kept."""
        if self.head is None:
            raise ValueError("this backbone was built without its head")
        outputs_BK: Tensor = self.head(self.trunk(images_BCHW))
        return outputs_BK


def build_network(arch: str, num_outputs: int) -> nn.Module:
    """The whole untrained network, layers named as in torchvision; RequestError for an unknown ``arch``."""
    if architecture(arch).name == "thin_resnet":
        return ThinResNet(num_outputs)
    if architecture(arch).from_scratch:
        return build_encoder(arch, num_outputs)
    import torchvision  # over a second: paid only where one of its networks is used

    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_outputs)
    return network


def build_backbone(arch: str, num_outputs: int | None = None) -> Backbone:
    """An untrained backbone, drawn from torch's global generator; with a head where ``num_outputs`` is given.

    RequestError for an unknown ``arch``.
    """
    network = build_network(arch, num_outputs or 1)
    return Backbone(architecture(arch), network, keep_head=num_outputs is not None)
