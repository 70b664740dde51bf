"""Published weights in the layouts they are downloaded in, turned into one safetensors file with provenance.

Shape suffixes: H height, W width, C colour channels (RGB), D feature dimensions.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccim_ray.checkpoint_records import long_name, unfolding_record
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import architecture
from ccim_ray.perception.backbones import build_network
from ccim_ray.perception.detection import assemble_detector, build_detector, fixed_outputs
from ccim_ray.perception.weight_files import DETECTOR_FILES, PRETRAINING_OUTPUTS, require_available, stored_path
from ccim_ray.perception.weights import assemble_backbone, read_safetensors, read_weights
from ccim_ray.sealed_files import DIGEST, sealed
from ccim_ray.storage import atomic_path

CHECKED_FEATURES = 8
TOLERANCE = 1e-3
"""Of the forward check, absolute and relative; processors and library versions differ by far less."""

ZIP_START = b"PK\x03\x04"
OLD_PICKLE_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Every file that torch.save wrote before version 1.6 begins with this number as a pickle."""
OLD_PICKLES = 5
"""That number, the version, facts about the machine, what was saved, and the keys of the tensors' bytes that follow."""

OTHER_FRAMEWORKS = {".caffemodel": "Caffe", ".t7": "Torch7", ".h5": "Keras"}
"""Places365 is published for these too; Caffe's networks differ, so that no renaming would do."""

TENSOR_KINDS = ("weight", "bias", "running_mean", "running_var")
"""In the order in which a layer holds them."""
COUNTER = "num_batches_tracked"

DETECTOR_PICTURE = 224
"""Side in pixels of the picture that checks a detector; it resizes pictures itself."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class ImportedWeights:
    """What was written.

    Attributes:
        path: the safetensors file.
        provenance: the file's metadata: source, its sha256, how it was read, layout, architecture, weights,
            input transform, package versions and forward check, all as text.
    """

    path: Path
    provenance: dict[str, str]


@dataclass(frozen=True)
class _Download:
    """Content of a downloaded file; ``arch`` is the architecture it names, if any."""

    state: State
    form: str
    arch: str | None = None


def import_weights(
    source: Path,
    arch: str,
    weights: str,
    weights_dir: Path | None = None,
    *,
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> ImportedWeights:
    """Write ``<weights_dir>/<arch>_<weights>.safetensors``, which ``load_backbone`` reads, from ``source``.

    A detector's weights "coco", which ``load_detector`` reads, are taken under torchvision's names alone.

    Layouts: torchvision's names, with or without ``module.`` before or within them; an nn.Sequential with numeric
    names; VGG's layers by their research names (``conv1_1`` ... ``fc8a``). The last two are mapped by order.
    Batch counters that an old file lacks become 0. All values are stored as float32.

    Args:
        allow_pickle: run the code in a pickle that holds more than tensors.
        overwrite: replace an existing file.

    Raises:
        RequestError: the file is missing, truncated, no weights file, of another network or number of outputs, or a
            pickle that would run code; the target exists or cannot be written.
    """
    target = _target(arch, weights, weights_dir, overwrite)
    sha256 = source_sha256(source)
    download = _read_download(source, sha256, allow_pickle)
    if download.arch is not None and download.arch.lower() != arch:
        raise RequestError(f"{source} says that it holds {download.arch}, not {arch}: give --arch {download.arch}")
    state, layout = to_torchvision_names(download.state, arch, PRETRAINING_OUTPUTS.get(weights), source)
    features_D = _fixed_features(arch, weights, state, str(source))
    if not torch.isfinite(features_D).all():
        raise RequestError(f"{source} gives features that are not finite: download it again")
    provenance = {
        "source": source.name,
        "source_sha256": sha256,
        "form": download.form,
        "layout": layout,
        "architecture": arch,
        "weights": weights,
        "input_transform": _input_transform(arch, documented="conv1_1" not in layout),
        "versions": ", ".join(f"{package} {version(package)}" for package in ("ccim_ray", "torch", "torchvision")),
        "forward_check": " ".join(f"{value:.7g}" for value in features_D[:CHECKED_FEATURES].tolist()),
    }
    with atomic_path(target) as temporary:
        # save_file would keep other users from reading it.
        temporary.write_bytes(sealed(save(state, metadata=provenance)))
        check_import(temporary)
    return ImportedWeights(target, provenance)


def check_import(path: Path) -> None:
    """Compute the features of the fixed picture again, with the weights in ``path``, an imported file.

    Raises:
        RequestError: they differ from those stored at the import, or the file is damaged, unreadable or has none.
    """
    provenance = read_provenance(path)
    arch, weights = provenance["architecture"], provenance["weights"]
    features_D = _fixed_features(arch, weights, read_weights(path, arch, weights), source=str(path))
    expected = torch.tensor([float(value) for value in provenance["forward_check"].split()])
    found = features_D[:CHECKED_FEATURES]
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise RequestError(
            f"{path} fails its forward check: features {_listed(found.tolist())} where {_listed(expected.tolist())} "
            "were stored at the import; import the weights again with --overwrite"
        )


def read_provenance(path: Path) -> dict[str, str]:
    """Metadata of an imported file, as ``ImportedWeights.provenance``; RequestError where it holds none."""
    try:
        with safe_open(path, framework="pt") as file:
            provenance: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path} is not a readable safetensors file ({error}): import it again") from error
    if not {"architecture", "weights", "forward_check"} <= provenance.keys():
        raise RequestError(f"{path} holds no provenance: write it with jobs/import_weights.py")
    provenance.pop(DIGEST, None)
    return provenance


def to_torchvision_names(
    state: State, arch: str, num_outputs: int | None, source: Path
) -> tuple[dict[str, Tensor], str]:
    """The tensors under torchvision's names, float32 and contiguous, with batch counters; and the layout found.

    A detector's outputs are COCO's, and ``num_outputs`` None; its normalisation is frozen and has no counters.
    RequestError, which names ``source``, where one is missing, left over or of another shape.
    """
    with torch.device("meta"):
        network = build_detector(arch) if num_outputs is None else build_network(arch, num_outputs)
    expected: State = network.state_dict()
    unwrapped = {re.sub(r"(^|\.)module\.", r"\1", name): name for name in state}
    if num_outputs is None:
        layout, pairs = "torchvision's names", _pairs_by_name(unwrapped, expected, arch, source)
    elif all(name[:1].isdigit() for name in unwrapped):
        layout, pairs = "nn.Sequential with numeric names, mapped by order", _pairs_by_order(unwrapped, expected)
    elif any(name.startswith("features.conv1_1.") for name in unwrapped):
        layout, pairs = "layers conv1_1 ... fc8a, mapped by order", _pairs_by_order(unwrapped, expected)
    else:
        layout, pairs = "torchvision's names", _pairs_by_name(unwrapped, expected, arch, source)
    _require_fit(pairs, state, expected, arch, num_outputs, source)
    tensors, wanted = _without_counters(unwrapped), _without_counters(expected)
    if len(tensors) != len(wanted):
        raise RequestError(
            f"{source} holds {len(tensors)} tensors where {arch} has {len(wanted)}: "
            "give the --arch that it was trained as"
        )
    if list(unwrapped) != list(unwrapped.values()):
        layout += ", module. removed"
    found = {name: _stored(state[source_name]) for source_name, name in pairs}
    counters = [name for name in expected if name not in found]
    if counters:
        layout += f", {len(counters)} batch counters set to 0"
    found |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
    return {name: found[name] for name in expected}, layout


def _pairs_by_order(unwrapped: Mapping[str, str], expected: State) -> list[tuple[str, str]]:
    # The numbers in the names give the order of the layers; safetensors files keep no order of their own.
    def place(name: str) -> tuple[list[int], int]:
        layer, _, kind = name.rpartition(".")
        numbers = [int(number) for number in re.findall(r"\d+", layer)]
        return numbers, TENSOR_KINDS.index(kind) if kind in TENSOR_KINDS else len(TENSOR_KINDS)

    ordered = sorted(_without_counters(unwrapped), key=place)
    return [(unwrapped[name], target) for name, target in zip(ordered, _without_counters(expected), strict=False)]


def _pairs_by_name(unwrapped: Mapping[str, str], expected: State, arch: str, source: Path) -> list[tuple[str, str]]:
    missing = [name for name in expected if name not in unwrapped and not name.endswith(COUNTER)]
    unknown = [name for name in unwrapped if name not in expected and not name.endswith(COUNTER)]
    if missing or unknown:
        found = " and ".join(
            f"{verb} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            for verb, names in (("lacks", missing), ("has the unknown", unknown))
            if names
        )
        raise RequestError(f"{source} does not hold {arch}: it {found}; give the --arch that it was trained as")
    return [(unwrapped[name], name) for name in expected if name in unwrapped]


def _require_fit(
    pairs: Iterable[tuple[str, str]],
    state: State,
    expected: State,
    arch: str,
    num_outputs: int | None,
    source: Path,
) -> None:
    for source_name, name in pairs:
        shape, wanted = tuple(state[source_name].shape), tuple(expected[name].shape)
        if shape == wanted and source_name.rpartition(".")[2] == name.rpartition(".")[2]:
            continue
        is_head = num_outputs is not None and name.startswith(architecture(arch).head)
        if is_head and wanted[:1] == (num_outputs,) and shape[1:] == wanted[1:]:
            raise RequestError(
                f"{source} has {shape[0]} outputs ({source_name}) where {num_outputs} are wanted: "
                "give the --weights that it was trained as"
            )
        raise RequestError(
            f"{source} does not hold {arch}: its {source_name} {shape} is not {name} {wanted}; "
            "give the --arch that it was trained as"
        )


def _without_counters(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(COUNTER)]


def _stored(tensor: Tensor) -> Tensor:
    # Copied, because safetensors refuses tensors that share memory.
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _target(arch: str, weights: str, weights_dir: Path | None, overwrite: bool) -> Path:
    require_available(arch, weights)
    if arch not in DETECTOR_FILES and weights not in PRETRAINING_OUTPUTS:
        raise RequestError(f"--weights {weights}: only {' and '.join(PRETRAINING_OUTPUTS)} are read from a file")
    target = stored_path(arch, weights, weights_dir)
    if target.exists() and not overwrite:
        raise RequestError(f"{target} exists: give --overwrite to replace it")
    return target


def source_sha256(source: Path) -> str:
    """64 hexadecimal digits, to compare with the publisher's. RequestError where the file cannot be read."""
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"{source} cannot be read ({error.strerror or error}): name the downloaded file") from error


def _read_download(source: Path, sha256: str, allow_pickle: bool) -> _Download:
    with source.open("rb") as file:
        start = file.read(len(OLD_PICKLE_START))
    if start[8:9] == b"{":
        return _Download(_require_state(read_safetensors(source), source), "safetensors")
    if not start.startswith((ZIP_START, OLD_PICKLE_START)):
        framework = OTHER_FRAMEWORKS.get(source.suffix)
        remedy = f"it is a file of {framework}; take the one for PyTorch" if framework else "download it again"
        raise RequestError(
            f"{source} (sha256 {sha256}) is no weights file: neither safetensors nor written by torch.save; {remedy}"
        )
    if start.startswith(ZIP_START):
        _refuse_records(source)
    else:
        _refuse_long_names(source)
    content, form = _unpickle(source, sha256, allow_pickle)
    if isinstance(content, Mapping) and "state_dict" in content:
        arch = content.get("arch")
        state = _require_state(content["state_dict"], source)
        return _Download(state, f"checkpoint with state_dict, {form}", arch if isinstance(arch, str) else None)
    return _Download(_require_state(content, source), f"state dict, {form}")


def _refuse_records(source: Path) -> None:
    try:
        with zipfile.ZipFile(source) as records:
            wrong = unfolding_record(source, records)
            for name in records.namelist():
                if not wrong and name.endswith("data.pkl"):
                    wrong = long_name(io.BytesIO(records.read(name)))
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, struct.error, OSError) as error:
        raise _unreadable(source, error) from error
    if wrong:
        raise _unreadable(source, ValueError(wrong))


def _refuse_long_names(source: Path) -> None:
    try:
        # Mapped, for of an open file as many bytes would be asked for as the pickle claims.
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            wrong = long_name(mapped, OLD_PICKLES)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    if wrong:
        raise _unreadable(source, ValueError(wrong))


def _unpickle(source: Path, sha256: str, allow_pickle: bool) -> tuple[Any, str]:
    try:
        with warnings.catch_warnings():
            # Strings that Python 2 pickled are bytes, and latin1 reads any. torch heeds it, though it warns.
            warnings.filterwarnings("ignore", message="pickle_load_args")
            content = torch.load(source, map_location="cpu", weights_only=True, encoding="latin1")
        return content, "read without running code"
    except (pickle.UnpicklingError, UnicodeDecodeError) as error:
        refusal = error
    except Exception as error:  # the bytes of the file decide what torch raises
        raise _unreadable(source, error) from error
    if not allow_pickle:
        needed = re.search(r"GLOBAL (\S+)", str(refusal))
        raise RequestError(
            f"{source} (sha256 {sha256}) holds more than tensors{f' ({needed[1]})' if needed else ''}: reading it "
            "means running code from the file; if this is the publisher's sha256, give --allow-pickle"
        ) from refusal
    try:
        # The only pickle in the project that may run code: a checkpoint of 2017 may hold objects that weights_only
        # refuses, such as a score of numpy, and be published in no other form. Its user has seen the sha256.
        content = torch.load(source, map_location="cpu", weights_only=False, encoding="latin1")
    except Exception as error:  # code from the file can raise anything
        raise _unreadable(source, error) from error
    return content, "a pickle whose code was run (--allow-pickle)"


def _unreadable(source: Path, error: Exception) -> RequestError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RequestError(f"{source} cannot be read, it may be truncated ({first[:200]}): download it again")


def _require_state(state: Any, source: Path) -> State:
    if not isinstance(state, Mapping) or not state:
        raise RequestError(f"{source} holds a {type(state).__name__}, not tensors by name: save its state_dict")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise RequestError(f"{source} holds a {type(value).__name__} as {name!r} where a state dict has tensors")
    return state


def _fixed_features(arch: str, weights: str, state: State, source: str) -> Tensor:
    if arch in DETECTOR_FILES:
        return fixed_outputs(assemble_detector(arch, state, source), _fixed_picture(DETECTOR_PICTURE))
    backbone = assemble_backbone(arch, weights, state, source).eval()
    with torch.no_grad():
        features: Tensor = backbone(backbone.normalise(_fixed_picture(backbone.input_size).unsqueeze(0)))[0]
    return features


def _fixed_picture(side: int) -> Tensor:
    # By integer arithmetic: the same picture on every machine, with edges and all brightnesses.
    row_H11, column_1W1 = torch.arange(side).view(-1, 1, 1), torch.arange(side).view(1, -1, 1)
    picture_HWC = (row_H11 * 7 + column_1W1 * 3 + row_H11 * column_1W1 // 16 + torch.arange(3) * 80) % 256
    return picture_HWC.to(torch.uint8)


def _input_transform(arch: str, documented: bool) -> str:
    if arch in DETECTOR_FILES:
        return "RGB in 0..1; the network itself resizes and normalises"
    of = architecture(arch)
    text = (
        f"RGB in 0..1, resize to {of.resize_to} x {of.resize_to}, centre crop of {of.input_size}, "
        f"mean {of.mean}, standard deviation {of.std}"
    )
    return text if documented else f"{text} (assumed: its source does not say whether RGB or BGR; try known pictures)"


def _listed(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
