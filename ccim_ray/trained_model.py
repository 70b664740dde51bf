"""A trained recogniser as it was logged: rebuilt from its folder, applied to new persons.

Views are made by the code that prepares training, so a person gets the scores that a trial would compute. The files are
safetensors and JSON: reading them runs no code of whoever made them.

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

from ccim_ray.baselines.losses import Scale, loss_scale
from ccim_ray.baselines.registry import inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.images import UnreadableImage, read_size
from ccim_ray.datasets.subject import Box, Subject
from ccim_ray.deconfounders.card import CONTEXT_FEATURES
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.intervention import CCIM
from ccim_ray.perception.architectures import Output, View, ViewRequest, is_geometry
from ccim_ray.perception.backbones import build_backbone
from ccim_ray.perception.views import ViewMaker
from ccim_ray.persons import Person, subjects_of
from ccim_ray.recogniser import Recogniser
from ccim_ray.sealed_files import damage
from ccim_ray.storage import read_json
from ccim_ray.trial import assemble_recogniser, blank_dictionary
from ccim_ray.trial_folder import MODEL_FILES

PREDICTION_BATCH = 64


@dataclass(frozen=True)
class TrainedModel:
    """What makes the views, and the recogniser in evaluation mode.

    Attributes:
        inputs: name of each input of the recogniser, in the order in which ``maker`` makes them.
    """

    experiment: Experiment
    categories: tuple[str, ...]
    multi_label: bool
    recogniser: Recogniser
    maker: ViewMaker
    inputs: tuple[str, ...]
    device: torch.device

    @property
    def views(self) -> frozenset[View]:
        """What the baseline reads of a person."""
        return views_of(self.experiment)

    def predict(self, images: Sequence[Path], boxes: Sequence[Box]) -> npt.NDArray[np.float32]:
        """``predict_persons`` of persons of whom the picture and the box are known."""
        persons = [Person(image=str(path), box=box) for path, box in zip(images, boxes, strict=True)]
        return self.predict_persons(persons)

    def predict_persons(self, persons: Sequence[Person]) -> npt.NDArray[np.float32]:
        """Scores in [0, 1], (S, K) float32: softmax for single-label models, clipped or sigmoid outputs else.

        Raises UnreadableImage for an image that cannot be read, RequestError for a box outside its image or where the
        model reads what is not known of these persons.
        """
        sizes = {image: read_size(Path(image)) for image in dict.fromkeys(person.image for person in persons)}
        subjects: list[Subject] = []
        for person, subject in zip(persons, subjects_of(persons, sizes), strict=True):
            if subject is None:
                where = f"{person.image}: the box {person.box} does not lie in the image"
                raise RequestError(f"{where}; give pixels x1 y1 x2 y2")
            subjects.append(subject)
        scores_SK, reasons = self.score(subjects)
        for subject, reason in zip(subjects, reasons, strict=True):
            if reason:
                raise UnreadableImage(Path(subject.image), reason)
        return scores_SK

    @torch.inference_mode()
    def score(self, subjects: Sequence[Subject]) -> tuple[npt.NDArray[np.float32], list[str | None]]:
        """Scores as ``predict_persons`` gives them, and for each subject None or why its row holds no scores.

        Raises RequestError where a subject has no depth picture though the model reads one.
        """
        made = [np.zeros((0, len(self.categories)), np.float32)]
        reasons: list[str | None] = []
        for start in range(0, len(subjects), PREDICTION_BATCH):
            batch = subjects[start : start + PREDICTION_BATCH]
            rows, of_inputs = self.maker.make(batch, range(len(self.inputs)))
            views = {name: torch.from_numpy(row).to(self.device) for name, row in zip(self.inputs, rows, strict=True)}
            made.append(self._probabilities(self.recogniser(views).logits_BK.float()).cpu().numpy())
            reasons += [next(filter(None, of_subject), None) for of_subject in zip(*of_inputs, strict=True)]
        return np.concatenate(made), reasons

    def _probabilities(self, logits_SK: torch.Tensor) -> torch.Tensor:
        if not self.multi_label:
            return logits_SK.softmax(1)
        # Trained to reach 0 and 1 themselves, or their logits.
        return logits_SK.clamp(0, 1) if self._scale == "value" else logits_SK.sigmoid()

    @property
    def _scale(self) -> Scale:
        deconfounder = self.recogniser.deconfounder
        return deconfounder.scale if deconfounder else loss_scale(self.experiment.loss)


def views_of(experiment: Experiment) -> frozenset[View]:
    """What the experiment's baseline reads of a person."""
    return frozenset(item.view for item in inputs_of(experiment.baseline, experiment.baseline_options))


def load_trained(
    folder: Path,
    weights_dir: Path | None = None,
    *,
    root: Path = Path(),
    device: torch.device | None = None,
    depth_model: Path | None = None,
) -> TrainedModel:
    """Rebuild the model of a trial folder or of a downloaded MLflow model.

    Frozen trunks are not stored with it: they are loaded by name. Raises RequestError where a file is missing or
    damaged.

    Args:
        root: folder that images of subjects are relative to.
        device: where it runs; None takes the CPU.
        depth_model: program that makes depth pictures; None takes those that subjects name.
    """
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise RequestError(f"{folder} holds no trained model: {', '.join(missing)} missing")
    experiment = Experiment.parse(read_json(folder / "experiment.json"))
    facts = read_json(folder / "categories.json")
    device = device or torch.device("cpu")
    recogniser = _recogniser(folder / "best.safetensors", experiment, len(facts["names"]))
    requests = view_requests(experiment, depth_model)
    maker = ViewMaker(root, list(requests.values()), weights_dir, device)
    return TrainedModel(
        experiment=experiment,
        categories=tuple(facts["names"]),
        multi_label=facts["multi_label"],
        recogniser=recogniser.eval().to(device),
        maker=maker,
        inputs=tuple(requests),
        device=device,
    )


def view_requests(experiment: Experiment, depth_model: Path | None = None) -> dict[str, ViewRequest]:
    """What the recogniser reads, by the name of its input: features for a head, pictures where trunks were trained."""
    requests: dict[str, ViewRequest] = {}
    for item in inputs_of(experiment.baseline, experiment.baseline_options):
        if is_geometry(item.view):
            # Regions are boxes in the context picture as its trunk takes it.
            requests[item.view] = ViewRequest(item.view, experiment.trunks.get("context", experiment.backbone).arch)
            continue
        trunk = experiment.trunks[item.view]
        weights = trunk.weights if experiment.trainable == "head" else None
        of_depth = str(depth_model) if depth_model and item.view == "depth" else None
        output: Output = "map" if weights and item.form == "map" else "features"
        requests[item.view] = ViewRequest(item.view, trunk.arch, weights, output, of_depth)
    if CONTEXT_FEATURES in deconfounder_card(experiment.deconfounder).trains_with:
        phi = experiment.backbone
        requests[CONTEXT_FEATURES] = ViewRequest(experiment.context_view, phi.arch, phi.weights)
    return requests


def _recogniser(weights: Path, experiment: Experiment, num_categories: int) -> Recogniser:
    try:
        wrong = damage(weights)
        if wrong:
            raise OSError(wrong)
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{weights} is damaged ({error}); delete {weights.parent} to train it anew") from error
    dictionary = blank_dictionary(experiment)
    if experiment.deconfounder == "ccim":
        dictionary = ConfounderDictionary(state["ccim.dictionary_ND"], state["ccim.prior_N"], {})
    trunks = None
    if experiment.trainable == "all":  # stored with the model: what they were trained from need not be there
        order = torch.channels_last if experiment.channels_last else torch.contiguous_format
        trunks = {name: build_backbone(used.arch).lay_out(order) for name, used in experiment.trunks.items()}
    recogniser = assemble_recogniser(experiment, num_categories, dictionary, trunks)
    try:
        recogniser.load_state_dict(state)
    except RuntimeError as error:
        mismatch = " ".join(str(error).split())[:300]
        raise RequestError(f"{weights} does not hold the model that experiment.json describes: {mismatch}") from error
    if isinstance(recogniser.ccim, CCIM):
        recogniser.ccim = recogniser.ccim.folded()  # it only predicts from here on
    return recogniser
