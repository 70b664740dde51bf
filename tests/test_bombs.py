"""Small files that claim to be large, or unfold to gigabytes: one line, and no more memory than a sound file takes.

Each is read in a process that is held to LIMIT more bytes than it has when it begins.
"""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from job_runs import ROOT, job_environment

from ccim_ray.checkpoint import Checkpoint, save_checkpoint
from ccim_ray.datasets.images import MAX_PIXELS
from ccim_ray.datasets.subject import Subject, subjects_to_table
from ccim_ray.perception.detection_files import PictureDetections, write_detections
from ccim_ray.perception.person_matching import Persons

LIMIT = 1280 << 20
LARGE = 1 << 31
ZEROS = bytes(1 << 24)

READ_EACH = """
import json, os, resource, sys
from pathlib import Path
import numpy as np, torch
from ccim_ray.checkpoint import load_checkpoint, load_weights
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.images import UnreadableImage, is_stored_turned, read_rgb, read_size
from ccim_ray.datasets.videos import UnreadableVideo, decode_frames, read_header
from ccim_ray.errors import RequestError
from ccim_ray.inspection import read_subjects
from ccim_ray.perception.detection_files import PlannedDetections
from ccim_ray.perception.imported_weights import import_weights
from ccim_ray.prepared import read_shard, read_subject_index
from ccim_ray.tracking.model import model_data
import av, mlflow.models, scipy.io

def network():
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters())

READERS = {
    "weights": lambda path: import_weights(path, "resnet18", "places365", path.parent),
    "best weights": lambda path: load_weights(path, network()[0]),
    "dictionary": ConfounderDictionary.load,
    "checkpoint": lambda path: load_checkpoint(path, *network()),
    "subjects": read_subject_index,
    "subjects shown": lambda path: read_subjects(path, np.array([0])),
    "detections": lambda path: PlannedDetections("a detector", path.parent, ("a.png",)).read(),
    "shard": read_shard,
    "picture": lambda path: (read_size(path), is_stored_turned(path), read_rgb(path).shape)[2],
    "video": lambda path: (read_header(path), [number for number, _ in decode_frames(path, {0, 3})])[1],
    "model": lambda path: model_data(path.parent, "runs:/0/model"),
}
limit = int(sys.argv[1])
for name, reader, path in json.loads(sys.argv[2]):
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + limit,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        told = f"read: {READERS[reader](Path(path))!r}"
    except (RequestError, UnreadableImage, UnreadableVideo) as error:
        told = f"{type(error).__name__}: {error}"
    except BaseException as error:
        told = f"NOT NAMED {type(error).__name__}: {error}"
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([name, told[:1500], taken]), flush=True)
    os._exit(0)
"""


def deflated_zeros(length: int) -> bytes:
    """Zlib's compression of so many zeros, from one piece that is repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return piece * (length // len(ZEROS)) + end


def weights(**options) -> bytes:
    target = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(70_000)}, target, **options)
    return target.getvalue()


def repacked(content: bytes, change) -> bytes:
    """A zip archive whose tensors' records are written by ``change(archive, info, data)``."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        for info in source.infolist():
            if "/data/" in info.filename:
                change(archive, info.filename, source.read(info))
            else:
                archive.writestr(info.filename, source.read(info))
    return target.getvalue()


def compressed(archive, name, data):
    """A gigabyte and a half of zeros as a record of a megabyte and a half."""
    with archive.open(zipfile.ZipInfo(name), "w") as plain:
        plain.write(data)
    info = archive.getinfo(name)
    packed = deflated_zeros(96 * len(ZEROS))
    archive.fp.seek(info.header_offset + 30 + len(name))
    archive.fp.write(packed)
    info.compress_type, info.compress_size, info.file_size = zipfile.ZIP_DEFLATED, len(packed), 96 * len(ZEROS)
    archive.start_dir = archive.fp.tell()


def claiming(archive, name, data):
    archive.writestr(name, data)
    archive.getinfo(name).file_size = archive.getinfo(name).compress_size = LARGE


def checkpoint() -> bytes:
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    path = Path("checkpoint.pt")
    save_checkpoint(path, Checkpoint(), model, optimiser)
    return path.read_bytes()


def safetensors(header: object, length: int | None = None, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape, end):
    return {"conv1.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def of_one_long_text(row: pa.Table, column: str) -> bytes:
    """The row 800 times, with a text of a megabyte in the column that Parquet writes once in twenty rows."""
    rows = row.take(np.zeros(20, np.int64))
    texts = pa.array(["x" * (1 << 20)] * 20)
    rows = rows.set_column(rows.column_names.index(column), rows.schema.field(column), texts)
    target = io.BytesIO()
    with pq.ParquetWriter(target, rows.schema) as writer:
        for _ in range(40):
            writer.write_table(rows)
    return target.getvalue()


def subjects() -> pa.Table:
    box = (0.0, 0.0, 9.0, 9.0)
    subject = Subject(
        subject_id="1", image="1.png", width=9, height=9, split="val", body_box=box, labels=(), box_source="user"
    )
    facts = json.dumps({"categories": ["Sad", "Glad"], "multi_label": True, "root": "."})
    return subjects_to_table([subject]).replace_schema_metadata({"ccim_ray": facts})


def detections() -> pa.Table:
    path = Path("detections.parquet")
    nobody = Persons(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    write_detections(path, ("a.png",), [PictureDetections(nobody)])
    return pq.read_table(path)


def zeros_shard(end: str) -> bytes:
    """Rows of zeros, compressed: some gigabyte."""
    rows = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((100, 1 << 17), np.float32))
    table = pa.table({"subject_id": [f"{n}" for n in range(100)], "reason": pa.nulls(100, pa.string()), "rows": rows})
    target = io.BytesIO()
    if end == "arrow":
        with pa.ipc.new_file(target, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            for _ in range(30):
                writer.write_table(table)
    else:
        with pq.ParquetWriter(target, table.schema, compression="zstd", use_dictionary=False) as writer:
            for _ in range(30):
                writer.write_table(table)
    return target.getvalue()


def null_rows() -> bytes:
    """Rows that are null take no bytes on disk, and their whole size in memory."""
    kind = pa.fixed_shape_tensor(pa.float32(), [1 << 17])
    rows = pa.ExtensionArray.from_storage(kind, pa.nulls(100, kind.storage_type))
    texts = pa.array([f"{n}" for n in range(100)])
    table = pa.table({"subject_id": texts, "reason": texts, "rows": rows})
    target = io.BytesIO()
    with pq.ParquetWriter(target, table.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(40):
            writer.write_table(table)
    return target.getvalue()


def png(width: int, height: int, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*one) for one in chunks) + chunk(b"IEND", b"")


def zlib_zeros(length: int) -> bytes:
    length += -length % len(ZEROS)
    return b"\x78\xda" + deflated_zeros(length) + struct.pack(">I", (length % 65521) << 16 | 1)


SIDE = int(MAX_PIXELS**0.5)


def large_png(depth, colour, channels, *chunks):
    """As large as may be, and black."""
    return png(SIDE, SIDE, depth, colour, *chunks, (b"IDAT", zlib_zeros(SIDE * (SIDE * channels * depth // 8 + 1))))


def mjpeg(*sides: int) -> bytes:
    """A video of small pictures that say to be squares of these sides."""
    import av

    path = Path("sound.avi")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuvj420p"
        for number in range(4):
            frame = np.full((40, 48, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    head, *frames = path.read_bytes().split(b"\xff\xc0\x00\x11\x08")
    assert len(frames) == 4
    changed = [struct.pack(">HH", side, side) + rest[4:] for side, rest in zip(sides, frames, strict=False)]
    return b"\xff\xc0\x00\x11\x08".join([head, *changed, *frames[len(sides) :]])


def yaml_references() -> bytes:
    """Ten lists, each ten times the one before: ten thousand million words as text."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    lines += ["flavors:", "  python_function:", "    loader_module: *a9", "    data: data"]
    return "\n".join(lines).encode()


BOMBS = {
    "a record of weights is compressed": ("weights", lambda: repacked(weights(), compressed), "is compressed"),
    "a record of weights claims much": ("weights", lambda: repacked(weights(), claiming), "claims more bytes than"),
    "old weights claim much": (
        "weights",
        lambda: weights(_use_new_zipfile_serialization=False).replace(b"Jp\x11\x01\x00", b"J\xff\xff\xff\x7f"),
        "cannot be read",
    ),
    "a record of a checkpoint is compressed": (
        "checkpoint",
        lambda: repacked(checkpoint(), compressed),
        "is compressed",
    ),
    "a record of a checkpoint claims much": (
        "checkpoint",
        lambda: repacked(checkpoint(), claiming),
        "claims more bytes",
    ),
    "safetensors with a long header": ("weights", lambda: safetensors({}, 1 << 62), "not a readable safetensors file"),
    "safetensors that claim much": ("weights", lambda: safetensors(tensor([1 << 40], 1 << 42)), "not a readable"),
    "safetensors of more than they claim": (
        "weights",
        lambda: safetensors(tensor([1 << 40], 4), body=b"1234"),
        "not a ",
    ),
    "best weights that claim much": (
        "best weights",
        lambda: safetensors(tensor([1 << 40], 1 << 42)),
        "cannot be loaded",
    ),
    "a dictionary that claims much": ("dictionary", lambda: safetensors(tensor([1 << 40], 1 << 42)), "RequestError"),
    "subjects of one long text": ("subjects", lambda: of_one_long_text(subjects(), "depth"), "unfolds to more than"),
    "subjects to show": ("subjects shown", lambda: of_one_long_text(subjects(), "depth"), "unfolds to more than"),
    "detections of one long text": (
        "detections",
        lambda: of_one_long_text(detections(), "reason"),
        "unfolds to more than",
    ),
    "a shard of zeros, compressed": ("shard", lambda: zeros_shard("parquet"), "unfolds to more than"),
    "a shard of rows that are null": ("shard", null_rows, "too small for the 4000 rows that it claims"),
    "pictures of zeros, compressed": ("shard", lambda: zeros_shard("arrow"), "is compressed"),
    "the largest picture": ("picture", lambda: large_png(8, 2, 3), f"read: ({SIDE}, {SIDE}, 3)"),
    "the largest picture of 16 bits": ("picture", lambda: large_png(16, 0, 1), f"read: ({SIDE}, {SIDE}, 3)"),
    "the largest picture with a palette": (
        "picture",
        lambda: large_png(8, 3, 1, (b"PLTE", bytes(768)), (b"tRNS", bytes(256))),
        f"read: ({SIDE}, {SIDE}, 3)",
    ),
    "a picture with a long text": (
        "picture",
        lambda: png(8, 8, 8, 0, (b"zTXt", b"a\0\0" + zlib_zeros(LARGE)), (b"IDAT", zlib.compress(bytes(72)))),
        "UnreadableImage",
    ),
    "a picture with a long profile": (
        "picture",
        lambda: png(8, 8, 8, 0, (b"iCCP", b"a\0\0" + zlib_zeros(LARGE)), (b"IDAT", zlib.compress(bytes(72)))),
        "UnreadableImage",
    ),
    "a video of a large size": ("video", lambda: mjpeg(12_000, 12_000, 12_000, 12_000), "UnreadableVideo"),
    "a video that grows": ("video", lambda: mjpeg(48, 12_000), "UnreadableVideo"),
    "a model of references": ("model", yaml_references, "are not text"),
}
NAMES = {"detections": "shard-00000.parquet", "model": "MLmodel", "shard": "shard-00000.parquet"}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What came of each, and the kilobytes that it took."""
    cases, here = [], Path.cwd()
    for number, (name, (reader, make, _)) in enumerate(BOMBS.items()):
        folder = tmp_path_factory.mktemp(f"bomb{number}")
        os.chdir(folder)
        try:
            content = make()
        finally:
            os.chdir(here)
        file = "shard-00000.arrow" if name.startswith("pictures of") else NAMES.get(reader, "bomb")
        (folder / file).write_bytes(content)
        assert len(content) < 8 << 20
        cases.append((name, reader, str(folder / file)))
    command = [sys.executable, "-c", READ_EACH, str(LIMIT), json.dumps(cases)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=job_environment(), check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return {name: (told, taken) for name, told, taken in lines}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_told_in_one_line_and_takes_no_memory(name, read):
    told, taken = read[name]
    assert BOMBS[name][2] in told
    assert not told.startswith("NOT NAMED")
    assert "\n" not in told
    assert "memory" not in told.lower() or name == "old weights claim much", "it was the limit that ended it"
    if not name.startswith("the largest"):
        assert taken < 400_000
