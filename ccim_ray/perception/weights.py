"""Where pre-trained weights come from. A file that is missing is an error: nothing is put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import architecture
from ccim_ray.perception.backbones import Backbone, build_backbone, build_network
from ccim_ray.perception.weight_files import (
    PRETRAINING_OUTPUTS,
    RANDOM_SEED,
    STAND_IN_OUTPUTS,
    available_weights,
    default_weights_dir,
    imagenet_url,
    imagenet_weights,
    require_available,
    weights_path,
)
from ccim_ray.sealed_files import damage

if TYPE_CHECKING:
    import torchvision


def load_backbone(arch: str, weights: str, weights_dir: Path | None = None, *, keep_head: bool = False) -> Backbone:
    """A backbone in eval mode on the CPU, float32.

    Args:
        arch: key of backbones.ARCHITECTURES.
        weights: one of ``available_weights(arch)``. "places365" is read from
            ``<weights_dir>/<arch>_places365.safetensors`` (torchvision's parameter names, 365 outputs);
            "imagenet" from ``<arch>_imagenet.safetensors`` there, else torchvision's IMAGENET1K_V1 is
            downloaded; "random" is an initialisation that is the same in every process.
        weights_dir: default the environment's CCIM_RAY_WEIGHTS, else ``~/.cache/ccim_ray/weights``.
        keep_head: keep the classifier, for ``Backbone.outputs``.

    Raises:
        RequestError: the combination does not exist, the file is missing, unreadable, or of another network.
    """
    require_available(arch, weights)
    if weights == "random":
        if keep_head:
            trained = ", ".join(available_weights(arch)[:-1])
            advice = f"choose trained weights, one of {trained}" if trained else "choose another backbone"
            raise RequestError(f"weights 'random' of {arch} have no trained head: {advice}")
        return _initialise(arch).eval()
    path = weights_path(arch, weights, weights_dir)
    if path is None:
        put = f"put them at {(weights_dir or default_weights_dir()) / f'{arch}_imagenet.safetensors'}"
        state, source = download_weights(imagenet_weights(arch), f"'imagenet' of {arch}", put), imagenet_url(arch)
    else:
        state, source = read_weights(path, arch, weights), str(path)
    return assemble_backbone(arch, weights, state, source, keep_head).eval()


def _initialise(arch: str) -> Backbone:
    # torch.manual_seed would seed every device's generator, and only the CPU's state is put back.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(RANDOM_SEED)
        return build_backbone(arch)


def assemble_backbone(
    arch: str, weights: str, state: Mapping[str, Tensor], source: str, keep_head: bool = False
) -> Backbone:
    """A backbone that holds ``state``, in train mode. RequestError, which names ``source``, where it does not fit."""
    num_outputs = (STAND_IN_OUTPUTS | PRETRAINING_OUTPUTS)[weights]
    # On the meta device nothing is drawn or allocated for values that the file replaces.
    with torch.device("meta"):
        network = build_network(arch, num_outputs)
    float_state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        network.load_state_dict(float_state, strict=True, assign=True)
    except RuntimeError as error:
        mismatch = " ".join(str(error).split())[:300]
        raise RequestError(
            f"{source} does not hold {arch} with {num_outputs} outputs under torchvision's parameter names: {mismatch}"
        ) from error
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return Backbone(architecture(arch), network, keep_head=keep_head)


def read_weights(path: Path, arch: str, weights: str) -> dict[str, Tensor]:
    """The tensors of a file that ``weights_path`` named, whose bytes have the digest that its import wrote into it.

    RequestError, which says how to have the file again, where it is damaged or unreadable.
    """
    remedy = (
        "install ccim_ray again"
        if weights in STAND_IN_OUTPUTS
        else f"import it again with jobs/import_weights.py --arch {arch} --weights {weights} --overwrite"
    )
    try:
        wrong = damage(path)
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from error
    if wrong:
        raise RequestError(f"{path} is damaged ({wrong}): {remedy}")
    return read_safetensors(path, remedy)


def read_safetensors(path: Path, remedy: str = "download or convert it again") -> dict[str, Tensor]:
    """The tensors of the file. RequestError that ends with ``remedy`` where it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path} is not a readable safetensors file ({error}): {remedy}") from error


def download_weights(published: torchvision.models.WeightsEnum, name: str, remedy: str) -> dict[str, Tensor]:
    """torchvision's state dict, through torch's download cache. RequestError that ends with ``remedy`` if it fails."""
    try:
        state: dict[str, Tensor] = published.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"weights {name} could not be downloaded from {published.url} ({error}): {remedy}"
        ) from error
    return state
