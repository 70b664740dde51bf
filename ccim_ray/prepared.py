"""What the preparing stages leave on disk for a trial, and how a trial reads it.

Shape suffixes: S subjects, K categories, D feature, H height, W width, C colour.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from ccim_ray.arrow_files import read_mapped_arrow, read_parquet, read_stored_parquet
from ccim_ray.datasets.dataset import Dataset, split_rank
from ccim_ray.datasets.subject import (
    COUNTERFACTUAL,
    SUBJECT_SCHEMA,
    agents_of,
    factual_rows_of,
    scenes_of,
    subjects_from_table,
    subjects_to_table,
)
from ccim_ray.deconfounders.card import CLUSTER, CONTEXT_FEATURES
from ccim_ray.errors import RequestError
from ccim_ray.storage import atomic_path

if TYPE_CHECKING:
    from ccim_ray.confounders import ConfounderDictionary

Array = npt.NDArray[Any]
Held = TypeVar("Held")
SHARD_COLUMNS = ["subject_id", "reason", "rows"]
_TEXTS_OF_SHARDS = pa.schema([(name, pa.string()) for name in SHARD_COLUMNS[:2]])
DIGEST = b"sha256"


@dataclass(frozen=True)
class ViewRows:
    """One view of every subject: features (S, D) float32, geometry (S, rows, coordinates) float32, maps (S, D, H, W)
    float16 or pictures (S, H, W, C) uint8.

    Attributes:
        shards: arrays whose rows follow the dataset's subjects; maps and pictures stay memory-mapped.
        reasons: for each row, None or why its image could not be used.
    """

    shards: tuple[Array, ...]
    reasons: tuple[str | None, ...]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(len(shard) for shard in self.shards)])

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shards[0].shape[1:]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Rows in the order asked for, copied."""
        if len(self.shards) == 1:
            return np.ascontiguousarray(self.shards[0][rows])
        taken = np.empty((len(rows), *self.row_shape), self.shards[0].dtype)
        shard_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shard_of_row):
            here = shard_of_row == shard
            taken[here] = self.shards[shard][rows[here] - self._starts[shard]]
        return taken


@dataclass(frozen=True)
class SubjectIndex:
    """Splits and labels of a dataset's subjects, as trials need them; the last three as subject.py gives them."""

    subject_ids: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    targets: npt.NDArray[np.float32]
    categories: tuple[str, ...]
    multi_label: bool
    agents: npt.NDArray[np.str_] | None = None
    scenes: npt.NDArray[np.str_] | None = None
    factual_rows: npt.NDArray[np.int64] | None = None

    @property
    def metric(self) -> str:
        """The paper's metric: "mAP" or "accuracy"."""
        return "mAP" if self.multi_label else "accuracy"

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits whose name starts with "test"."""
        found = {name for name in self.splits.tolist() if name.startswith("test")}
        return tuple(sorted(found, key=split_rank))


def write_subject_index(dataset: Dataset, path: Path) -> None:
    """Write the dataset's subjects with what is needed to read them back without the dataset."""
    facts = json.dumps(
        {"categories": dataset.categories, "multi_label": dataset.multi_label, "root": str(dataset.root)}
    )
    table = subjects_to_table(dataset.subjects)
    metadata = {b"ccim_ray": facts.encode(), DIGEST: _index_digest(facts, table.schema)}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, write_page_checksum=True)


def read_subject_index(path: Path) -> SubjectIndex:
    """Read what write_subject_index wrote. Raises RequestError where it is missing, damaged or of another form."""
    try:
        return _subject_index(path)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} is missing or damaged ({error!r}); delete it and run again") from error


def _subject_index(path: Path) -> SubjectIndex:
    table = read_parquet(path, SUBJECT_SCHEMA)
    metadata = table.schema.metadata or {}
    written = metadata.get(DIGEST)  # none by versions before this one
    if written and written != _index_digest(metadata[b"ccim_ray"].decode(), pq.read_schema(path)):
        raise ValueError("it does not have the digest that was written")
    facts = json.loads(metadata[b"ccim_ray"])
    categories = tuple(facts["categories"])
    column = {name: k for k, name in enumerate(categories)}
    subjects = subjects_from_table(table)
    targets_SK = np.zeros((len(subjects), len(categories)), np.float32)
    for row, subject in enumerate(subjects):
        for label in subject.labels:
            targets_SK[row, column[label]] = 1.0
    return SubjectIndex(
        subject_ids=tuple(subject.subject_id for subject in subjects),
        splits=np.array([subject.split for subject in subjects]),
        targets=targets_SK,
        categories=categories,
        multi_label=facts["multi_label"],
        agents=agents_of(subjects),
        scenes=scenes_of(subjects),
        factual_rows=factual_rows_of(subjects),
    )


def _index_digest(facts: str, schema: pa.Schema) -> bytes:
    """Of what the checksums of the pages do not cover."""
    columns = schema.to_string(show_field_metadata=False, show_schema_metadata=False)
    columns = columns.replace("item: ", "element: ")  # Parquet's name of what a list holds, which pyarrow then reads
    return hashlib.sha256(f"{facts}\n{columns}".encode()).hexdigest().encode()


def write_shard(path: Path, subject_ids: list[str], rows: Array, reasons: list[str | None]) -> None:
    """Write one shard atomically: ``.parquet`` for small rows, ``.arrow`` (memory-mappable) for maps and pictures."""
    rows = np.ascontiguousarray(rows)
    columns = pa.table(
        {
            "subject_id": pa.array(subject_ids, pa.string()),
            "reason": pa.array(reasons, pa.string()),
            "rows": pa.FixedShapeTensorArray.from_numpy_ndarray(rows),
        }
    ).replace_schema_metadata({DIGEST: _shard_digest(subject_ids, reasons, [rows])})
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(columns, temporary, compression="none", use_dictionary=False, write_page_checksum=True)
        else:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
                writer.write_table(columns)


def read_reasons(folder: Path, subject_ids: tuple[str, ...]) -> tuple[str | None, ...]:
    """Why each subject's image could not be used, or None; reads no rows. Raises as read_shards."""
    reasons: list[str | None] = []
    found: list[str] = []
    for path in sorted(folder.glob("shard-*")):
        table = read_shard(path, ["subject_id", "reason"])
        reasons += table["reason"].to_pylist()
        found += table["subject_id"].to_pylist()
    _require_subjects(folder, found, subject_ids)
    return tuple(reasons)


def read_shards(folder: Path, subject_ids: tuple[str, ...]) -> ViewRows:
    """Read all shards of a view. Raises RequestError where a shard is damaged or rows are missing."""
    arrays: list[Array] = []
    reasons: list[str | None] = []
    found: list[str] = []
    for path in sorted(folder.glob("shard-*")):
        table = read_shard(path)
        arrays += [chunk.to_numpy_ndarray() for chunk in table["rows"].chunks]
        reasons += table["reason"].to_pylist()
        found += table["subject_id"].to_pylist()
    _require_subjects(folder, found, subject_ids)
    if arrays[0].ndim < 4:  # small rows
        arrays = [np.concatenate(arrays)]
    return ViewRows(tuple(arrays), tuple(reasons))


def _require_subjects(folder: Path, found: list[str], subject_ids: tuple[str, ...]) -> None:
    if tuple(found) != subject_ids:
        raise RequestError(
            f"{folder} holds {len(found)} rows that do not match the {len(subject_ids)} subjects; "
            "delete it and run again"
        )


def read_shard(path: Path, columns: list[str] = SHARD_COLUMNS) -> pa.Table:
    """Columns of a shard; rows of an ``.arrow`` file stay memory-mapped.

    Raises RequestError where it is damaged, which is compared with the digest in it where all columns are read.
    """
    try:
        read = read_stored_parquet if path.suffix == ".parquet" else read_mapped_arrow
        table = read(path, _TEXTS_OF_SHARDS, columns)
        written = (table.schema.metadata or {}).get(DIGEST)  # none by versions before this one
        table.validate(full=True)  # damaged offsets would be followed to anywhere
        if written and columns == SHARD_COLUMNS:
            rows = [chunk.to_numpy_ndarray() for chunk in table["rows"].chunks]
            if written != _shard_digest(table["subject_id"].to_pylist(), table["reason"].to_pylist(), rows):
                raise ValueError("it does not have the digest that was written")
        return table
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise RequestError(f"{path} is damaged ({error}); delete it and run again") from error


def _shard_digest(subject_ids: list[str], reasons: list[str | None], parts: Sequence[Array]) -> bytes:
    described = json.dumps([subject_ids, reasons, *(f"{part.dtype} {part.shape[1:]}" for part in parts[:1])])
    digest = hashlib.sha256(described.encode())
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest().encode()


@dataclass(frozen=True)
class TrialInputs:
    """Everything a trial learns from."""

    index: SubjectIndex
    views: dict[str, ViewRows]
    dictionary: ConfounderDictionary | None

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of the split's subjects whose image was usable in every view."""
        usable = self.index.splits == split
        for view in self.views.values():
            usable = usable & np.array([reason is None for reason in view.reasons])
        return np.flatnonzero(usable)

    def counterfactuals(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Which of these rows are seen in another scene too, by their place in ``rows``, and the rows where they are.

        None where nobody is; a counterfactual whose image is unusable does not count.
        """
        if self.index.factual_rows is None:
            return None
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        counterfactual_rows = self.rows(COUNTERFACTUAL)
        factual = self.index.factual_rows[counterfactual_rows].tolist()
        seen = np.array([row in place_of for row in factual], bool)
        places_P = np.array([place_of[row] for row in factual if row in place_of], np.int64)
        return (places_P, counterfactual_rows[seen]) if seen.any() else None

    def context_groups(self, rows: npt.NDArray[np.int64]) -> list[Hashable] | None:
        """The context that each of these rows is in: its scene where that is known, else its cluster, else None."""
        if self.index.scenes is not None:
            return list(self.index.scenes[rows].tolist())
        return list(self.views[CLUSTER].take(rows).tolist()) if CLUSTER in self.views else None


@dataclass(frozen=True)
class TrialPaths:
    """Where a trial's inputs lie; plain strings, so that it travels to any worker."""

    folder: str
    subjects: str
    views: dict[str, str]
    dictionary: str | None
    context: str | None = None
    """The masked context's features, where a deconfounder reads something that is made from them."""
    context_inputs: tuple[str, ...] = ()
    """What that is: names of ``deconfounders.card``."""

    def read(self) -> TrialInputs:
        """Read the inputs. Raises RequestError for missing or damaged files."""
        return ResidentInputs().read(self)


class ResidentInputs:
    """Inputs that stay in memory, for trials that follow each other in one process: no file is read twice."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, ...], Any] = {}

    def read(self, paths: TrialPaths) -> TrialInputs:
        """The inputs of a trial. Raises RequestError for missing or damaged files."""
        from ccim_ray.confounders import ConfounderDictionary  # torch: not needed to plan

        index = self._once(lambda: read_subject_index(Path(paths.subjects)), paths.subjects)
        views = {name: self._rows(folder, paths.subjects, index) for name, folder in paths.views.items()}
        file = paths.dictionary
        dictionary = self._once(lambda: ConfounderDictionary.load(Path(file)), file) if file else None
        if paths.context:
            features = self._rows(paths.context, paths.subjects, index)
            key = (paths.context, paths.subjects, file or "", *paths.context_inputs)
            views |= self._once(lambda: _context_views(features, dictionary, paths.context_inputs), *key)
        return TrialInputs(index, views, dictionary)

    def _rows(self, folder: str, subjects: str, index: SubjectIndex) -> ViewRows:
        return self._once(lambda: read_shards(Path(folder), index.subject_ids), folder, subjects)

    def _once(self, read: Callable[[], Held], *key: str) -> Held:
        if key not in self._held:
            self._held[key] = read()
        held: Held = self._held[key]
        return held


def _context_views(
    features: ViewRows, dictionary: ConfounderDictionary | None, names: Sequence[str]
) -> dict[str, ViewRows]:
    """Every subject's row of what a deconfounder reads."""
    from ccim_ray.context_clusters import nearest_prototypes

    made: dict[str, ViewRows] = {}
    if CONTEXT_FEATURES in names:
        made[CONTEXT_FEATURES] = features
    if CLUSTER in names:
        assert dictionary is not None
        cluster_S = nearest_prototypes(features.take(np.arange(len(features))), dictionary)
        made[CLUSTER] = ViewRows((cluster_S,), features.reasons)
    return made
