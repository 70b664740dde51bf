"""What trained models make of the same subjects: their features (Fig. 7) and their answers (Fig. 8).

Everything is read from trials that ended and from the inputs that they were trained on; nothing is trained.
Shape suffixes: S subjects, B batch, H joint feature, M feature that the classifier reads, K categories.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from ccim_ray.arrow_files import read_parquet
from ccim_ray.baselines.losses import loss_scale
from ccim_ray.batches import on_device
from ccim_ray.checkpoint import load_weights
from ccim_ray.context_clusters import nearest_prototypes
from ccim_ray.datasets.subject import SUBJECT_SCHEMA, Subject, subjects_from_table
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.plan import Plan, PlannedTrial
from ccim_ray.prepared import TrialInputs, read_shards
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import EVALUATION_BATCH
from ccim_ray.trial import build_recogniser

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InspectedModel:
    """One trial's model on the subjects of one split.

    Attributes:
        joint_SH: the baseline's joint feature h.
        hidden_SM: what the classifier reads: h itself, or what the intervention made of it; float32 both.
        logits_SK: of the categories, float32.
        probabilities_SK: in [0, 1], float32; over the categories they sum to one where a subject has one label.
    """

    setting: str
    seed: int
    joint_SH: Scores
    hidden_SM: Scores
    logits_SK: Scores
    probabilities_SK: Scores

    @property
    def intervenes(self) -> bool:
        """Whether there is anything between h and the classifier."""
        return self.joint_SH.shape != self.hidden_SM.shape or not np.array_equal(self.joint_SH, self.hidden_SM)


class Outcome(Enum):
    """Whom of two models is right about a subject."""

    BOTH = "both right"
    FIRST = "only the first right"
    SECOND = "only the second right"
    NEITHER = "both wrong"


def shared_rows(inputs: Sequence[TrialInputs], split: str) -> npt.NDArray[np.int64]:
    """Rows of the split's subjects that every trial could use. RequestError where there are none."""
    rows = inputs[0].rows(split)
    for others in inputs[1:]:
        rows = np.intersect1d(rows, others.rows(split))
    if len(rows) == 0:
        known = ", ".join(sorted(set(inputs[0].index.splits.tolist())))
        raise RequestError(f"--split {split}: none of its subjects can be used by every model; the data have {known}")
    return rows


@torch.inference_mode()
def inspect_model(planned: PlannedTrial, inputs: TrialInputs, rows: npt.NDArray[np.int64]) -> InspectedModel:
    """Apply the trial's best model to these subjects. RequestError where its files are missing or damaged."""
    trial, index = planned.trial, inputs.index
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights_dir = Path(trial.weights_dir) if trial.weights_dir else None
    recogniser = build_recogniser(trial.experiment, len(index.categories), inputs.dictionary, weights_dir)
    load_weights(Path(trial.paths.folder) / "best.safetensors", recogniser)
    recogniser.to(device).eval()
    kept: dict[str, list[Tensor]] = {"joint": [], "hidden": [], "logits": []}

    def keep_joint(module: nn.Module, args: tuple[Tensor, ...], joint: Tensor | tuple[Tensor, Tensor]) -> None:
        kept["joint"].append((joint[0] if isinstance(joint, tuple) else joint).float().cpu())

    def keep_hidden(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        kept["hidden"].append(args[0].float().cpu())

    recogniser.baseline.register_forward_hook(keep_joint)
    recogniser.classifier.register_forward_pre_hook(keep_hidden)
    batches = (rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH))
    for views, _ in on_device(inputs, batches, device):
        kept["logits"].append(recogniser(views).logits_BK.float().cpu())
    joint_SH, hidden_SM, logits_SK = (torch.cat(parts) for parts in kept.values())
    probabilities_SK = _probabilities(logits_SK, recogniser, trial.experiment, index.multi_label)
    found = (tensor.numpy() for tensor in (joint_SH, hidden_SM, logits_SK, probabilities_SK))
    return InspectedModel(planned.setting, planned.seed, *found)


def _probabilities(logits_SK: Tensor, recogniser: Recogniser, experiment: Experiment, multi_label: bool) -> Tensor:
    if not multi_label:
        return logits_SK.softmax(1)
    scale = recogniser.deconfounder.scale if recogniser.deconfounder else loss_scale(experiment.loss)
    return logits_SK.clamp(0, 1) if scale == "value" else logits_SK.sigmoid()


def scenes_or_clusters(
    plan: Plan, inputs: Sequence[TrialInputs], rows: npt.NDArray[np.int64]
) -> tuple[str, npt.NDArray[np.str_]] | None:
    """What each subject's context is called, and that: "scene" as annotated, else "context cluster", the dictionary's
    nearest prototype; None where neither is known, for no setting has a dictionary."""
    index = inputs[0].index
    if index.scenes is not None:
        return "scene", index.scenes[rows]
    if not plan.dictionaries:
        return None
    planned = plan.dictionaries[0]
    dictionary = next(found.dictionary for found in inputs if found.dictionary is not None)
    features = read_shards(planned.features.folder, index.subject_ids).take(rows)
    return "context cluster", np.array([f"cluster {number}" for number in nearest_prototypes(features, dictionary)])


def is_right(logits_SK: Scores, targets_SK: Scores) -> npt.NDArray[np.bool_]:
    """Whether the answer about each subject is right, (S,).

    Asked for as many categories as a subject has, a model names its most probable ones; it is right where they hold at
    least half of the subject's. With one label that is top-1.
    """
    order_SK = np.argsort(-logits_SK, axis=1, kind="stable")
    rank_SK = np.argsort(order_SK, axis=1, kind="stable")
    labels_S = targets_SK.sum(1)
    named_SK = rank_SK < labels_S[:, None]
    return np.asarray(2 * (named_SK * targets_SK).sum(1) >= labels_S, np.bool_)


def outcomes(first_right_S: npt.NDArray[np.bool_], second_right_S: npt.NDArray[np.bool_]) -> list[Outcome]:
    """Who is right about each subject."""
    of_pair = {
        (True, True): Outcome.BOTH,
        (True, False): Outcome.FIRST,
        (False, True): Outcome.SECOND,
        (False, False): Outcome.NEITHER,
    }
    return [of_pair[pair] for pair in zip(first_right_S.tolist(), second_right_S.tolist(), strict=True)]


def drawn_cases(of_subjects: Sequence[Outcome], count: int, seed: int) -> dict[Outcome, list[int]]:
    """Places of cases drawn at random, as many of those that only the first gets right as of the second's.

    At most ``count`` of each; fewer where one direction has fewer.
    """
    places = {
        outcome: [place for place, found in enumerate(of_subjects) if found is outcome]
        for outcome in (Outcome.SECOND, Outcome.FIRST)
    }
    count = min(count, *map(len, places.values()))
    generator = np.random.default_rng(seed)
    return {outcome: generator.permutation(found)[:count].tolist() for outcome, found in places.items()}


def read_subjects(path: Path, rows: npt.NDArray[np.int64]) -> tuple[Path, list[Subject]]:
    """Folder of the pictures, and the subjects of these rows, from a subject table that trials were trained on.

    Raises RequestError where the table is missing or damaged.
    """
    try:
        table = read_parquet(path, SUBJECT_SCHEMA)
        root = Path(json.loads((table.schema.metadata or {})[b"ccim_ray"])["root"])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"{path} is missing or damaged ({error}); delete it and run again") from error
    return root, list(subjects_from_table(table.take(rows)))


def groups_of(subjects: Sequence[Subject]) -> npt.NDArray[np.str_]:
    """The video, else the image, of each subject: what lies in one is alike in everything."""
    return np.array([subject.video or subject.image for subject in subjects])


def targets_of(labels: npt.NDArray[np.str_]) -> Scores:
    """One-hot (S, K) of single labels, K the labels in alphabetical order."""
    names, number_S = np.unique(labels, return_inverse=True)
    return np.eye(len(names), dtype=np.float32)[number_S]
