"""Persons in pictures by torchvision's Faster R-CNN and Keypoint R-CNN.

Shape suffixes: H height, W width, C colour channels (RGB), P persons, J = 17 joints, 4 = x1, y1, x2, y2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ccim_ray.datasets.images import ImageArray
from ccim_ray.errors import RequestError
from ccim_ray.perception.person_matching import Persons
from ccim_ray.perception.weight_files import DETECTOR_FILES, stored_path, weights_path
from ccim_ray.perception.weights import download_weights, read_weights

FORWARD_BATCH = 8
PERSON_LABEL = 1
"""Of COCO's categories, in torchvision's numbers; 0 is the background."""

_NORM_EPS = {"fasterrcnn_mobilenet_v3_large_320_fpn": 1e-5}
"""torchvision builds the ResNet detectors of these weights with an eps of 0, as they were trained."""


class PersonDetector:
    """A detector with its weights, in eval mode.

    Args:
        network: what ``build_detector`` returns, with the weights loaded.
        device: where it runs.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network.eval().to(device)
        self._device = device

    def detect(self, pictures: Iterable[ImageArray]) -> Iterator[tuple[int, Persons]]:
        """Persons in each picture (H, W, 3) uint8 RGB, with the picture's number, in any order.

        Pictures of one size go through the network together: beside a larger one, a picture would be padded, and
        the result would depend on its neighbour.
        """
        waiting: dict[tuple[int, ...], list[tuple[int, ImageArray]]] = {}
        for number, image_HWC in enumerate(pictures):
            batch = waiting.setdefault(image_HWC.shape, [])
            batch.append((number, image_HWC))
            if len(batch) == FORWARD_BATCH:
                yield from self._forward(waiting.pop(image_HWC.shape))
        for batch in waiting.values():
            yield from self._forward(batch)

    @torch.inference_mode()
    def _forward(self, batch: list[tuple[int, ImageArray]]) -> Iterator[tuple[int, Persons]]:
        tensors_CHW = [as_input(torch.from_numpy(image_HWC).to(self._device)) for _, image_HWC in batch]
        for (number, _), found in zip(batch, self.network(tensors_CHW), strict=True):
            yield number, _persons(found)


def as_input(image_HWC: Tensor) -> Tensor:
    """A picture (H, W, 3) uint8 as the networks take it: (3, H, W) float32, 0 to 1; they normalise and resize it."""
    return image_HWC.permute(2, 0, 1).float().div_(255)


def _persons(found: Mapping[str, Tensor]) -> Persons:
    of_person = found["labels"] == PERSON_LABEL
    boxes_P4, scores_P = (found[name][of_person].float().cpu().numpy() for name in ("boxes", "scores"))
    if "keypoints" not in found:
        return Persons(boxes_P4, scores_P)
    # The third value that torchvision gives is always 1; its heat map's peak says whether a joint was seen.
    joints_PJ3 = found["keypoints"][of_person].float()
    joints_PJ3[:, :, 2] = found["keypoints_scores"][of_person]
    return Persons(boxes_P4, scores_P, joints_PJ3.cpu().numpy())


def load_detector(name: str, weights_dir: Path | None, device: torch.device) -> PersonDetector:
    """The detector called ``name`` (a key of weight_files.DETECTOR_FILES) with its weights trained on COCO.

    Raises:
        RequestError: as ``read_detector_state`` and ``assemble_detector``.
    """
    state, source = read_detector_state(name, weights_dir)
    return PersonDetector(assemble_detector(name, state, source), device)


def read_detector_state(
    name: str, weights_dir: Path | None, without: str = "--detector none"
) -> tuple[dict[str, Tensor], str]:
    """The weights, and the file or address that they come from.

    ``<weights_dir>/<name>_coco.safetensors``, else torchvision's download. ``without`` names the flag that does
    without it.

    Raises:
        RequestError: the detector is unknown, or the weights can neither be read nor downloaded.
    """
    path = weights_path(name, "coco", weights_dir)
    if path is not None:
        return read_weights(path, name, "coco"), str(path)
    import torchvision  # over a second: paid only where it is used

    published = torchvision.models.get_model_weights(name)["COCO_V1"]
    remedy = (
        f"import {DETECTOR_FILES[name]} to {stored_path(name, 'coco', weights_dir)} with jobs/import_weights.py "
        f"--arch {name} --weights coco, or give {without}"
    )
    return download_weights(published, f"'coco' of {name}", remedy), str(published.url)


def assemble_detector(name: str, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """The network that holds ``state``, float32, in eval mode. RequestError, which names ``source``, if it does not."""
    network = build_detector(name)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        mismatch = " ".join(str(error).split())[:300]
        raise RequestError(f"{source} does not hold {name} under torchvision's parameter names: {mismatch}") from error
    # Without this check nobody would be found: no comparison with a score that is not a number holds.
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise RequestError(f"{source} holds weights that are not finite: download it again")
    return network.eval().requires_grad_(False)


def build_detector(name: str) -> nn.Module:
    """The network without trained weights, its batch normalisation frozen as under torchvision's COCO weights."""
    import torchvision  # over a second: paid only where it is used

    with torch.random.fork_rng(devices=[]):
        network: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    _freeze_norms(network, _NORM_EPS.get(name, 0.0))
    return network


def _freeze_norms(module: nn.Module, eps: float) -> None:
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            module.add_module(name, FrozenBatchNorm2d(child.num_features, eps=eps))
        else:
            _freeze_norms(child, eps)


@torch.inference_mode()
def fixed_outputs(network: nn.Module, image_HWC: Tensor) -> Tensor:
    """Numbers that every part of the network has a say in, whatever it finds: (8,) float32.

    The first four outputs of the box head for a box in the middle of the picture (H, W, 3) uint8, and the means of
    the RPN's four outputs on the coarsest map.
    """
    images, _ = network.transform([as_input(image_HWC)])  # type: ignore[operator]
    maps = network.backbone(images.tensors)  # type: ignore[operator]
    objectness, deltas = network.rpn.head(list(maps.values()))  # type: ignore[operator, union-attr]
    height, width = images.image_sizes[0]
    box_14 = torch.tensor([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
    heads = network.roi_heads
    of_box = heads.box_head(heads.box_roi_pool(maps, [box_14], images.image_sizes))  # type: ignore[operator, union-attr]
    outputs = torch.cat([value.flatten() for value in heads.box_predictor(of_box)])  # type: ignore[operator, union-attr]
    coarsest = [objectness[-1].mean(), objectness[-1].std(), deltas[-1].mean(), deltas[-1].std()]
    return torch.cat([outputs[:4], torch.stack(coarsest)])
