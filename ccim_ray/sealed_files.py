"""Digests within files: what is read is what was written, or is told to be damaged. Knows no torch.

A safetensors file is eight bytes that say how long its header is, the header in JSON, and the tensors' bytes. The
digest stands in the header's metadata and covers everything else.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

DIGEST = "sha256"


def sealed(content: bytes) -> bytes:
    """The safetensors file ``content`` with its digest; the same tensors give the same bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + length]), memoryview(content)[8 + length :]
    header.setdefault("__metadata__", {})[DIGEST] = _digest(header, tensors)
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return b"".join([struct.pack("<Q", len(text)), text, tensors])


def damage(path: Path) -> str | None:
    """What is wrong with a sealed file, in words; None where it is whole, or has no digest to compare with.

    Raises OSError where it cannot be read.
    """
    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        found = header.get("__metadata__", {}).pop(DIGEST, None)
    except (struct.error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"its header is unreadable, {len(content)} bytes in all"
    if found is None or found == _digest(header, memoryview(content)[8 + length :]):
        return None
    return f"its {len(content)} bytes do not have the digest that was written"


def _digest(header: dict[str, Any], tensors: memoryview) -> str:
    metadata = {key: value for key, value in header.get("__metadata__", {}).items() if key != DIGEST}
    described = json.dumps(header | {"__metadata__": metadata}, sort_keys=True).encode()
    digest = hashlib.sha256(described)
    digest.update(tensors)
    return digest.hexdigest()
