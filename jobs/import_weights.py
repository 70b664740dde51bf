"""Turn a downloaded file of pre-trained weights into the safetensors file that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ccim_ray.command_line import parse, run


@dataclass(frozen=True, kw_only=True)
class Flags:
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The download: .pth.tar or .pth of Places365, a torchvision state dict, or safetensors."""
    arch: str
    """resnet18, resnet50, resnet152 or vgg16; or a detector: fasterrcnn_resnet50_fpn,
    fasterrcnn_mobilenet_v3_large_320_fpn or keypointrcnn_resnet50_fpn."""
    weights: str
    """What it was trained on: places365 (365 outputs) or imagenet (1000); for a detector coco."""
    weights_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder to write. Default: CCIM_RAY_WEIGHTS, else ~/.cache/ccim_ray/weights."""
    allow_pickle: bool = False
    """Run the code in an old pickle that holds more than tensors. Compare its sha256 with the publisher's first."""
    overwrite: bool = False
    """Replace weights that were imported before."""


def main() -> int:
    flags = parse(Flags, __doc__ or "")
    from ccim_ray.perception.imported_weights import check_import, import_weights, source_sha256

    print(f"sha256 of {flags.file}: {source_sha256(flags.file)}", flush=True)  # before any code in it could run

    imported = import_weights(
        flags.file,
        flags.arch,
        flags.weights,
        flags.weights_dir,
        allow_pickle=flags.allow_pickle,
        overwrite=flags.overwrite,
    )
    check_import(imported.path)
    for name, value in imported.provenance.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"{imported.path}: written and read back, and gives the features of the forward check")
    return 0


if __name__ == "__main__":
    run(main)
