"""How long EMOTIC takes to load: a file with as many images and persons as the 2019 release, and a picture for each.

    python benchmarks/load_emotic.py [--repeats 3]

Writes the annotation file and the pictures into a temporary folder (one small JPEG, hard-linked under every name:
reading a header costs the same), then loads them with ``load_emotic``. Reading of the annotation file is also timed
alone. Files are in the page cache, as they are after a download.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from ccim_ray.console import say
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.emotic_annotations import CATEGORIES, read_annotations

IMAGES = {"train": 17_077, "val": 2_088, "test": 4_406}
PERSONS = {"train": 23_706, "val": 3_334, "test": 7_280}
ANNOTATORS = {"train": 1, "val": 5, "test": 3}
SIZE = (640, 480)
FOLDERS = ("mscoco/images", "framesdb/images", "emodb_small/images", "ade20k/images")


def structs(*rows: dict[str, Any]) -> np.ndarray:
    """A 1 x N MATLAB struct array."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        array[0, number] = tuple(row.values())
    return array


def cell(names: list[str]) -> np.ndarray:
    """A 1 x N MATLAB cell array of texts."""
    array = np.empty((1, len(names)), dtype=object)
    array[0, :] = names
    return array


def person(split: str, rng: np.random.Generator) -> dict[str, Any]:
    votes = [list(rng.choice(CATEGORIES, rng.integers(1, 4), replace=False)) for _ in range(ANNOTATORS[split])]
    x1, y1 = rng.integers(1, 300), rng.integers(1, 200)
    mood = {"valence": 5, "arousal": 5, "dominance": 5}
    several = split != "train"
    return {
        "body_bbox": np.array([x1, y1, x1 + rng.integers(20, 300), y1 + rng.integers(20, 250)]),
        "annotations_categories": structs(*({"categories": cell(vote)} for vote in votes)),
        **({"combined_categories": cell(sorted({name for vote in votes for name in vote}))} if several else {}),
        "annotations_continuous": structs(*[mood] * len(votes)),
        **({"combined_continuous": structs(mood)} if several else {}),
        "gender": "Male",
        "age": "Adult",
    }


def write_emotic(root: Path) -> None:
    """Write a file of the 2019 release's size, its persons spread evenly over the images, and the pictures."""
    rng = np.random.default_rng(0)
    content = {}
    picture = root / "picture.jpg"
    Image.new("RGB", SIZE, (90, 120, 150)).save(picture)
    for folder in FOLDERS:
        (root / "emotic" / folder).mkdir(parents=True)
    for split, images in IMAGES.items():
        rows = []
        for number in range(images):
            persons = PERSONS[split] * (number + 1) // images - PERSONS[split] * number // images
            folder, filename = FOLDERS[number % len(FOLDERS)], f"{split}_{number:06d}.jpg"
            (root / "emotic" / folder / filename).hardlink_to(picture)
            rows.append(
                {
                    "filename": filename,
                    "folder": folder,
                    "image_size": structs({"n_col": SIZE[0], "n_row": SIZE[1]}),
                    "original_database": structs({"name": "mscoco", "info": structs({"image_id": number})}),
                    "person": structs(*(person(split, rng) for _ in range(persons))),
                }
            )
        content[split] = structs(*rows)
    (root / "Annotations").mkdir()
    savemat(root / "Annotations/Annotations.mat", content, oned_as="row", do_compression=True)


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """Median over the repeats, after one that is discarded."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        started = time.perf_counter()
        write_emotic(root)
        say(f"  written in {time.perf_counter() - started:.0f} s")
        persons = len(load_emotic(root).subjects)
        if persons != sum(PERSONS.values()):
            raise SystemExit(f"{persons} persons read of {sum(PERSONS.values())}")
        mat_path = root / "Annotations/Annotations.mat"
        annotation = seconds_of(lambda: read_annotations(mat_path), flags.repeats)
        whole = seconds_of(lambda: load_emotic(root), flags.repeats)
        megabytes = mat_path.stat().st_size / 2**20
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "images": sum(IMAGES.values()),
        "persons": persons,
        "annotation_file_mib": round(megabytes, 1),
        "annotation_s": round(annotation, 2),
        "load_s": round(whole, 2),
        "peak_memory_of_the_reading_process_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    say(json.dumps(figures, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
