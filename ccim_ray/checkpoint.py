"""What a trial needs to go on where it stopped, written whole or not at all."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ccim_ray.checkpoint_records import damaged_record
from ccim_ray.errors import RequestError
from ccim_ray.sealed_files import damage, sealed
from ccim_ray.storage import write_durably


@dataclass
class Checkpoint:
    """Progress of a trial beside model and optimiser.

    Schedule, order and random streams are functions of ``epoch`` and the experiment's seed, so they need no
    state of their own.
    """

    epoch: int = 0
    """Epochs finished: the next one to train."""
    best_value: float | None = None
    best_epoch: int | None = None
    stopped: bool = False
    seconds: float = 0.0


def save_checkpoint(path: Path, state: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write progress, model and optimiser, durably."""
    content = {"progress": asdict(state), "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = io.BytesIO()
    torch.save(content, buffer)  # not into the file: of a full disk it says that a position is unexpected
    write_durably(path, buffer.getvalue())  # of getbuffer, a full disk leaves a cycle at which Python 3.12.1 crashes


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Checkpoint | None:
    """Restore model and optimiser in place. None where there is no checkpoint; RequestError where it is damaged."""
    if not path.exists():
        return None
    try:
        wrong = damaged_record(path)
        if wrong:
            raise ValueError(wrong)
        content = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        return Checkpoint(**content["progress"])
    except (
        *(RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, MemoryError, AttributeError),
        pickle.UnpicklingError,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"checkpoint {path} is damaged ({first}); delete {path.parent} to train it anew") from error


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the model's tensors as safetensors, durably."""
    save_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors as safetensors, durably."""
    write_durably(path, sealed(save(tensors)))  # save_file would keep other users from reading it


def load_weights(path: Path, model: nn.Module) -> None:
    """Strictly load what save_weights wrote. Raises RequestError where it is missing, damaged, or does not fit."""
    try:
        wrong = damage(path)
        if wrong:
            raise RuntimeError(wrong)
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = str(error).splitlines()[0]
        raise RequestError(f"weights {path} cannot be loaded: {first}") from error
