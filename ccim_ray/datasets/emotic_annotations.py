"""EMOTIC's annotation file as plain records, whatever bytes it holds.

The .mat files hold ``train``, ``val`` and ``test``, arrays of one struct an image, each with one struct a person. A
person of train was seen by one annotator, one of val and test by several, whose votes ``combined_categories`` unites.

SciPy reads damaged bytes at its own risk: a flipped bit can end the process or ask for all memory. Hence
``read_annotations`` has the file parsed in a process of its own, which runs this module and writes JSON.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccim_ray.datasets.annotation_files import relative_path
from ccim_ray.datasets.subject import Box
from ccim_ray.errors import RequestError

CATEGORIES = (
    *("Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval"),
    *("Disconnection", "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem"),
    *("Excitement", "Fatigue", "Fear", "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity"),
    *("Suffering", "Surprise", "Sympathy", "Yearning"),
)
MAT_SPLITS = ("train", "val", "test")

TIME_LIMIT_S = 300
"""Seconds after which reading is given up; the 34,320 persons of the 2019 release take about ten."""
MEMORY_LIMIT = 2 * 2**30
"""Bytes of address space of the process that reads, seven times what the 2019 release takes."""

_CATEGORY_SET = frozenset(CATEGORIES)


@dataclass(frozen=True, slots=True)
class AnnotatedPerson:
    """One person as annotated.

    Attributes:
        box: 1-based inclusive, may leave the image or hold NaN; None where it is not four numbers.
        labels: in the order of CATEGORIES; empty where nobody gave one.
        votes_differ: whether ``combined_categories`` is not the union of the annotators' votes.
        is_rated: whether valence, arousal and dominance are three numbers; of several annotators their averages.
    """

    box: Box | None
    labels: tuple[str, ...]
    votes_differ: bool
    is_rated: bool


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its persons; ``path`` is relative to the image folder, ``declared_size`` width and height."""

    path: str
    mat_split: str
    declared_size: tuple[int, int] | None
    persons: tuple[AnnotatedPerson, ...]


def read_annotations(mat_path: Path) -> list[AnnotatedImage]:
    """Read an annotation file in a process of its own, within TIME_LIMIT_S and MEMORY_LIMIT.

    Raises:
        RequestError: whatever ``parse_annotations`` refuses, or the reading process crashed or took too long.
    """
    # The child finds what this process finds, also where a notebook or a cluster has extended sys.path.
    search_path = os.pathsep.join(dict.fromkeys(str(Path(folder).absolute()) for folder in sys.path))
    environment = {"PYTHONPATH": search_path, "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", __name__, str(mat_path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIME_LIMIT_S,
            env=os.environ | environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RequestError(f"{mat_path}: not read within {TIME_LIMIT_S} s; download it again") from None
    if ended.returncode:
        raise RequestError(f"{mat_path}: {_how_it_ended(ended)}; download it again")
    answer = json.loads(ended.stdout)
    if "refused" in answer:
        raise RequestError(answer["refused"])
    return [_from_plain(image) for image in answer["images"]]


def _how_it_ended(ended: subprocess.CompletedProcess[bytes]) -> str:
    if ended.returncode < 0:
        name = signal.strsignal(-ended.returncode) or f"signal {-ended.returncode}"
        return f"damaged so that reading it crashed ({name})"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"reading it failed ({lines[-1] if lines else f'exit status {ended.returncode}'})"


def main() -> None:
    """What the reading process does: the path is its argument, the answer one JSON object on stdout."""
    limit_resources()
    try:
        answer: dict[str, Any] = {"images": [_to_plain(image) for image in parse_annotations(Path(sys.argv[1]))]}
    except RequestError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout, separators=(",", ":"))


def limit_resources() -> None:
    """Keep this process to MEMORY_LIMIT, and from leaving a file of its memory where it crashes. Linux alone."""
    if sys.platform != "linux":
        return  # other systems do not keep to a limit of address space
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _to_plain(image: AnnotatedImage) -> list[Any]:
    persons = [[person.box, person.labels, person.votes_differ, person.is_rated] for person in image.persons]
    return [image.path, image.mat_split, image.declared_size, persons]


def _from_plain(plain: list[Any]) -> AnnotatedImage:
    path, mat_split, size, persons = plain
    return AnnotatedImage(
        path,
        mat_split,
        tuple(size) if size else None,
        tuple(AnnotatedPerson(tuple(box) if box else None, tuple(labels), *flags) for box, labels, *flags in persons),
    )


def parse_annotations(mat_path: Path) -> list[AnnotatedImage]:
    """Read an annotation file in this process, which a damaged one may end.

    An image listed twice in one split becomes one, with the persons of both.

    Raises:
        RequestError: no MATLAB version 5 file, a key or field missing, an unknown label, or a path that leaves the
            data root.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(mat_path, squeeze_me=True, struct_as_record=False)
        images = []
        for split in MAT_SPLITS:
            if split not in content:
                raise RequestError(f"{mat_path}: key {split!r} is missing; train, val and test are expected")
            annotated = _AnnotationReader(mat_path, split)
            images += _merged(annotated.image(item, n) for n, item in enumerate(as_list(content[split])))
    except RequestError:
        raise
    except Exception as error:  # the bytes of the file decide what SciPy raises
        found = f"{type(error).__name__}: {error}"
        raise RequestError(f"{mat_path}: not a readable MATLAB version 5 file ({found:.200}); download it again") from (
            error
        )
    return images


def as_list(value: Any) -> list[Any]:
    """What loadmat squeezed, as the list it stands for: one element loses its array, none is an empty one."""
    return list(value.ravel()) if isinstance(value, np.ndarray) else [value]


@dataclass(frozen=True, slots=True)
class _AnnotationReader:
    """Reads the structs of one split by field name: their order differs between splits and releases."""

    mat_path: Path
    split: str

    def image(self, item: Any, number: int) -> AnnotatedImage:
        where = f"{self.split}({number + 1})"
        folder, filename = (self._text(item, name, where) for name in ("folder", "filename"))
        path = relative_path(f"{folder}/{filename}", f"{self.mat_path} {where}")
        persons = [
            self._person(person, f"{where}.person({index + 1})", path)
            for index, person in enumerate(as_list(self._field(item, "person", where)))
        ]
        declared = self._size(self._field(item, "image_size", where), f"{where}.image_size")
        return AnnotatedImage(path, self.split, declared, tuple(persons))

    def _field(self, item: Any, name: str, where: str) -> Any:
        # loadmat's mat_struct is the one type that names its fields so.
        if name not in getattr(item, "_fieldnames", ()):
            raise RequestError(
                f"{self.mat_path}: field {name!r} is missing in {where}; give an unchanged EMOTIC annotation file"
            )
        return getattr(item, name)

    def _text(self, item: Any, name: str, where: str) -> str:
        value = self._field(item, name, where)
        if not isinstance(value, str):
            raise RequestError(
                f"{self.mat_path}: field {name!r} of {where} is no text; give an unchanged EMOTIC annotation file"
            )
        return value

    def _size(self, item: Any, where: str) -> tuple[int, int] | None:
        if not hasattr(item, "_fieldnames"):
            return None
        width, height = self._field(item, "n_col", where), self._field(item, "n_row", where)
        if not all(isinstance(side, int | float | np.number) and math.isfinite(side) for side in (width, height)):
            return None
        return int(width), int(height)

    def _person(self, item: Any, where: str, image: str) -> AnnotatedPerson:
        voted: set[str] = set()
        for annotator in as_list(self._field(item, "annotations_categories", where)):
            if hasattr(annotator, "_fieldnames"):
                written = self._field(annotator, "categories", f"{where}.annotations_categories")
                voted |= self._labels(written, where, image)
        labels, votes_differ = voted, False
        if self.split != "train":
            combined = self._labels(self._field(item, "combined_categories", where), where, image)
            # Where only the votes were kept, they still say what the union would.
            labels, votes_differ = combined or voted, combined != voted
        return AnnotatedPerson(
            box=_four_numbers(self._field(item, "body_bbox", where)),
            labels=tuple(name for name in CATEGORIES if name in labels),
            votes_differ=votes_differ,
            is_rated=_is_rated(item, "annotations_continuous" if self.split == "train" else "combined_continuous"),
        )

    def _labels(self, written: Any, where: str, image: str) -> set[str]:
        labels = {text.strip() for text in _strings(written)}
        unknown = sorted(labels - _CATEGORY_SET)
        if unknown:
            raise RequestError(
                f"{self.mat_path}: unknown label {unknown[0]!r:.80} in {where} ({image}); "
                "EMOTIC has 26 categories, from Affection to Yearning"
            )
        return labels


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, np.ndarray):
        return [text for item in value.ravel() for text in _strings(item)]
    return []


def _is_rated(person: Any, field: str) -> bool:
    """Whether the struct ``field``, which a person may lack, holds three numbers: whoever dropped a rating left NaN."""
    rating = getattr(person, field, None)
    values = [getattr(rating, name, None) for name in ("valence", "arousal", "dominance")]
    return all(isinstance(value, int | float | np.number) and math.isfinite(value) for value in values)


def _four_numbers(value: Any) -> Box | None:
    # Small whole numbers come back as uint8, in which x - 1 wraps around: hence float at once.
    try:
        x1, y1, x2, y2 = (float(number) for number in as_list(value))
    except (TypeError, ValueError):
        return None
    return x1, y1, x2, y2


def _merged(images: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
    by_path: dict[str, AnnotatedImage] = {}
    for image in images:
        first = by_path.get(image.path)
        by_path[image.path] = replace(first, persons=first.persons + image.persons) if first else image
    return list(by_path.values())


if __name__ == "__main__":
    main()
