"""New pictures and the persons in them: a folder or a file, and a CSV file of boxes. Knows no torch.

A path in the CSV file that leaves the folder of pictures is refused, as in the datasets' own files.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ccim_ray.datasets.annotation_files import can_be_named, read_lines, relative_path, require_all_inside
from ccim_ray.datasets.depth import DEPTH_FOLDER
from ccim_ray.errors import RequestError
from ccim_ray.persons import INPUT_COLUMNS, OPTIONAL_COLUMNS, Person, read_person

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Pictures:
    """Pictures below a folder.

    Attributes:
        root: absolute.
        images: paths relative to the root, with forward slashes, sorted.
        other_files: how many files were passed over because their name is not that of a picture, or is not UTF-8.
    """

    root: Path
    images: tuple[str, ...]
    other_files: int = 0


def find_pictures(path: Path) -> Pictures:
    """A picture, or all below a folder; hidden files and depth pictures that lie beside are passed over.

    Raises:
        RequestError: there is no such file or folder, or no picture in it.
    """
    path = path.expanduser().absolute()
    if path.is_file():
        return Pictures(path.parent, (path.name,))
    if not path.is_dir():
        raise RequestError(f"--images {path}: there is no such folder or file")
    names: list[str] = []
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        visible = (name for name in files if not name.startswith("."))
        names += [(Path(folder) / name).relative_to(path).as_posix() for name in visible]
    known = set(names)
    beside = {f"{DEPTH_FOLDER}/{name}.png" for name in names} & known
    images = sorted(name for name in known - beside if name.lower().endswith(PICTURE_SUFFIXES) and can_be_named(name))
    if not images:
        raise RequestError(
            f"--images {path}: none of its {len(names)} files is a picture by its name ({' '.join(PICTURE_SUFFIXES)})"
        )
    return Pictures(path, tuple(images), len(names) - len(images) - len(beside))


@dataclass(frozen=True)
class BoxFile:
    """What a CSV file of boxes holds: persons in its order, and the columns that nobody reads."""

    persons: tuple[Person, ...]
    unread: tuple[str, ...]


def read_boxes(path: Path, root: Path) -> BoxFile:
    """Persons of a CSV file whose header names at least ``INPUT_COLUMNS``, in any order.

    Raises:
        RequestError: the file cannot be read, a column is missing or named twice, a row is short or long, a cell is
            wrong, or a path leaves ``root``.
    """
    reader = csv.reader(read_lines(path))
    persons: list[Person] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        for row in reader:
            if not row:
                continue
            source = f"{path} line {reader.line_num}"
            if len(row) != len(header):
                raise RequestError(f"{source}: {len(row)} fields found, {len(header)} expected")
            cells = dict(zip(header, row, strict=True))
            cells["image"] = relative_path(cells["image"], source)
            if cells.get("depth", "").strip():
                cells["depth"] = relative_path(cells["depth"], source)
            persons.append(read_person(cells, source))
    except csv.Error as error:
        raise RequestError(f"{path} line {reader.line_num}: not a CSV file ({error})") from error
    if not persons:
        raise RequestError(f"{path} holds no box: write a row a person below its header")
    named = dict.fromkeys([person.image for person in persons] + [p.depth for p in persons if p.depth])
    require_all_inside(root, [root / name for name in named], str(path))
    return BoxFile(tuple(persons), tuple(name for name in header if name not in (*INPUT_COLUMNS, *OPTIONAL_COLUMNS)))


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [name for name in INPUT_COLUMNS if name not in header]
    if missing:
        raise RequestError(
            f"{path}: its header {','.join(header)[:200]!r} lacks {', '.join(missing)}; write {','.join(INPUT_COLUMNS)}"
        )
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise RequestError(f"{path}: its header names {', '.join(twice)} twice; keep one")


def pictures_state(root: Path, images: Sequence[str]) -> str:
    """sha256 over where pictures lie, their sizes in bytes and when they were changed: another content, another key."""
    digest = hashlib.sha256()
    for image in images:
        path = root / image
        state = path.stat() if path.is_file() else None
        digest.update(f"{path}\0{state.st_size if state else -1}\0{state.st_mtime_ns if state else -1}\n".encode())
    return digest.hexdigest()
