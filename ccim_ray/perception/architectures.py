"""What networks take: their inputs' size and form, and the views of a subject. Knows no torch.

Shape suffixes: H height, W width, C colour channels (RGB), S side of a network's square input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from typing_extensions import TypeIs

from ccim_ray.datasets.images import crop_square, mask_subject, resize_and_crop
from ccim_ray.datasets.subject import Box, Subject, face_region
from ccim_ray.errors import RequestError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the code around a trunk must know of it, available without building it.

    Attributes:
        name: key of ARCHITECTURES.
        feature_dim: D, channels of the last pooling layer.
        input_size: S, side in pixels of the square input, for the context and for the body crop.
        resize_to: side in pixels to which a whole picture is resized before its centre is cropped to S.
        stride: pixels of the input for one of the last feature map.
        head: name of the network's layer (or layers) after the last pooling layer.
        mean, std: of each RGB channel on the 0..1 scale.
        from_scratch: there are no trained weights of it, only "random".
    """

    name: str
    feature_dim: int
    input_size: int = 224
    resize_to: int = 256
    stride: int = 32
    head: str = "fc"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    from_scratch: bool = False

    def frame(self, image_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A whole picture (H, W, 3) uint8 as the network takes it, (S, S, 3) uint8.

        torchvision architectures: resize to 256 x 256, centre crop of 224 (as the Places365 authors do);
        thin_resnet: resize to 64 x 64; caer_context: to 128 x 128, centre crop of 112, where CAER-Net itself resizes
        to 171 x 128 and crops 112. None keeps the aspect ratio.
        """
        return resize_and_crop(image_HWC, self.resize_to, self.input_size)


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(name="resnet18", feature_dim=512),
        Architecture(name="resnet50", feature_dim=2048),
        Architecture(name="resnet152", feature_dim=2048),
        # The paper's "last pooling layer" of VGG16 is 512 x 7 x 7; its global average is taken.
        Architecture(name="vgg16", feature_dim=512, head="classifier"),
        Architecture(
            name="thin_resnet",
            feature_dim=512,
            input_size=64,
            resize_to=64,
            stride=16,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        Architecture(name="caer_face", feature_dim=256, input_size=96, resize_to=96, stride=16, from_scratch=True),
        Architecture(name="caer_context", feature_dim=256, input_size=112, resize_to=128, stride=16, from_scratch=True),
        # EmotiCon's network on depth pictures, of three equal channels; nothing is cut off them.
        Architecture(
            name="depth_cnn",
            feature_dim=256,
            input_size=112,
            resize_to=112,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            from_scratch=True,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture called ``name``; RequestError names the known ones."""
    if name not in ARCHITECTURES:
        raise RequestError(f"unknown backbone {name!r}: choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


PictureView = Literal["context", "masked_context", "body", "face", "face_hidden_context", "depth"]
GeometryView = Literal["keypoints", "agents", "regions"]
View = PictureView | GeometryView
VIEWS: tuple[View, ...] = (*get_args(PictureView), *get_args(GeometryView))


FACE_VIEWS: tuple[View, ...] = ("face", "face_hidden_context")
"""What depends on where the face is."""


def is_geometry(view: View) -> TypeIs[GeometryView]:
    """Whether the view is a tensor of boxes or points, which no backbone reads."""
    return view in get_args(GeometryView)


Output = Literal["features", "map", "scene"]


@dataclass(frozen=True)
class ViewRequest:
    """One view of every subject: pictures framed for ``arch``, or with ``weights`` what that backbone makes of them.

    Picture views: ``context`` is the whole image, ``masked_context`` the image with the subject's box in black
    (others stay; section 3.3 of the paper), ``body`` the square crop around the subject's box, ``face`` that of the
    face, ``face_hidden_context`` the image with the face in black, ``depth`` the depth picture.
    Geometry views (``perception.geometry``) are small tensors of boxes and points and have no weights.

    With weights, ``output`` is "features" (the global average, (D,) float32), "map" (the last feature map, (D, h, w)
    float16) or "scene" (the number of the head's most probable class and its probability, (2,) float32).

    ``depth_model`` is the file of the program that makes the depth pictures (``perception.depth_model``); None where
    they lie beside the images.
    """

    view: View
    arch: str
    weights: str | None = None
    output: Output = "features"
    depth_model: str | None = None

    @property
    def suffix(self) -> str:
        """Small rows are Parquet; pictures and maps are Arrow, which can be memory-mapped."""
        small = is_geometry(self.view) or (self.weights is not None and self.output != "map")
        return ".parquet" if small else ".arrow"

    @property
    def title(self) -> str:
        """As shown to a person."""
        if is_geometry(self.view):
            return self.view
        view = f"{self.view} by {PurePath(self.depth_model).name}" if self.depth_model else self.view
        if self.weights is None:
            return f"{view} ({self.arch} pictures)"
        return f"{view} ({self.arch}/{self.weights}{'' if self.output == 'features' else ', ' + self.output})"


def frame_view(
    view: PictureView, image_HWC: npt.NDArray[np.uint8], subject: Subject, arch: Architecture
) -> npt.NDArray[np.uint8]:
    """The view as ``arch`` takes it: (side, side, 3) uint8. For ``depth``, ``image_HWC`` is the depth picture."""
    if view == "body":
        return crop_square(image_HWC, subject.body_box, arch.input_size)
    if view == "face":
        return crop_square(image_HWC, face_region(subject), arch.input_size)
    hidden: Box | None = None
    if view == "masked_context":
        hidden = subject.body_box
    elif view == "face_hidden_context":
        hidden = face_region(subject)
    return arch.frame(image_HWC if hidden is None else mask_subject(image_HWC, hidden))
