"""Convolutional networks that a baseline trains from scratch; no weights of them are published.

Shape suffixes: B pictures, C colour channels (RGB), H height, W width, K outputs.
"""

from __future__ import annotations

from torch import Tensor, nn

from ccim_ray.perception.architectures import architecture

CHANNELS = (32, 64, 128, 256, 256)

POOLINGS = {"caer_face": 4, "caer_context": 4, "depth_cnn": 5}
"""How many of the five convolutions a max-pooling follows.

CAER-Net (Lee et al., ICCV 2019): 4, so that its maps have a side of 6 (face) and 7 (context).
EmotiCon's depth network (Mittal et al., CVPR 2020): convolutions and max-poolings alternate; the rest of it is not
published, and taken from CAER-Net.
"""


class ConvolutionalEncoder(nn.Module):
    """Five 3 x 3 convolutions, each with batch norm and ReLU, the first of them followed by max-poolings of stride 2.

    Args:
        poolings: number of max-poolings, 5 at most.
        num_outputs: K of the head.
    """

    def __init__(self, poolings: int, num_outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = (3, *CHANNELS)
        for k in range(len(CHANNELS)):
            self.features.extend(
                [
                    nn.Conv2d(channels[k], channels[k + 1], 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels[k + 1]),
                    nn.ReLU(),
                ]
            )
            if k < poolings:
                self.features.append(nn.MaxPool2d(2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(CHANNELS[-1], num_outputs)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Outputs (B, K) for normalised float pictures (B, 3, H, W)."""
        outputs_BK: Tensor = self.fc(self.avgpool(self.features(images_BCHW)).flatten(1))
        return outputs_BK


def build_encoder(arch: str, num_outputs: int) -> ConvolutionalEncoder:
    """The untrained encoder of an architecture that is trained from scratch."""
    return ConvolutionalEncoder(POOLINGS[architecture(arch).name], num_outputs)
