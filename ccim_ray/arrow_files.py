"""Parquet and Arrow files read as data: a column's type is compared before any value is made of it. Knows no torch.

Ray Data registers a type of columns whose values are pickles, and unpickles what it is asked for. And a file of a few
bytes may hold columns that unfold to any size: compressed, as runs of one value, or as numbers of a long text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

MOST_BYTES = 1 << 26
MOST_TIMES = 50
"""What is read takes at most MOST_BYTES of memory and MOST_TIMES the size of its file; ours take a tenth of that."""

ROWS_AT_ONCE = 64

ARROW_MAGIC = b"ARROW1\0\0"
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
"""Kinds of messages."""


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema``, null where the file lacks one that may be, with the metadata of the file.

    Raises:
        pyarrow.ArrowException, OSError: it is missing or damaged, a column is missing or of another type, or it unfolds
            to more than a sound file would.
    """
    most = MOST_BYTES + MOST_TIMES * path.stat().st_size
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = file.schema_arrow
        require_types(found, schema)
        _require_claims(file.metadata, most)
        names = [name for name in schema.names if name in found.names]
        batches = _within(file.iter_batches(ROWS_AT_ONCE, columns=names), most)
        fields = [field for field in schema if field.name in found.names]
        table = pa.Table.from_batches(batches, pa.schema(fields)) if batches else pa.schema(fields).empty_table()
        if len(table) != file.metadata.num_rows:  # where a damaged list of row groups is shorter
            raise pa.ArrowInvalid(f"it holds {len(table)} of the {file.metadata.num_rows} rows that it claims")
    for place, field in enumerate(schema):
        if field.name not in found.names:
            table = table.add_column(place, field, pa.nulls(len(table), field.type))
    return table.replace_schema_metadata(found.metadata)


def _within(batches: Iterable[pa.RecordBatch], most: int) -> list[pa.RecordBatch]:
    """All of them; ArrowInvalid as soon as they take more bytes than that."""
    kept: list[pa.RecordBatch] = []
    taken = 0
    for batch in batches:
        taken += batch.nbytes
        if taken > most:
            raise pa.ArrowInvalid(f"it unfolds to more than {most >> 20} MB")
        kept.append(batch)
    return kept


def require_types(found: pa.Schema, expected: pa.Schema) -> None:
    """ArrowInvalid where a column that may not be null is missing, or one is of another type."""
    for field in expected:
        if field.name not in found.names and not field.nullable:
            raise pa.ArrowInvalid(f"it has no column {field.name}")
        if field.name in found.names and found.field(field.name).type != field.type:
            raise pa.ArrowInvalid(f"its column {field.name} is of the type {found.field(field.name).type}")


def require_tensors(found: pa.Schema, columns: Sequence[str], others: pa.Schema) -> None:
    """ArrowInvalid where a column that is not one of the others holds no tensors of one shape.

    Those take as much memory as their type says; of texts and lists a file could hold one, and name it a million times.
    """
    for name in columns:
        if name not in others.names and not isinstance(found.field(name).type, pa.FixedShapeTensorType):
            raise pa.ArrowInvalid(f"its column {name} is of the type {found.field(name).type}")


def read_stored_parquet(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Columns of a file that is neither compressed nor has dictionaries: it takes as much memory as it takes disk.

    Raises as ``read_parquet``.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        require_types(file.schema_arrow, schema)
        require_tensors(file.schema_arrow, columns, schema)
        size = path.stat().st_size
        _require_claims(file.metadata, size)
        row = sum(_width(field.type) for field in file.schema_arrow if field.name in columns)
        if file.metadata.num_rows * row > size:
            raise pa.ArrowInvalid(f"it is too small for the {file.metadata.num_rows} rows that it claims")
        texts = [name for name in columns if name in schema.names]
        _within(file.iter_batches(ROWS_AT_ONCE, columns=texts), MOST_BYTES + MOST_TIMES * size)
        return file.read(columns=columns).select(columns)


def read_mapped_arrow(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Columns of an Arrow file whose bytes stay on disk until they are used. Raises as ``read_parquet``."""
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
    if content[: len(ARROW_MAGIC)].to_pybytes() != ARROW_MAGIC:
        raise pa.ArrowInvalid("it is no Arrow file")
    batches = pa.ipc.open_file(content).num_record_batches  # which says of a file without its end that it is damaged
    # Read as the stream that it holds, for the offsets at its end might lead to messages that nobody has looked at.
    stream = content.slice(len(ARROW_MAGIC))
    for message in pa.ipc.MessageReader.open_stream(stream):
        if _unfolds(message.metadata):
            raise pa.ArrowInvalid("it is compressed, or has a dictionary")
    with pa.ipc.open_stream(stream) as reader:
        require_types(reader.schema, schema)
        require_tensors(reader.schema, columns, schema)
        table = reader.read_all()
    if reader.stats.num_record_batches != batches:
        raise pa.ArrowInvalid(f"it holds {reader.stats.num_record_batches} batches of the {batches} at its end")
    return table.select(columns)


def _unfolds(metadata: pa.Buffer) -> bool:
    """Whether a message is a dictionary, or compressed: its third field is a header, a record batch's fourth the way.

    Neither is to be had from pyarrow before it has unfolded the message. The layout is that of FlatBuffers.
    """
    data = metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Where the field is; 0 for one that is left out."""
        vtable = table - struct.unpack_from("<i", data, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        return table + offset if offset else 0

    try:
        root: int = struct.unpack_from("<I", data, 0)[0]
        header = field(root, 2)
        kind = struct.unpack_from("<B", data, field(root, 1))[0]
        return kind == DICTIONARY_BATCH or (
            kind == RECORD_BATCH and field(header + struct.unpack_from("<I", data, header)[0], 3) != 0
        )
    except struct.error as error:
        raise pa.ArrowInvalid("a message in it is damaged") from error


def _require_claims(metadata: pq.FileMetaData, most: int) -> None:
    """ArrowInvalid where the columns say to take more bytes once they are unfolded.

    What a column says of itself is not asked for: of damaged bytes pyarrow ends the process.
    """
    claimed = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if claimed > most:
        raise pa.ArrowInvalid(f"it unfolds to more than {most >> 20} MB")


def _width(of: pa.DataType) -> int:
    """Bytes of a row's value in memory, at least."""
    if isinstance(of, pa.FixedShapeTensorType):
        return int(of.storage_type.list_size) * int(of.value_type.bit_width) // 8
    return 1 if of == pa.string() else 0
