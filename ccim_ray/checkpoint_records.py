"""What the records of a checkpoint are, looked at before torch reads any of them. Knows no torch.

torch.load compares no checksum and trusts what it reads: a file of a kilobyte can make it ask for all memory there is.
A checkpoint that training wrote holds uncompressed records, each tensor's bytes in one of its own, and a pickle of
plain values and tensors. Whatever else is in a file is damage, or was not written by training.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ITEM_BYTES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}

LONGEST_NAME = 1000

MEMO = {"BINPUT", "LONG_BINPUT"}
CONTAINERS = {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
VALUES = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
FILLING = {"MARK", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BUILD"}
CALLING = {"GLOBAL", "BINPERSID", "REDUCE"}
OPCODES = {"PROTO", "STOP", "BINGET", "LONG_BINGET"} | MEMO | CONTAINERS | VALUES | FILLING | CALLING
"""Of torch.save's pickles. Others could ask for memory by a number alone."""


def damaged_record(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where its records are whole, and no larger than they say.

    Takes no more memory than the file is large. Raises OSError where it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as records:
            found = records.infolist()
            unfolding = unfolding_record(path, records)
            if unfolding:
                return unfolding
            first = records.testzip()
            if first:
                return f"{first} does not have its checksum"
            sizes = {record.filename: record.file_size for record in found}
            folders = {name.partition("/")[0] for name in sizes}
            if len(sizes) < len(found) or len(folders) != 1:
                return "its records are not those of one checkpoint"
            (folder,) = folders  # torch.save names it by the file, or "archive" where it writes to memory
            _require_plain(records.read(f"{folder}/data.pkl"), {name.partition("/")[2]: sizes[name] for name in sizes})
    # EOFError has no words, and none would read as sound.
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error, LookupError, OverflowError) as error:
        return str(error) or type(error).__name__
    except (pickle.UnpicklingError, TypeError, AttributeError, MemoryError) as error:
        return f"its description is not one of tensors: {error}"
    return None


def unfolding_record(path: Path, records: zipfile.ZipFile) -> str | None:
    """Which record takes more memory than the file takes disk, in words: torch.save writes none such, and torch.load
    unfolds any.
    """
    size, claimed = path.stat().st_size, 0
    for record in records.infolist():
        claimed += record.file_size
        if record.compress_type != zipfile.ZIP_STORED:
            return f"{record.filename} is compressed"
        if claimed > size:
            return f"{record.filename} claims more bytes than the file has"
    return None


def long_name(pickles: io.BytesIO | mmap.mmap, count: int = 1) -> str | None:
    """What is wrong with the names of classes in the first pickles of a stream, in words; None where all are short.

    torch makes a message of a name that it refuses, and searches that for as long as its length squared.
    """
    try:
        for _ in range(count):
            for opcode, argument, _ in pickletools.genops(pickles):  # type: ignore[arg-type]
                if opcode.name == "GLOBAL" and len(str(argument)) > LONGEST_NAME:
                    return f"it names a class in {len(str(argument))} characters"
    except (EOFError, ValueError, struct.error) as error:
        return f"its pickle ends in the middle: {error}"
    return None


def _require_plain(content: bytes, sizes: dict[str, int]) -> None:
    """Raise unless the pickle describes plain values, and tensors that lie within their records."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in OPCODES or (opcode.name in MEMO and (argument or 0) >= len(content)):
            raise pickle.UnpicklingError(f"{opcode.name} in it")
    described = _Description(content, sizes).load()
    left = len(content)  # every value takes a byte of it, unless lists that hold each other stand for more
    waiting = [described]
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0:
            raise pickle.UnpicklingError("it unfolds to more than it holds")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value


class _Description(pickle.Unpickler):
    """Reads the pickle without torch: a storage is its number of values, a tensor is None."""

    def __init__(self, content: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self._sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _require_within
        if module == "torch" and name in ITEM_BYTES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> int:
        kind, storage, key, _, count = pid
        if kind != "storage" or count * ITEM_BYTES[storage] != self._sizes[f"data/{key}"]:
            raise pickle.UnpicklingError(f"{count} values of {storage} are not what the record {key} holds")
        return int(count)


def _require_within(count: int, offset: int, size: Sequence[int], stride: Sequence[int], *rest: Any) -> None:
    """A tensor that is larger than its storage would be written out where it is copied."""
    if min(offset, *size, *stride, 0) < 0 or offset + math.prod(size) > count:
        raise pickle.UnpicklingError(f"a tensor of {tuple(size)} in a storage of {count} values")
