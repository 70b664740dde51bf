"""Depth pictures by a program that the user names: TorchScript (.pt) or an exported program (.pt2).

The program's contract: it takes RGB pictures (B, 3, S, S) float32, the whole picture squashed to the square and
normalised by ImageNet's mean and deviation, and returns (B, S', S') or (B, 1, S', S'), larger for nearer. S is what an
exported program was fixed to, else 384. It is called with one picture at a time.

Both kinds of file are programs, and running one is to trust it as any code. TorchScript is interpreted by torch, which
unpickles data alone. Loading an exported program evaluates the symbolic expressions in it; its tensors are read with
``weights_only``, and one that holds pickled Python objects is refused.

Shape suffixes: H height, W width, C colour channels (RGB), S side of the program's input, S' sides of its output.
"""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccim_ray.datasets.images import ImageArray, resize
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import IMAGENET_MEAN, IMAGENET_STD

DEFAULT_SIDE = 384
CONSTANT = "the depth model gives the same depth everywhere"

_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_PYTHON_OBJECTS = ("custom_obj_", "opaque_obj_")
_TORCHSCRIPT, _EXPORTED = "TorchScript program (torch.jit.save)", "exported program (torch.export.save)"
_PROGRAM_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError)
"""What torch raises where a program cannot take its input; guards of exported programs are assertions."""


class DepthModel:
    """A program that is ready to make depth pictures.

    Args:
        path: a ``.pt`` or ``.pt2`` file.
        device: where it runs.

    Raises:
        RequestError: the file holds no such program, or one with another input.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        load = _load_exported if path.suffix == ".pt2" else _load_torchscript
        self._program, self.side = load(path, device)
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    def picture(self, image_HWC: ImageArray) -> ImageArray | None:
        """Depth of a picture (H, W, 3) uint8 RGB from 0, the farthest in it, to 255: (S', S', 3) uint8, channels equal.

        None where the depth is the same everywhere. Raises RequestError where the program fails or returns anything
        else than the contract says.
        """
        depth = self._depth(image_HWC)
        low, high = float(depth.min()), float(depth.max())
        if low == high:
            return None
        grey = np.round((depth.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

    @torch.no_grad()
    def _depth(self, image_HWC: ImageArray) -> np.ndarray:
        pixels = torch.from_numpy(resize(image_HWC, self.side)).to(self._device)
        input_1CSS = (pixels.permute(2, 0, 1)[None].float() / 255 - self._mean) / self._std
        try:
            found = self._program(input_1CSS.contiguous())
        except _PROGRAM_ERRORS as error:
            advice = "; export it with the size that it takes" if self.side == DEFAULT_SIDE else ""
            taken = f"(1, 3, {self.side}, {self.side}) float32"
            raise RequestError(f"--depth-model {self._path} fails on {taken}: {_line(error)}{advice}") from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else None
        if shape is None or shape[:-2] not in ((1,), (1, 1)):
            returned = f"a tensor {shape}" if shape is not None else f"a {type(found).__name__}"
            raise RequestError(
                f"--depth-model {self._path} returns {returned} for one picture, expected a tensor (1, height, width) "
                "or (1, 1, height, width): wrap the model and export it again"
            )
        depth: np.ndarray = found.float().cpu().numpy().reshape(shape[-2:])
        if not depth.size or not np.isfinite(depth).all():
            raise RequestError(f"--depth-model {self._path} returns depths that are not finite; check its weights")
        return depth


def check_depth_model(path: Path) -> None:
    """Load the program and run it once on a small picture. RequestError as ``DepthModel``."""
    DepthModel(path, torch.device("cpu")).picture(np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3))


def _load_torchscript(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Any], int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, and models are still in it
            program = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise _not_a_program(path, _TORCHSCRIPT, error) from error
    return program.eval(), DEFAULT_SIDE


def _load_exported(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Any], int]:
    _refuse_python_objects(path)
    try:
        with _tensors_alone():
            program = torch.export.load(path)
    except Exception as error:  # of whatever kind: torch reads the file, and it is the file that is wrong
        raise _not_a_program(path, _EXPORTED, error) from error
    side = _side_of(path, program)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module(), side


def _refuse_python_objects(path: Path) -> None:
    """torch.export.load would unpickle them, without any limit on what they run."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name).name for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise _not_a_program(path, _EXPORTED, error) from error
    if any(name.startswith(_PYTHON_OBJECTS) for name in names):
        raise RequestError(f"--depth-model {path} holds pickled Python objects; export a model of tensors alone")


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """torch.export.load falls back to unrestricted pickles, and logs the traceback of what it then raises."""
    before, logger = os.environ.get(_FORCE_WEIGHTS_ONLY), logging.getLogger("torch.export")
    disabled = logger.disabled
    os.environ[_FORCE_WEIGHTS_ONLY], logger.disabled = "1", True
    try:
        yield
    finally:
        logger.disabled = disabled
        if before is None:
            del os.environ[_FORCE_WEIGHTS_ONLY]
        else:
            os.environ[_FORCE_WEIGHTS_ONLY] = before


def _side_of(path: Path, program: torch.export.ExportedProgram) -> int:
    """S that the program was exported with, DEFAULT_SIDE where it takes any."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [tuple(node.meta["val"].shape) for node in inputs]
    # A dimension that may vary is no int, but a symbol.
    batch, colours, *sides = shapes[0] if len(shapes) == 1 and len(shapes[0]) == 4 else (0, 0)
    fixed = {side for side in sides if isinstance(side, int)}
    fits = (not isinstance(batch, int) or batch == 1) and (not isinstance(colours, int) or colours == 3)
    if not sides or not fits or len(fixed) > 1:
        raise RequestError(
            f"--depth-model {path} takes {', '.join(map(str, shapes)) or 'no tensor'}, expected one tensor "
            "(1, 3, S, S): export it for one square picture"
        )
    return fixed.pop() if fixed else DEFAULT_SIDE


def _not_a_program(path: Path, kind: str, error: Exception) -> RequestError:
    return RequestError(f"--depth-model {path} is no {kind}: {_line(error)}")


def _line(error: Exception) -> str:
    """The line of an error that says most: torch puts it last, behind the program's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split(". ")[0][:200] if lines else type(error).__name__
