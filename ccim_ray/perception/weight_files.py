"""Which weights exist and where their files lie. Knows no torch, so that a plan can be made without it."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import architecture

if TYPE_CHECKING:
    import torchvision

STAND_INS = Path(__file__).parent / "stand_ins"
"""Weights for thin_resnet, trained on unbiased pictures of the embedded world."""

STAND_IN_OUTPUTS = {"scenes": 36, "objects": 16, "bodies": 18}
"""Width of each stand-in's head: scenes, kinds of object, dimensions of an expression."""

PRETRAINING_OUTPUTS = {"places365": 365, "imagenet": 1000}

IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "vgg16": "vgg16-397923af.pth",
}
"""torchvision's downloads of its weights IMAGENET1K_V1, here so that a plan need not import torchvision."""

DETECTOR_FILES = {
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
    "keypointrcnn_resnet50_fpn": "keypointrcnn_resnet50_fpn_coco-fc266e95.pth",
}
"""Detectors of persons by torchvision's names, with the download of their weights "coco", which are COCO_V1."""

DEFAULT_DETECTOR = "fasterrcnn_resnet50_fpn"
"""The paper's (section 4.3)."""

DEFAULT_POSE_DETECTOR = "keypointrcnn_resnet50_fpn"
"""The one that finds poses."""

RANDOM_SEED = 0


class MissingWeightsError(RequestError):
    """The user has to put a weight file in its place first; a plan can be made without."""


def available_weights(arch: str) -> tuple[str, ...]:
    """Names of the weights that exist for ``arch``; RequestError where ``arch`` is unknown."""
    if arch in DETECTOR_FILES:
        return ("coco",)
    if architecture(arch).from_scratch:
        return ("random",)
    names = STAND_IN_OUTPUTS if architecture(arch).name == "thin_resnet" else PRETRAINING_OUTPUTS
    return (*names, "random")


def weights_path(arch: str, weights: str, weights_dir: Path | None = None) -> Path | None:
    """The file that holds the weights; None where there is none ("random", or not stored: "imagenet", "coco").

    RequestError where the combination does not exist, MissingWeightsError where the places365 file is missing.
    """
    require_available(arch, weights)
    if weights == "random":
        return None
    if weights in STAND_IN_OUTPUTS:
        return _stand_in_path(weights)
    path = stored_path(arch, weights, weights_dir)
    if path.is_file():
        return path
    if weights in ("imagenet", "coco"):
        return None
    raise MissingWeightsError(
        f"weights {weights!r} of {arch} not found at {path}: put the published file there with "
        "jobs/import_weights.py (or name the folder by CCIM_RAY_WEIGHTS); no other weights are used in their place"
    )


def stored_path(arch: str, weights: str, weights_dir: Path | None = None) -> Path:
    """Where a user's file of these weights belongs, whether it is there or not."""
    return (weights_dir or default_weights_dir()) / f"{arch}_{weights}.safetensors"


def weights_digest(arch: str, weights: str, weights_dir: Path | None = None) -> str:
    """64 hexadecimal digits that change when the weights do, without loading them. For cache keys.

    sha256 of the file; of the name for "random"; of the download's name, which holds a hash of its content,
    for "imagenet" and "coco" without a file. Raises as ``weights_path``.
    """
    path = weights_path(arch, weights, weights_dir)
    if path is not None:
        return file_digest(path)
    if weights == "coco":
        origin = DETECTOR_FILES[arch]
    else:
        origin = f"seed {RANDOM_SEED}" if weights == "random" else IMAGENET_FILES[arch]
    return hashlib.sha256(f"{arch} {weights} {origin}".encode()).hexdigest()


def planned_digest(arch: str, weights: str, weights_dir: Path | None, missing: set[Path] | None) -> str:
    """As ``weights_digest``; a file that is missing is added to ``missing`` instead, where that is given.

    No artefact has a key with the digest that then stands in, so everything that is made with the file is to be made.
    """
    try:
        return weights_digest(arch, weights, weights_dir)
    except MissingWeightsError:
        if missing is None:
            raise
        missing.add(stored_path(arch, weights, weights_dir))
        return f"missing: {arch} {weights}"


def _stand_in_path(name: str) -> Path:
    path = STAND_INS / f"{name}.safetensors"
    if not path.is_file():
        raise RequestError(
            f"weights {name!r} not found at {path}, where the package keeps them: install ccim_ray again"
        )
    return path


def file_digest(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    """Hashed once a process, though every setting and seed of a plan asks for it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_weights_dir() -> Path:
    """CCIM_RAY_WEIGHTS, else a folder in the user's cache."""
    folder = os.environ.get("CCIM_RAY_WEIGHTS")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "ccim_ray" / "weights"


def require_available(arch: str, weights: str) -> None:
    """RequestError where the combination does not exist."""
    if weights not in available_weights(arch):
        raise RequestError(
            f"no weights {weights!r} exist for backbone {arch!r}: choose one of " + ", ".join(available_weights(arch))
        )


def imagenet_weights(arch: str) -> torchvision.models.WeightsEnum:
    """torchvision's weights of the paper's time, by name: its default has changed since."""
    import torchvision  # over a second: paid only where it is asked

    return torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"]


def imagenet_url(arch: str) -> str:
    """Where torchvision downloads them from."""
    return str(imagenet_weights(arch).url)
