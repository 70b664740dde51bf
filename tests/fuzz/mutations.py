"""Damage to files: of bytes, of what stands in text and JSON, and of the members of archives, by a seed."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

LONGEST = 1 << 17
"""Bytes of a mutated input."""

NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, float("nan"), float("inf")),
    *(
        "",
        " ",
        "0",
        "nan",
        "null",
        "../canary/secret.png",
        "/etc/passwd",
        "away/secret.png",
        "out.png",
        "a\0b",
        "\ud800",
    ),
    *(
        "x" * 5000,
        "<script>alert(1)</script>",
        "' OR 1=1; DROP TABLE runs; --",
        "{0.__class__}",
        "%s%n",
        "é\u202e\u2028",
    ),
    *([], {}, [[]], [None] * 4, {"": None}, [1, 2, 3, 4], {"__class__": "os.system"}, [[[[[[[[0]]]]]]]]),
)
TOKENS = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        *(
            "../",
            "/",
            "\\",
            "..\\..\\",
            "\0",
            ",",
            '"',
            '""',
            "\n",
            "\r",
            "\r\n",
            "\ufeff",
            "\ud800",
            "nan",
            "-inf",
            "1e999",
        ),
        *(
            "9" * 400,
            "-1",
            "1_000",
            "٣",
            "0x10",
            "image,split\n",
            "../canary/secret.png",
            "away/secret.png",
            "file:///etc/passwd",
        ),
        *(
            "{" * 2000,
            "[" * 50_000,
            "train",
            "val",
            "test",
            "x" * 300,
            "\u2028",
            "#EXTM3U\n",
            "concat:",
            "\x80\x02.",
            "cos\nsystem\n",
        ),
    )
)
NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)

Mutation = Callable[[bytes, random.Random], bytes]


def mutated(seeds: Sequence[bytes], mutations: Sequence[Mutation], draw: random.Random) -> bytes:
    """One of the seeds, damaged once to four times."""
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(mutations)(data, draw)
    return data[:LONGEST]


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bits flipped, or bytes and numbers of several bytes replaced."""
    changed = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(changed))
        match draw.randrange(3):
            case 0:
                changed[place] ^= 1 << draw.randrange(8)
            case 1:
                changed[place] = draw.randrange(256)
            case _:
                size = draw.choice((1, 2, 4, 8))
                number = draw.choice(NUMBERS) % 2 ** (8 * size)
                changed[place : place + size] = number.to_bytes(size, draw.choice(("little", "big")))
    return bytes(changed)


def change_length(data: bytes, draw: random.Random) -> bytes:
    """Cut off, a piece left out, doubled or moved, or a token put in."""
    first, last = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    match draw.randrange(5):
        case 0:
            return data[:first]
        case 1:
            return data[:first] + data[last:]
        case 2:
            return data[:last] + data[first:last] * draw.choice((1, 1, 50)) + data[last:]
        case 3:
            return data[last:] + data[first:last]
        case _:
            return data[:first] + draw.choice(TOKENS) + data[first:]


def change_field(data: bytes, draw: random.Random) -> bytes:
    """A field of a text file with lines and commas replaced by something of the wrong kind."""
    lines = data.decode("utf-8", "replace").split("\n")
    number = draw.randrange(len(lines))
    fields = lines[number].split(",")
    fields[draw.randrange(len(fields))] = draw.choice((*TOKENS, *fields, b"")) if draw.random() < 0.5 else _text(draw)  # type: ignore[call-overload]
    lines[number] = ",".join(
        field.decode("utf-8", "replace") if isinstance(field, bytes) else field for field in fields
    )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def change_json(data: bytes, draw: random.Random) -> bytes:
    """A value or a key somewhere in a JSON text, or in one of its lines, replaced or left out."""
    try:
        return _dump(_changed(json.loads(data), draw))
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        number = draw.randrange(len(lines))
        try:
            lines[number] = _dump(_changed(json.loads(lines[number]), draw))
        except (ValueError, RecursionError):
            return change_bytes(data, draw)
        return b"\n".join(lines)


def change_safetensors_header(data: bytes, draw: random.Random) -> bytes:
    """The header in JSON, its length kept right or not."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = change_json(data[8 : 8 + length], draw)
    except (struct.error, OverflowError):
        return change_bytes(data, draw)
    stated = len(header) if draw.random() < 0.9 else draw.choice(NUMBERS)
    return struct.pack("<Q", stated) + header + data[8 + length :]


def change_zip_member(data: bytes, draw: random.Random) -> bytes:
    """A member of a zip archive, with checksums that are right again; rarely its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # what damage does to a zip archive is of many kinds
        return change_bytes(data, draw)
    if not members:
        return change_bytes(data, draw)
    chosen = draw.choice(list(members))
    members[chosen] = draw.choice((change_bytes, change_length))(members[chosen], draw)
    if draw.random() < 0.1:
        members[draw.choice(("../../escaped", "/escaped", chosen + "x"))] = members.pop(chosen)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def change_tar_member(data: bytes, draw: random.Random) -> bytes:
    """A member of a tar archive under another name, or of another kind."""
    target = io.BytesIO()
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive, tarfile.open(fileobj=target, mode="w") as changed:
            for member in archive:
                content = archive.extractfile(member)
                if draw.random() < 0.5:
                    member.name = draw.choice(
                        ("../../escaped", "/tmp/escaped", "a/b", "..", ".", "", "x" * 300, "a\nb")
                    )
                if draw.random() < 0.3:
                    member.type = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE))
                    member.linkname = "../../canary/secret.txt"
                changed.addfile(member, content if member.isfile() else None)
    except Exception:  # what damage does to an archive is of many kinds
        return change_bytes(data, draw)
    return target.getvalue()


def _text(draw: random.Random) -> str:
    return str(draw.choice(NASTY_VALUES))


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        others = {name: of for name, of in value.items() if name != key}
        match draw.randrange(6):
            case 0:
                return others
            case 1:
                return {**others, _text(draw): value[key]}
            case _:
                return {**value, key: _changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        match draw.randrange(5):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return [*value, value[place]]
            case _:
                return [*value[:place], _changed(value[place], draw), *value[place + 1 :]]
    return draw.choice(NASTY_VALUES)


BYTES: tuple[Mutation, ...] = (change_bytes, change_length)
TABLE: tuple[Mutation, ...] = (*BYTES, change_field, change_field)
JSON: tuple[Mutation, ...] = (*BYTES, change_json, change_json, change_json)
SAFETENSORS: tuple[Mutation, ...] = (*BYTES, change_safetensors_header, change_safetensors_header)
ZIP: tuple[Mutation, ...] = (*BYTES, change_zip_member, change_zip_member)
TAR: tuple[Mutation, ...] = (*BYTES, change_tar_member, change_tar_member)
