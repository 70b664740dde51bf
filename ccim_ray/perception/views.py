"""Views of a subject: what a network sees of an image, as pictures or as what a backbone makes of them.

Shape suffixes: S subjects, H height, W width, C colour, D feature, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ccim_ray.datasets.depth import require_depth_pictures
from ccim_ray.datasets.images import UnreadableImage, read_rgb
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import Output, ViewRequest, architecture, frame_view, is_geometry
from ccim_ray.perception.backbones import Backbone
from ccim_ray.perception.depth_model import CONSTANT, DepthModel
from ccim_ray.perception.geometry import geometry_of
from ccim_ray.perception.weights import load_backbone

FORWARD_BATCH = 64

Picture = npt.NDArray[np.uint8] | None
"""(H, W, 3), where it can be read."""


class ViewMaker:
    """Decodes each image once and makes every requested view of it.

    Args:
        root: folder that image paths are relative to.
        weights_dir: where downloaded weights lie; None takes the default.
        device: where backbones run.
    """

    def __init__(
        self, root: Path, requests: Sequence[ViewRequest], weights_dir: Path | None, device: torch.device
    ) -> None:
        self._root, self._requests, self._device = root, tuple(requests), device
        self._backbones: dict[tuple[str, str, str], Backbone] = {}
        for request in requests:
            key = (request.arch, request.weights or "", request.output)
            if request.weights and key not in self._backbones:
                keep_head = request.output == "scene"
                backbone = load_backbone(request.arch, request.weights, weights_dir, keep_head=keep_head)
                self._backbones[key] = backbone.eval().to(device)
        files = {request.depth_model for request in requests if request.depth_model}
        self._depth_models = {file: DepthModel(Path(file), device) for file in files}

    def make(
        self, subjects: Sequence[Subject], wanted: Sequence[int]
    ) -> tuple[list[npt.NDArray[Any]], list[list[str | None]]]:
        """Rows of each wanted request (by number); and for each of them and each subject None or why it has none.

        Where the picture that a view shows is unusable, its row is zeros. What a view holds does not depend on which
        others are made with it. Raises RequestError where a backbone returns a value that is not finite, a subject
        has no depth picture though one is wanted, or a depth model fails.
        """
        requests = [self._requests[number] for number in wanted]
        if any(request.view == "depth" and not request.depth_model for request in requests):
            require_depth_pictures(subjects, self._root)
        made: list[list[npt.NDArray[Any]]] = [[] for _ in requests]
        reasons: list[list[str | None]] = [[] for _ in requests]
        last: dict[bool, tuple[str, Picture, str | None]] = {}
        for subject in subjects:
            for request, made_rows, of_request in zip(requests, made, reasons, strict=True):
                of_depth = request.view == "depth"
                beside = of_depth and not request.depth_model
                path = subject.depth if beside and subject.depth else subject.image
                # Subjects of one image follow each other: decode it once.
                if of_depth not in last or last[of_depth][0] != path:
                    last[of_depth] = (path, *self._picture(request, path))
                _, picture_HWC, reason = last[of_depth]
                made_rows.append(_row(request, picture_HWC, subject))
                of_request.append(reason)
        rows = [self._rows(request, np.stack(made_rows)) for request, made_rows in zip(requests, made, strict=True)]
        for array, of_request in zip(rows, reasons, strict=True):
            array[[reason is not None for reason in of_request]] = 0
        return rows, reasons

    def _picture(self, request: ViewRequest, path: str) -> tuple[Picture, str | None]:
        try:
            picture_HWC = read_rgb(self._root / path)
        except UnreadableImage as error:
            beside = request.view == "depth" and not request.depth_model
            return None, f"depth picture: {error.reason}" if beside else error.reason
        if not request.depth_model:
            return picture_HWC, None
        depth_HWC = self._depth_models[request.depth_model].picture(picture_HWC)
        return depth_HWC, None if depth_HWC is not None else CONSTANT

    @torch.inference_mode()
    def _rows(self, request: ViewRequest, pictures_SHWC: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if request.weights is None:
            return pictures_SHWC
        backbone = self._backbones[request.arch, request.weights, request.output]
        made = []
        for start in range(0, len(pictures_SHWC), FORWARD_BATCH):
            batch = backbone.normalise(torch.from_numpy(pictures_SHWC[start : start + FORWARD_BATCH]).to(self._device))
            made.append(_output(backbone, batch, request.output).float().cpu().numpy())
        rows = np.concatenate(made)
        if request.output == "map":
            rows = rows.astype(np.float16)  # half the disk, at three digits of an activation
        if not np.isfinite(rows).all():
            raise RequestError(f"{request.title}: the backbone returned a value that is not finite; check its weights")
        return rows


def _output(backbone: Backbone, images_SCHW: torch.Tensor, output: Output) -> torch.Tensor:
    if output == "scene":
        return _most_probable(backbone.outputs(images_SCHW))
    return backbone.features(images_SCHW, "map" if output == "map" else "pooled")


def _most_probable(logits_SK: torch.Tensor) -> torch.Tensor:
    """Index of the most probable class and its probability, (S, 2): float32 holds every index below 2^24."""
    probability_S, class_S = logits_SK.float().softmax(1).max(1)
    return torch.stack([class_S.float(), probability_S], 1)


def _row(request: ViewRequest, picture_HWC: Picture, subject: Subject) -> npt.NDArray[Any]:
    arch = architecture(request.arch)
    if is_geometry(request.view):
        return geometry_of(request.view, subject, arch)
    if picture_HWC is None:
        return np.zeros((arch.input_size, arch.input_size, 3), np.uint8)
    return frame_view(request.view, picture_HWC, subject, arch)
