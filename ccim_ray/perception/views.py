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

from ccim_ray.datasets.images import UnreadableImage, read_rgb
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest, architecture, frame_view
from ccim_ray.perception.backbones import Backbone
from ccim_ray.perception.weights import load_backbone

FORWARD_BATCH = 64


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

    def make(
        self, subjects: Sequence[dict[str, Any]], wanted: Sequence[int]
    ) -> tuple[list[npt.NDArray[Any]], list[str | None]]:
        """Rows of each wanted request (by number), and for each subject None or why its image is unusable.

        Unusable subjects get rows of zeros. ``subjects`` are rows with ``image`` and ``body_box``. Raises
        RequestError where a backbone returns a value that is not finite.
        """
        requests = [self._requests[number] for number in wanted]
        pictures: list[list[npt.NDArray[np.uint8]]] = [[] for _ in requests]
        reasons: list[str | None] = []
        path, image_HWC, reason = None, None, None
        for subject in subjects:
            if subject["image"] != path:  # subjects of one image follow each other: decode it once
                path, (image_HWC, reason) = subject["image"], self._read(subject["image"])
            reasons.append(reason)
            for request, made in zip(requests, pictures, strict=True):
                arch = architecture(request.arch)
                if image_HWC is None:
                    made.append(np.zeros((arch.input_size, arch.input_size, 3), np.uint8))
                else:
                    made.append(frame_view(request.view, image_HWC, tuple(subject["body_box"]), arch))
        rows = [self._rows(request, np.stack(made)) for request, made in zip(requests, pictures, strict=True)]
        unusable = np.array([reason is not None for reason in reasons])
        for array in rows:
            array[unusable] = 0
        return rows, reasons

    def _read(self, image: str) -> tuple[npt.NDArray[np.uint8] | None, str | None]:
        try:
            return read_rgb(self._root / image), None
        except UnreadableImage as error:
            return None, str(error)

    @torch.inference_mode()
    def _rows(self, request: ViewRequest, pictures_SHWC: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        if request.weights is None:
            return pictures_SHWC
        backbone = self._backbones[request.arch, request.weights, request.output]
        made = []
        for start in range(0, len(pictures_SHWC), FORWARD_BATCH):
            batch = backbone.normalise(torch.from_numpy(pictures_SHWC[start : start + FORWARD_BATCH]).to(self._device))
            rows = _most_probable(backbone.outputs(batch)) if request.output == "scene" else backbone(batch)
            made.append(rows.float().cpu().numpy())
        rows_SD = np.concatenate(made)
        if not np.isfinite(rows_SD).all():
            raise RequestError(f"{request.title}: the backbone returned a value that is not finite; check its weights")
        return rows_SD


def _most_probable(logits_SK: torch.Tensor) -> torch.Tensor:
    """Index of the most probable class and its probability, (S, 2): float32 holds every index below 2^24."""
    probability_S, class_S = logits_SK.float().softmax(1).max(1)
    return torch.stack([class_S.float(), probability_S], 1)
