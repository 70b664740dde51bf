"""Which head trials can be trained as one stack, and doing so: each ends with the files that a trial of its own has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ccim_ray.checkpoint import save_weights
from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal
from ccim_ray.prepared import TrialInputs, TrialPaths
from ccim_ray.recogniser import Recogniser
from ccim_ray.stacked_training import VariantProgress, train_stacked
from ccim_ray.storage import only_process, write_json
from ccim_ray.training import Process, seed_of, test_splits
from ccim_ray.trial import begin_folder, build_recogniser
from ccim_ray.trial_folder import Trial, TrialResult, read_result

LARGEST_STACK = 16
"""Most variants of a stack: what a killed grid trains again, and what its gradients and batches take of the GPU."""


def stacks_of(trials: Sequence[Trial], largest: int = LARGEST_STACK) -> list[list[Trial]]:
    """The trials in groups that can be trained as one: those that read the same and differ in seed or P(z) alone.

    EMOT-Net alone is stacked, without deconfounders that have losses of their own. A trial that would go on from a
    checkpoint stays by itself, as does one that is compiled.
    """
    found: dict[tuple[object, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        experiment, paths = trial.experiment, trial.paths
        key: tuple[object, ...] = (trial.signature,)
        if (
            experiment.trainable == "head"
            and experiment.baseline == "emot_net"
            and experiment.deconfounder in ("none", "projection", "ccim")
            and not experiment.compile
            and not (Path(paths.folder) / "checkpoint.pt").exists()
        ):
            shape = experiment.with_changes(seed=0, ccim__use_prior=True).model_dump_json()
            key = (shape, paths.subjects, *sorted(paths.views.items()), paths.dictionary)
        found[key].append(trial)
    return [group[start : start + largest] for group in found.values() for start in range(0, len(group), largest)]


def run_stack(trials: Sequence[Trial], process: Process, read: Callable[[TrialPaths], TrialInputs]) -> dict[str, str]:
    """Train one group of ``stacks_of`` from its beginning; those that have ended meanwhile are left as they are.

    ``result.json`` is written last for each. Returns why trials failed while they were tested, by signature. Raises
    RequestError for inputs that are missing or damaged.
    """
    failed: dict[str, str] = {}
    with ExitStack() as locks:
        for trial in sorted(trials, key=lambda trial: trial.paths.folder):
            locks.enter_context(only_process(Path(trial.paths.folder) / ".lock"))
        waiting = [trial for trial in trials if read_result(Path(trial.paths.folder)) is None]
        if not waiting:
            return failed
        inputs = read(waiting[0].paths)
        recognisers = []
        for trial in waiting:
            begin_folder(Path(trial.paths.folder), trial.experiment, inputs, process.device)
            torch.manual_seed(seed_of(trial.experiment.seed, -1, 0))
            recognisers.append(build_recogniser(trial.experiment, len(inputs.index.categories), inputs.dictionary))
        found = train_stacked([trial.experiment for trial in waiting], inputs, recognisers, process.device)
        for trial, recogniser, progress in zip(waiting, recognisers, found, strict=True):
            try:
                _write_end(Path(trial.paths.folder), inputs, recogniser, progress, process.device)
            except RequestError as error:
                failed[trial.signature] = str(error)
    return failed


def _write_end(
    folder: Path, inputs: TrialInputs, recogniser: Recogniser, progress: VariantProgress, device: torch.device
) -> None:
    with Journal(folder / "journal.jsonl") as journal:
        journal.rewind(-1)
        journal.extend(progress.lines)
    if progress.best:
        recogniser.load_state_dict(progress.best | _kept(recogniser, progress))
        save_weights(folder / "best.safetensors", recogniser)
    epochs = len(progress.lines)
    if progress.diverged_at_step is not None:
        at = progress.diverged_at_step
        result = TrialResult("diverged", epochs=epochs, diverged_at_step=at, seconds=progress.seconds)
    else:
        final = test_splits(recogniser.to(device), inputs, folder, device)
        result = TrialResult("done", final, progress.best_epoch, epochs, None, progress.seconds)
    write_json(folder / "result.json", result.as_dict())


def _kept(recogniser: Recogniser, progress: VariantProgress) -> dict[str, torch.Tensor]:
    """The recogniser's tensors that training does not change: the dictionary and its prior."""
    return {name: of for name, of in recogniser.state_dict().items() if name not in progress.best}
