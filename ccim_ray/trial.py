"""One trial as a plain function of (experiment, inputs): builds the model, trains it, writes what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch

from ccim_ray.baselines.registry import build_baseline, inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.deconfounders.card import CLUSTER
from ccim_ray.deconfounders.registry import build_deconfounder, deconfounder_card
from ccim_ray.environment import environment_tags
from ccim_ray.experiment import BackboneSettings, Experiment
from ccim_ray.intervention import CCIM, Projection
from ccim_ray.perception.architectures import architecture
from ccim_ray.perception.backbones import Backbone, build_backbone
from ccim_ray.perception.weights import load_backbone
from ccim_ray.prepared import TrialInputs, TrialPaths
from ccim_ray.recogniser import Recogniser
from ccim_ray.storage import only_process, write_json
from ccim_ray.training import ALONE, Process, train
from ccim_ray.trial_folder import Metrics, Trial, TrialResult, read_result


def build_recogniser(
    experiment: Experiment,
    num_categories: int,
    dictionary: ConfounderDictionary | None,
    weights_dir: Path | None = None,
) -> Recogniser:
    """The untrained model of an experiment: trunks only where they are trained too."""
    trunks = None
    if experiment.trainable == "all":
        order = torch.channels_last if experiment.channels_last else torch.contiguous_format
        trunks = {name: _trunk(used, weights_dir).lay_out(order) for name, used in experiment.trunks.items()}
    return assemble_recogniser(experiment, num_categories, dictionary, trunks)


def assemble_recogniser(
    experiment: Experiment,
    num_categories: int,
    dictionary: ConfounderDictionary | None,
    trunks: Mapping[str, Backbone] | None,
) -> Recogniser:
    """The untrained model of an experiment around these trunks; None where it reads their features."""
    feature_dims = {name: architecture(trunk.arch).feature_dim for name, trunk in experiment.trunks.items()}
    options = experiment.baseline_options
    baseline = build_baseline(experiment.baseline, feature_dims, num_categories, options)
    joint_dim: int = baseline.joint_dim  # type: ignore[assignment]  # a member of every baseline
    chosen = experiment.ccim
    intervention: CCIM | Projection | None = None
    if experiment.deconfounder == "projection":
        intervention = Projection(joint_dim, chosen.output_dim)
    elif experiment.deconfounder == "ccim":
        assert dictionary is not None
        intervention = CCIM(
            joint_dim=joint_dim,
            dictionary=dictionary,
            output_dim=chosen.output_dim,
            attention_dim=chosen.attention_dim,
            attention=chosen.attention,
            use_lambda=chosen.use_lambda,
            use_prior=chosen.use_prior,
            context_weights=chosen.context_weights,
        )
    inputs = inputs_of(experiment.baseline, options)
    context_dim = architecture(experiment.backbone.arch).feature_dim
    deconfounder = build_deconfounder(experiment.deconfounder, num_categories, experiment.loss, dictionary, context_dim)
    return Recogniser(baseline, inputs, num_categories, intervention, trunks, deconfounder)


def blank_dictionary(experiment: Experiment) -> ConfounderDictionary | None:
    """A dictionary of the experiment's size, for a model whose weights are read later, or never."""
    if not deconfounder_card(experiment.deconfounder).uses_dictionary:
        return None
    return ConfounderDictionary.random(experiment.dictionary.size, architecture(experiment.backbone.arch).feature_dim)


def fit_deconfounder(recogniser: Recogniser, inputs: TrialInputs) -> None:
    """Let the deconfounder estimate what it needs on the train split."""
    if recogniser.deconfounder is not None and CLUSTER in inputs.views:
        rows = inputs.rows("train")
        cluster_M = torch.from_numpy(inputs.views[CLUSTER].take(rows))
        recogniser.deconfounder.fit(cluster_M, torch.from_numpy(inputs.index.targets[rows]))


def _trunk(settings: BackboneSettings, weights_dir: Path | None) -> Backbone:
    if settings.weights == "random":
        return build_backbone(settings.arch)  # from torch's generator: another start for every seed
    return load_backbone(settings.arch, settings.weights, weights_dir)


def run_trial(
    trial: Trial,
    process: Process = ALONE,
    on_epoch: Callable[[int, Metrics], None] = lambda epoch, metrics: None,
    read: Callable[[TrialPaths], TrialInputs] = TrialPaths.read,
    checkpoint_seconds: float = 0.0,
) -> TrialResult:
    """Train one trial, or go on with it; rank 0 writes ``result.json`` last, whose presence means "done".

    Args:
        read: gives the inputs; ``ResidentInputs.read`` keeps them for the process's next trial.
        checkpoint_seconds: shortest time between two checkpoints; 0 writes one after every epoch.

    Raises RequestError for inputs that are missing or damaged.
    """
    folder = Path(trial.paths.folder)
    # Two jobs that want the same trial do not train it side by side: the second waits, and finds it done.
    with only_process(folder / ".lock") if process.rank == 0 else nullcontext():
        ended = read_result(folder)
        # Another job may have trained it meanwhile, or this process died after it had written the result.
        return ended or _train_and_write(trial, folder, process, on_epoch, read, checkpoint_seconds)


def _train_and_write(
    trial: Trial,
    folder: Path,
    process: Process,
    on_epoch: Callable[[int, Metrics], None],
    read: Callable[[TrialPaths], TrialInputs],
    checkpoint_seconds: float,
) -> TrialResult:
    inputs = read(trial.paths)
    weights_dir = Path(trial.weights_dir) if trial.weights_dir else None
    experiment = trial.experiment

    def build() -> Recogniser:
        recogniser = build_recogniser(experiment, len(inputs.index.categories), inputs.dictionary, weights_dir)
        fit_deconfounder(recogniser, inputs)
        return recogniser

    if process.rank == 0:
        begin_folder(folder, experiment, inputs, process.device)
    result = train(experiment, inputs, build, folder, process, on_epoch, checkpoint_seconds)
    if process.rank == 0:
        write_json(folder / "result.json", result.as_dict())
        (folder / "checkpoint.pt").unlink(missing_ok=True)  # nothing is left to go on with
    return result


def begin_folder(folder: Path, experiment: Experiment, inputs: TrialInputs, device: torch.device) -> None:
    """Write what is known before the training: where it runs, and what rebuilds the model."""
    for half_written in folder.glob(".*.tmp"):  # by a process that was killed
        half_written.unlink(missing_ok=True)
    for earlier_end in ("failure.json", "stopped.json"):
        (folder / earlier_end).unlink(missing_ok=True)
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    tags = environment_tags(gpus, experiment.plug_ins()) | {"ccim.device": device.type}
    write_json(folder / "environment.json", tags)
    describe_model(folder, experiment, inputs.index.categories, inputs.index.multi_label)


def describe_model(folder: Path, experiment: Experiment, categories: tuple[str, ...], multi_label: bool) -> None:
    """Write what rebuilds the model beside its weights: ``experiment.json`` and ``categories.json``."""
    write_json(folder / "experiment.json", experiment.model_dump(mode="json"))
    write_json(folder / "categories.json", {"names": categories, "multi_label": multi_label})


def threads_of_a_trial() -> None:
    """One thread on CPUs: trials run side by side, and sums in a fixed order make results repeatable."""
    torch.set_num_threads(1)
