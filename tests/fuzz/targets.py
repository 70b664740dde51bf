"""Everything that reads a file of others, as functions of bytes that end well or with the named error.

A target is made in a folder of its own, the only one that it may touch. Beside it lies ``canary``, to which the seeds'
folders hold symbolic links, and whose files the mutations name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz import annotation_seeds, artefact_seeds, mutations
from fuzz.mutations import Mutation

from ccim_ray.datasets.images import UnreadableImage
from ccim_ray.datasets.videos import UnreadableVideo
from ccim_ray.errors import RequestError

NAMED = (RequestError, UnreadableImage, UnreadableVideo)
LONGEST_MESSAGE = 4000

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        seeds: sound files.
        read: reads a file of these bytes.
        may_crash: whether bytes may end the process, for which the product reads in a process of its own;
            ``in_own_process`` is that way to read.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutations: tuple[Mutation, ...]
    read: Read
    in_own_process: Read | None = None


def outcome(target: Target, data: bytes) -> str:
    """ "read" or "refused"; any other end is raised, and a message that is not one short line is a ValueError."""
    try:
        target.read(data)
    except NAMED as error:
        told = str(error)
        if not told.isprintable() and ("\n" in told or "\r" in told):
            raise ValueError(f"a message of several lines: {told!r}") from error
        if len(told) > LONGEST_MESSAGE:
            raise ValueError(f"a message of {len(told)} characters: {told[:300]!r}...") from error
        return "refused"
    return "read"


def write_canary(folder: Path) -> Path:
    """What no target may touch."""
    canary = folder / "canary"
    canary.mkdir()
    (canary / "secret.txt").write_text("keep out")
    (canary / "secret.png").write_bytes(annotation_seeds.picture())
    return canary


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file below."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


MAKERS: Mapping[str, tuple[Callable[[Path], tuple[tuple[bytes, ...], Read]], tuple[Mutation, ...]]] = {
    "EMOTIC annotations, .mat": (annotation_seeds.emotic_mat, mutations.BYTES),
    "EMOTIC split file": (annotation_seeds.emotic_splits, mutations.TABLE),
    "CAER-S face file": (annotation_seeds.caer_s_faces, mutations.TABLE),
    "CAER-S body boxes": (annotation_seeds.caer_s_bodies, mutations.TABLE),
    "CAER-S split file": (annotation_seeds.caer_s_splits, mutations.TABLE),
    "GroupWalk manifest": (annotation_seeds.groupwalk_manifest, mutations.JSON),
    "boxes.csv": (annotation_seeds.boxes, mutations.TABLE),
    "pictures": (annotation_seeds.pictures, mutations.BYTES),
    "videos": (annotation_seeds.videos, mutations.BYTES),
    "world.json": (annotation_seeds.world_settings, mutations.JSON),
    "world's truth": (annotation_seeds.world_truth, mutations.BYTES),
    "weights, safetensors": (artefact_seeds.imported_safetensors, mutations.SAFETENSORS),
    "weights, .pth": (artefact_seeds.imported_pickle, mutations.ZIP),
    "experiment.json": (artefact_seeds.experiments, mutations.JSON),
    "categories.json": (artefact_seeds.categories, mutations.JSON),
    "subject index": (artefact_seeds.subject_index, mutations.BYTES),
    "feature shard": (artefact_seeds.feature_shard, mutations.BYTES),
    "picture shard": (artefact_seeds.picture_shard, mutations.BYTES),
    "detections": (artefact_seeds.detections, mutations.BYTES),
    "dictionary": (artefact_seeds.dictionary, mutations.SAFETENSORS),
    "journal": (artefact_seeds.journal, mutations.JSON),
    "checkpoint": (artefact_seeds.checkpoint, mutations.ZIP),
    "best weights": (artefact_seeds.best_weights, mutations.SAFETENSORS),
    "result.json": (partial(artefact_seeds.ended, name="result.json"), mutations.JSON),
    "failure.json": (partial(artefact_seeds.ended, name="failure.json"), mutations.JSON),
    "stopped.json": (partial(artefact_seeds.ended, name="stopped.json"), mutations.JSON),
    "ledger.json": (artefact_seeds.ledger, mutations.JSON),
    "rates.json": (artefact_seeds.rates, mutations.JSON),
    "tags from MLflow": (artefact_seeds.logged_runs, mutations.JSON),
    "MLmodel": (artefact_seeds.model_description, mutations.TABLE),
    "trial's archive": (artefact_seeds.trial_archive, mutations.TAR),
}


def make_target(name: str, folder: Path) -> Target:
    """The target in a new folder below ``folder``, beside the canary."""
    maker, of_kind = MAKERS[name]
    root = folder / "root"
    root.mkdir()
    seeds, read = maker(root)
    apart = partial(annotation_seeds.read_emotic_apart, root) if name.startswith("EMOTIC annotations") else None
    return Target(name, seeds, of_kind, read, apart)


SHARES = {"EMOTIC annotations, .mat": 0.5, "videos": 0.2, "world.json": 0.1, "world's truth": 0.1}
"""Of a target's inputs, where one takes tens of milliseconds; 1 of the others."""


def names() -> Iterator[str]:
    """Of all targets."""
    return iter(MAKERS)
