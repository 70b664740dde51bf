"""A trained recogniser as it was logged: rebuilt from its folder, applied to new images.

Shape suffixes: S subjects, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.images import read_rgb
from ccim_ray.datasets.subject import Box, clip_box
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import View, architecture, frame_view
from ccim_ray.perception.backbones import Backbone
from ccim_ray.perception.weights import load_backbone
from ccim_ray.recogniser import Recogniser
from ccim_ray.storage import read_json
from ccim_ray.trial import build_recogniser
from ccim_ray.trial_folder import MODEL_FILES

PREDICTION_BATCH = 64


@dataclass(frozen=True)
class TrainedModel:
    """Views, frozen trunks where there are any, and the recogniser, in evaluation mode on the CPU."""

    experiment: Experiment
    categories: tuple[str, ...]
    multi_label: bool
    recogniser: Recogniser
    trunks: dict[str, Backbone]

    @torch.inference_mode()
    def predict(self, images: Sequence[Path], boxes: Sequence[Box]) -> npt.NDArray[np.float32]:
        """Scores in [0, 1], (S, K) float32: softmax for single-label models, clipped or sigmoid outputs else.

        Raises UnreadableImage for an image that cannot be read, RequestError for a box outside its image.
        """
        scores = [np.zeros((0, len(self.categories)), np.float32)]
        for start in range(0, len(images), PREDICTION_BATCH):
            batch = slice(start, start + PREDICTION_BATCH)
            scores.append(self._scores(self._views(images[batch], boxes[batch])))
        return np.concatenate(scores)

    def _views(self, images: Sequence[Path], boxes: Sequence[Box]) -> dict[str, torch.Tensor]:
        pictures: dict[View, list[npt.NDArray[np.uint8]]] = {view: [] for view in self._arches}
        for path, box in zip(images, boxes, strict=True):
            image_HWC = read_rgb(path)
            clipped = clip_box(box, image_HWC.shape[1], image_HWC.shape[0])
            if clipped is None:
                raise RequestError(f"{path}: the box {box} does not lie in the image; give pixels x1 y1 x2 y2")
            for view, arch in self._arches.items():
                pictures[view].append(frame_view(view, image_HWC, clipped, architecture(arch)))
        return {view: torch.from_numpy(np.stack(of_view)) for view, of_view in pictures.items()}

    def _scores(self, inputs: dict[str, torch.Tensor]) -> npt.NDArray[np.float32]:
        if self.trunks:
            inputs = {view: self.trunks[view](self.trunks[view].normalise(inputs[view])) for view in inputs}
        logits_SK = self.recogniser(inputs)
        if not self.multi_label:
            scores_SK = logits_SK.softmax(1)
        elif self.experiment.loss == "weighted_mse":  # trained to reach 0 and 1 themselves
            scores_SK = logits_SK.clamp(0, 1)
        else:
            scores_SK = logits_SK.sigmoid()
        probabilities_SK: npt.NDArray[np.float32] = scores_SK.float().numpy()
        return probabilities_SK

    @property
    def _arches(self) -> dict[View, str]:
        return {"context": self.experiment.trunks.context.arch, "body": self.experiment.trunks.body.arch}


def load_trained(folder: Path, weights_dir: Path | None = None) -> TrainedModel:
    """Rebuild the model of a trial folder or of a downloaded MLflow model.

    Frozen trunks are not stored with it: they are loaded by name. Raises RequestError where a file is missing.
    """
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise RequestError(f"{folder} holds no trained model: {', '.join(missing)} missing")
    experiment = Experiment.parse(read_json(folder / "experiment.json"))
    facts = read_json(folder / "categories.json")
    try:
        state = load_file(folder / "best.safetensors")
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{folder / 'best.safetensors'} is damaged ({error})") from error
    dictionary = None
    if experiment.deconfounder == "ccim":
        dictionary = ConfounderDictionary(state["ccim.dictionary_ND"], state["ccim.prior_N"], {})
    recogniser = build_recogniser(experiment, len(facts["names"]), dictionary, weights_dir)
    recogniser.load_state_dict(state)
    recogniser.eval()
    trunks: dict[str, Backbone] = {}
    if experiment.trainable == "head":
        settings = {"context": experiment.trunks.context, "body": experiment.trunks.body}
        trunks = {name: load_backbone(trunk.arch, trunk.weights, weights_dir) for name, trunk in settings.items()}
    return TrainedModel(experiment, tuple(facts["names"]), facts["multi_label"], recogniser, trunks)
