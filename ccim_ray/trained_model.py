"""A trained recogniser as it was logged: rebuilt from its folder, applied to new images.

Shape suffixes: S subjects, K categories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ccim_ray.baselines.card import Input
from ccim_ray.baselines.losses import Scale, loss_scale
from ccim_ray.baselines.registry import inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.images import read_rgb
from ccim_ray.datasets.subject import Box, Subject, clip_box
from ccim_ray.deconfounders.card import CONTEXT_FEATURES
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.experiment import BackboneSettings, Experiment
from ccim_ray.perception.architectures import architecture, frame_view, is_geometry
from ccim_ray.perception.backbones import Backbone
from ccim_ray.perception.geometry import geometry_of
from ccim_ray.perception.weights import load_backbone
from ccim_ray.recogniser import Recogniser
from ccim_ray.storage import read_json
from ccim_ray.trial import blank_dictionary, build_recogniser
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
    context_backbone: Backbone | None = None
    """phi of the masked context's features, where the deconfounder reads them at test too."""

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
        made: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        for path, box in zip(images, boxes, strict=True):
            image_HWC = read_rgb(path)
            subject = _subject(path, box, image_HWC.shape[1], image_HWC.shape[0])
            for item in self._inputs:
                arch = architecture(self.experiment.trunks.get(item.view, self._context).arch)
                if is_geometry(item.view):
                    made[item.view].append(geometry_of(item.view, subject, arch))
                else:
                    made[item.view].append(frame_view(item.view, image_HWC, subject, arch))
            if self.context_backbone:
                arch = architecture(self.experiment.backbone.arch)
                made[CONTEXT_FEATURES].append(frame_view(self.experiment.context_view, image_HWC, subject, arch))
        return {view: torch.from_numpy(np.stack(of_view)) for view, of_view in made.items()}

    def _scores(self, inputs: dict[str, torch.Tensor]) -> npt.NDArray[np.float32]:
        for item in self._inputs:
            if item.form != "geometry" and self.trunks:
                trunk = self.trunks[item.view]
                inputs[item.view] = trunk.features(trunk.normalise(inputs[item.view]), item.form)
        if self.context_backbone:
            pictures = self.context_backbone.normalise(inputs[CONTEXT_FEATURES])
            inputs[CONTEXT_FEATURES] = self.context_backbone.features(pictures, "pooled")
        logits_SK = self.recogniser(inputs).logits_BK
        if not self.multi_label:
            scores_SK = logits_SK.softmax(1)
        elif self._scale == "value":  # trained to reach 0 and 1 themselves
            scores_SK = logits_SK.clamp(0, 1)
        else:
            scores_SK = logits_SK.sigmoid()
        probabilities_SK: npt.NDArray[np.float32] = scores_SK.float().numpy()
        return probabilities_SK

    @cached_property
    def _inputs(self) -> tuple[Input, ...]:
        return inputs_of(self.experiment.baseline, self.experiment.baseline_options)

    @property
    def _scale(self) -> Scale:
        deconfounder = self.recogniser.deconfounder
        return deconfounder.scale if deconfounder else loss_scale(self.experiment.loss)

    @property
    def _context(self) -> BackboneSettings:
        return self.experiment.trunks.get("context", self.experiment.backbone)


def _subject(path: Path, box: Box, width: int, height: int) -> Subject:
    clipped = clip_box(box, width, height)
    if clipped is None:
        raise RequestError(f"{path}: the box {box} does not lie in the image; give pixels x1 y1 x2 y2")
    return Subject(
        subject_id=str(path),
        image=str(path),
        width=width,
        height=height,
        split="test",
        body_box=clipped,
        labels=(),
        box_source="user",
    )


def load_trained(folder: Path, weights_dir: Path | None = None) -> TrainedModel:
    """Rebuild the model of a trial folder or of a downloaded MLflow model.

    Frozen trunks are not stored with it: they are loaded by name. Raises RequestError where a file is missing, or
    the model reads depth pictures, of which a new image has none.
    """
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise RequestError(f"{folder} holds no trained model: {', '.join(missing)} missing")
    experiment = Experiment.parse(read_json(folder / "experiment.json"))
    if "depth" in experiment.trunks:
        raise RequestError(f"{folder}: this model reads depth pictures; predict with a variant that reads none")
    facts = read_json(folder / "categories.json")
    try:
        state = load_file(folder / "best.safetensors")
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{folder / 'best.safetensors'} is damaged ({error})") from error
    dictionary = blank_dictionary(experiment)
    if experiment.deconfounder == "ccim":
        dictionary = ConfounderDictionary(state["ccim.dictionary_ND"], state["ccim.prior_N"], {})
    recogniser = build_recogniser(experiment, len(facts["names"]), dictionary, weights_dir)
    recogniser.load_state_dict(state)
    recogniser.eval()
    trunks: dict[str, Backbone] = {}
    if experiment.trainable == "head":
        trunks = {
            name: load_backbone(trunk.arch, trunk.weights, weights_dir) for name, trunk in experiment.trunks.items()
        }
    phi = None
    if CONTEXT_FEATURES in deconfounder_card(experiment.deconfounder).trains_with:
        phi = load_backbone(experiment.backbone.arch, experiment.backbone.weights, weights_dir)
    return TrainedModel(experiment, tuple(facts["names"]), facts["multi_label"], recogniser, trunks, phi)
