"""What a trial is told, and what its folder says of how it ended. Knows no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ccim_ray.checkpoint_records import damaged_record
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.prepared import TrialPaths
from ccim_ray.sealed_files import damage
from ccim_ray.storage import read_json, short_digest

Metrics = dict[str, float]

MODEL_FILES = ("best.safetensors", "experiment.json", "categories.json")
"""Files of a trial's folder that rebuild its model."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        status: "done", or "diverged" where loss or gradient stopped being finite.
        metrics: ``val/...`` and test metrics of the best epoch; empty where the trial diverged.
        best_epoch: epoch, counted from 0, with the best validation metric; None where none was finished.
        epochs: epochs trained.
        diverged_at_step: optimiser step, counted from 0, of the first value that was not finite.
        seconds: time spent training, added up over interruptions.
    """

    status: str
    metrics: Metrics = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int = 0
    diverged_at_step: int | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to ``result.json``, and the digest of all but the time it took."""
        return asdict(self) | {"sha256": self.digest}

    @property
    def digest(self) -> str:
        """Equal for results that are equal, however long they took."""
        return short_digest({name: value for name, value in asdict(self).items() if name != "seconds"})


@dataclass(frozen=True)
class Trial:
    """An experiment with the places of its inputs; everything a worker must be told."""

    experiment: Experiment
    signature: str
    paths: TrialPaths
    weights_dir: str | None = None


def clear_damaged_progress(folder: Path) -> str | None:
    """Remove the progress of an unfinished trial where it is damaged, so that the trial starts anew.

    Returns what was wrong, in words; None where nothing was. Of a trial that another job runs, every file is whole.
    """
    checkpoint, best, journal = (folder / name for name in ("checkpoint.pt", "best.safetensors", "journal.jsonl"))
    wrong = None
    try:
        read_journal(journal)
    except RequestError:
        wrong = f"{journal} is damaged"
    if checkpoint.exists():
        try:
            faults = {checkpoint: damaged_record(checkpoint), best: damage(best) if best.exists() else "it is missing"}
        except FileNotFoundError:
            return None  # the trial has ended meanwhile, in another job
        wrong = next((f"{path} is damaged ({fault})" for path, fault in faults.items() if fault), wrong)
    if wrong:
        for path in (checkpoint, best, journal):
            path.unlink(missing_ok=True)
    return wrong


def read_result(folder: Path) -> TrialResult | None:
    """How a trial ended; None where it has not."""
    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        values = read_json(path)
        written = values.pop("sha256", None)  # none by versions before this one
        result = TrialResult(**values)
        numbers = [*result.metrics.values(), result.epochs, result.seconds]
        if not isinstance(result.status, str) or not all(isinstance(value, int | float) for value in numbers):
            raise TypeError("its status is no text, or a metric no number")
    except (TypeError, AttributeError) as error:
        raise RequestError(f"{path} is no result of a trial ({error}); delete it and run again") from error
    if written not in (None, result.digest):
        raise RequestError(f"{path} is damaged: it does not have the digest that was written; delete it and run again")
    return result


def sound_scores(folder: Path) -> Path:
    """The file of a finished trial's scores. RequestError where it is missing or damaged."""
    path = folder / "scores.safetensors"
    try:
        wrong = damage(path)
    except OSError as error:
        wrong = str(error.strerror or error)
    if wrong:
        raise RequestError(f"{path} is missing or damaged ({wrong}); delete {folder} to train this trial anew")
    return path
