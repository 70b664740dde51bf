"""What the loaders share: paths that stay inside the data root, the split file and the body-box file."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ccim_ray.datasets.subject import Box
from ccim_ray.errors import RequestError

SPLIT_FILE = "splits.csv"
"""In the data root, header ``image,split``: where it exists it is the truth about the split."""

BODY_BOX_FILE = "body_boxes.csv"
"""In the data root, header ``image,x1,y1,x2,y2``: 0-based, half-open pixels."""


_LONGEST_NAME, _LONGEST_PATH = 255, 1024  # bytes


def split_file(root: Path, chosen: Path | None) -> Path | None:
    """The split file to use: the one chosen, else SPLIT_FILE in the data root, else None.

    Raises:
        RequestError: the chosen one does not exist.
    """
    if chosen is not None:
        if not chosen.is_file():
            raise RequestError(f"--split-file {chosen}: no such file; give a CSV file with the header image,split")
        return chosen
    return root / SPLIT_FILE if (root / SPLIT_FILE).is_file() else None


SPLIT_NAMES = ("train", "val", "test", "test_id", "test_do", "test_anti")


def relative_path(text: str, source: str) -> str:
    """A path read from an annotation file, normalised, with forward slashes.

    Args:
        text: the path as written.
        source: file, and line where there is one, for the message.

    Raises:
        RequestError: it is empty, absolute, climbs with "..", or is no name that a file can have.
    """
    path = PurePosixPath(text.strip())
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise RequestError(
            f"{source}: path {text!r} leaves the data root; write it relative to the images' folder, "
            "with forward slashes and without '..'"
        )
    if not can_be_named(str(path)):
        raise RequestError(f"{source}: path {text!r:.80} is no name that a file can have; correct it")
    return str(path)


def can_be_named(path: str) -> bool:
    """Whether file systems take it; asking them about such a path fails in other ways than a missing file."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return len(encoded) <= _LONGEST_PATH and all(len(part) <= _LONGEST_NAME for part in encoded.split(b"/"))


def require_inside(base: Path, path: Path, source: str) -> None:
    """Refuse a path that a symbolic link leads out of ``base``.

    ``base`` itself may be a link: that one the user made to say where the data lie.

    Raises:
        RequestError: the resolved path is not under the resolved base.
    """
    real_base, real_path = os.path.realpath(base), os.path.realpath(path)
    if os.path.commonpath([real_base, real_path]) != real_base:
        raise RequestError(
            f"{source}: {path} is a symbolic link out of {base}, to {real_path}; put the file itself into the data root"
        )


def require_all_inside(base: Path, paths: Sequence[Path], source: str) -> None:
    """``require_inside`` for many files, each folder resolved once, as that takes longer than reading a header.

    Raises:
        RequestError: one of them is not under the resolved base.
    """
    links = [path for path in paths if path.is_symlink()]
    for path in (*{path.parent for path in paths}, *links):
        require_inside(base, path, source)


def read_split_file(path: Path) -> dict[str, str]:
    """Split of each image listed in a split file.

    Raises:
        RequestError: bad header, bad path, unknown split name, or an image listed with two splits.
    """
    split_of: dict[str, str] = {}
    for source, (image_text, split) in read_rows(path, ("image", "split")):
        image = relative_path(image_text, source)
        if split not in SPLIT_NAMES:
            raise RequestError(f"{source}: unknown split {split!r}; use one of {', '.join(SPLIT_NAMES)}")
        if split_of.setdefault(image, split) != split:
            raise RequestError(f"{source}: {image} is listed as {split_of[image]} and as {split}; keep one")
    return split_of


def read_body_box_file(path: Path) -> dict[str, Box]:
    """Body box of each image listed, as written (not yet clipped).

    Raises:
        RequestError: bad header, bad path, something that is not a number, or an image listed twice.
    """
    box_of: dict[str, Box] = {}
    for source, (image_text, *numbers) in read_rows(path, ("image", "x1", "y1", "x2", "y2")):
        image = relative_path(image_text, source)
        if image in box_of:
            raise RequestError(f"{source}: {image} is listed twice; keep one box an image")
        box_of[image] = parse_box(numbers, source)
    return box_of


def parse_box(numbers: Iterable[str], source: str) -> Box:
    """Four written numbers as a box.

    Raises:
        RequestError: one of them is not a number.
    """
    written = tuple(numbers)
    try:
        x1, y1, x2, y2 = (float(number) for number in written)
    except ValueError:
        raise RequestError(f"{source}: box {','.join(written)!r} is not four numbers x1,y1,x2,y2") from None
    return x1, y1, x2, y2


def read_lines(path: Path) -> list[str]:
    """``read_text`` cut into lines."""
    return read_text(path).splitlines()


def read_text(path: Path) -> str:
    """Content of a UTF-8 text file, a byte order mark removed, every line ending with a line feed.

    Raises:
        RequestError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def read_rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each row of a CSV file below its header, with the file and line it stands in; blank lines are passed over.

    Raises:
        RequestError: another header, a row with more or fewer fields, or not a CSV file.
    """
    reader = csv.reader(read_lines(path))
    try:
        found = tuple(field.strip() for field in next(reader, []))
        if found != header:
            raise RequestError(f"{path}: header {','.join(found)!r} found, {','.join(header)!r} expected")
        for row in reader:
            if not row:
                continue
            source = f"{path} line {reader.line_num}"
            if len(row) != len(header):
                raise RequestError(f"{source}: {len(row)} fields found, {len(header)} expected")
            yield source, [field.strip() for field in row]
    except csv.Error as error:
        raise RequestError(f"{path} line {reader.line_num}: not a CSV file ({error})") from error


def digest_files(root: Path, paths: Iterable[Path]) -> str:
    """sha256 (hexadecimal) over the names, relative to ``root`` where they lie there, and the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()
