"""What a dataset holds and what is wrong with it, as a table and as JSON.

Keys of the JSON file, the same as the attributes below:

dataset, root, note, release, annotation_digest, fingerprint
    what was checked; ``note`` is what everyone who uses the data must be told, ``release`` says which release of
    EMOTIC, or what the embedded world is like.
splits.<split>
    ``SplitSummary``: images, subjects, boxes and categories.
defects.<kind>
    ``count`` and up to five ``examples``; what the loader found and what decoding found, each once. ``splits`` has the
    same for each split; what has none, such as a line about an image that is not there, is in the total alone. An image
    in two splits counts in the one that comes first.
exact_copies, near_duplicates
    ``CopySummary``; near duplicates do not count exact copies again.
near_duplicate_distance
    bits of 256 in which the perceptual hashes of near duplicates differ at most.
nearly_uniform
    images that show nothing, such as black frames, compared for exact copies only.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ccim_ray.console import console
from ccim_ray.datasets.dataset import UNLOCATED, Dataset
from ccim_ray.datasets.near_duplicates import MAX_DISTANCE, Groups, exact_groups
from ccim_ray.datasets.subject import Subject
from ccim_ray.datasets.verification import Verification
from ccim_ray.errors import printable
from ccim_ray.storage import atomic_path, write_json

TABLE_WIDTH = 100
_SHA256_DIGITS = 64

_CHAIN_SHARE = 0.05
_CHAINED = (
    "The largest group is linked from picture to picture, as the frames of a shot are: its ends may differ, and a "
    "group-disjoint split puts all of it into one split."
)


@dataclass(frozen=True, kw_only=True)
class CategorySummary:
    """Subjects of a category, and their share of the split's."""

    subjects: int
    prevalence: float


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One split: subjects on images that decode, and how many images do not.

    Attributes:
        images, subjects: that can be used.
        damaged_images: images with subjects that do not decode.
        labels_per_subject: mean number of categories.
        faces: subjects whose face box is known.
        median_box_share: median area of the body box over the image's; None where no subject has a box.
        smallest_box_side: shortest side of any body box, in pixels; None likewise.
        box_sources: subjects by where the body box comes from; "not located" has none yet.
        categories: in the dataset's order.
    """

    images: int
    subjects: int
    damaged_images: int
    labels_per_subject: float
    faces: int
    median_box_share: float | None
    smallest_box_side: float | None
    box_sources: dict[str, int]
    categories: dict[str, CategorySummary]


@dataclass(frozen=True, kw_only=True)
class Found:
    """How often something was found, and where."""

    count: int
    examples: list[str]


@dataclass(frozen=True, kw_only=True)
class DefectSummary(Found):
    """One kind of defect, in all and by split."""

    splits: dict[str, Found]


@dataclass(frozen=True, kw_only=True)
class CopySummary:
    """Copies of one kind.

    Attributes:
        groups: sets of pictures that are copies of each other.
        copies: pictures beyond the first of each group; of near duplicates, pictures with bytes of their own.
        largest_group: pictures in the largest group, 0 where there is none.
        groups_across_splits: groups that lie in more than one split.
        images_also_in: images of a split that have a copy in another, by split and other split.
        examples: up to five groups, those across splits first, each of at most four images.
    """

    groups: int
    copies: int
    largest_group: int
    groups_across_splits: int
    images_also_in: dict[str, dict[str, int]]
    examples: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """Everything that the report says; attributes as in the legend of this file."""

    dataset: str
    root: str
    note: str
    release: str
    annotation_digest: str
    fingerprint: str
    splits: dict[str, SplitSummary]
    defects: dict[str, DefectSummary]
    exact_copies: CopySummary
    near_duplicates: CopySummary
    near_duplicate_distance: int
    nearly_uniform: Found


def summarise(dataset: Dataset, verification: Verification, near_N: Groups) -> DatasetSummary:
    """Count everything once; table and JSON show the same numbers. ``near_N`` comes from near_duplicate_groups."""
    release = [part for part in dataset.annotation_digest.split(":") if len(part) != _SHA256_DIGITS]
    uniform = [image for image, is_so in zip(verification.images, verification.uniform_N, strict=True) if is_so]
    exact_N = exact_groups(verification)
    return DatasetSummary(
        dataset=dataset.name,
        root=str(dataset.root),
        note=dataset.note,
        release=", ".join(release),
        annotation_digest=dataset.annotation_digest,
        fingerprint=dataset.fingerprint,
        splits={split: _split(dataset, split, verification.damaged) for split in dataset.splits},
        defects={kind: _defect(found, dataset.splits) for kind, found in verification.defects.found.items()},
        exact_copies=_copies(dataset, verification, exact_N, np.arange(len(exact_N))),
        near_duplicates=_copies(dataset, verification, near_N, exact_N),
        near_duplicate_distance=MAX_DISTANCE,
        nearly_uniform=_found(uniform),
    )


def _found(places: Sequence[str]) -> Found:
    return Found(count=len(places), examples=list(places[:5]))


def _defect(found: Sequence[tuple[str, str | None]], splits: Sequence[str]) -> DefectSummary:
    places_of: dict[str, list[str]] = {}
    for where, split in found:
        if split is not None:
            places_of.setdefault(split, []).append(where)
    # A split that lost every subject is known from its defects alone.
    names = [*(name for name in splits if name in places_of), *(name for name in places_of if name not in splits)]
    everywhere = _found([where for where, _ in found])
    return DefectSummary(
        count=everywhere.count, examples=everywhere.examples, splits={name: _found(places_of[name]) for name in names}
    )


def _split(dataset: Dataset, split: str, damaged: frozenset[str]) -> SplitSummary:
    of_split = [subject for subject in dataset.subjects if subject.split == split]
    subjects = [subject for subject in of_split if subject.image not in damaged]
    located = [subject for subject in subjects if subject.box_source != UNLOCATED]
    per_category = Counter(label for subject in subjects for label in subject.labels)
    sides = [(s.body_box[2] - s.body_box[0], s.body_box[3] - s.body_box[1]) for s in located]
    shares = [wide * tall / (s.width * s.height) for (wide, tall), s in zip(sides, located, strict=True)]
    return SplitSummary(
        images=len({subject.image for subject in subjects}),
        subjects=len(subjects),
        damaged_images=len({subject.image for subject in of_split} & damaged),
        labels_per_subject=per_category.total() / max(1, len(subjects)),
        faces=sum(subject.face_box is not None for subject in subjects),
        median_box_share=float(np.median(shares)) if shares else None,
        smallest_box_side=min(map(min, sides)) if sides else None,
        box_sources=dict(Counter(subject.box_source for subject in subjects).most_common()),
        categories={
            name: CategorySummary(subjects=per_category[name], prevalence=per_category[name] / max(1, len(subjects)))
            for name in dataset.categories
        },
    )


def _copies(dataset: Dataset, verification: Verification, group_N: Groups, picture_N: Groups) -> CopySummary:
    """Groups that hold several pictures, which differ where their number in ``picture_N`` does."""
    splits_of = _splits_of_images(dataset.subjects)
    files_of: dict[int, list[int]] = {}
    for row, group in enumerate(group_N.tolist()):
        files_of.setdefault(group, []).append(row)
    groups: list[list[str]] = []
    copies = 0
    for rows in files_of.values():
        pictures = len(set(picture_N[rows].tolist()))
        if pictures > 1:
            copies += pictures - 1
            groups.append([verification.images[row] for row in rows])
    also_in: dict[str, Counter[str]] = {}
    across: list[list[str]] = []
    within: list[list[str]] = []
    for images in groups:
        splits = {split for image in images for split in splits_of[image]}
        (across if len(splits) > 1 else within).append(images)
        for image in images:
            for split in splits_of[image]:
                also_in.setdefault(split, Counter()).update(splits - {split})
    return CopySummary(
        groups=len(groups),
        copies=copies,
        largest_group=max(map(len, groups), default=0),
        groups_across_splits=len(across),
        images_also_in={
            split: {other: also_in[split][other] for other in dataset.splits if also_in[split][other]}
            for split in dataset.splits
            if also_in.get(split)
        },
        examples=[images[:4] for images in (*across, *within)[:5]],
    )


def _splits_of_images(subjects: Sequence[Subject]) -> dict[str, set[str]]:
    splits_of: dict[str, set[str]] = {}
    for subject in subjects:
        splits_of.setdefault(subject.image, set()).add(subject.split)
    return splits_of


def write_summary(summary: DatasetSummary, path: Path) -> None:
    """Write the summary as JSON; the keys are explained at the top of this file."""
    write_json(path, asdict(summary))


def write_groups(dataset: Dataset, verification: Verification, group_N: Groups, path: Path) -> None:
    """Write every group of copies as CSV: group, split, image."""
    splits_of = _splits_of_images(dataset.subjects)
    size_of = Counter(group_N.tolist())
    rows = [
        (group, split, image)
        for group, image in zip(group_N.tolist(), verification.images, strict=True)
        for split in sorted(splits_of[image])
        if size_of[group] > 1
    ]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("group", "split", "image"))
        writer.writerows(sorted(rows))


def print_summary(summary: DatasetSummary) -> None:
    """Print the tables that a person reads, TABLE_WIDTH columns wide where the terminal's width is not known."""
    defects = _defect_table(summary) if summary.defects else Text("Defects: none found\n", style="italic")
    tables = Group(
        _split_table(summary), _source_table(summary), _category_table(summary), defects, _copy_table(summary)
    )
    out = console if console.is_terminal else Console(width=TABLE_WIDTH, highlight=False)
    out.print(tables, soft_wrap=False)


def _table(title: str, caption: str = "") -> Table:
    return Table(
        title=title,
        caption=escape(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=40,
    )


def _split_table(summary: DatasetSummary) -> Table:
    release = f"Release {summary.release}; " if summary.release else ""
    digest = summary.annotation_digest.rpartition(":")[2]
    table = _table(
        f"{summary.dataset}{escape(f' [{summary.note}]') if summary.note else ''} in {escape(summary.root)}",
        f"{release}sha256 of the annotation {digest[:16]}, fingerprint {summary.fingerprint[:8]}. "
        "Damaged: images that do not decode, not among images and subjects; those of which not even the header can be "
        "read stand among the defects alone. Box: body box, median share of the image's area and shortest side.",
    )
    table.add_column("split")
    headings = ("images", "damaged", "subjects", "labels each", "box area", "min side", "with face")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, split in summary.splits.items():
        area = "" if split.median_box_share is None else f"{100 * split.median_box_share:.1f} %"
        side = "" if split.smallest_box_side is None else f"{split.smallest_box_side:.0f} px"
        counts = (split.images, split.damaged_images, split.subjects)
        table.add_row(name, *map(str, counts), f"{split.labels_per_subject:.2f}", area, side, str(split.faces))
    return table


def _source_table(summary: DatasetSummary) -> Table:
    table = _table("Subjects by where their body box comes from")
    table.add_column("box source", overflow="fold")
    for name in summary.splits:
        table.add_column(name, justify="right", no_wrap=True)
    for source in dict.fromkeys(source for split in summary.splits.values() for source in split.box_sources):
        counts = (split.box_sources.get(source, 0) for split in summary.splits.values())
        table.add_row(escape(printable(source)), *map(str, counts))
    return table


def _category_table(summary: DatasetSummary) -> Table:
    table = _table("Subjects of each category, and their share of the split")
    table.add_column("category")
    for name in summary.splits:
        table.add_column(name, justify="right", no_wrap=True)
    for category in next(iter(summary.splits.values())).categories:
        found = (split.categories[category] for split in summary.splits.values())
        table.add_row(
            escape(printable(category)), *(f"{item.subjects} {100 * item.prevalence:5.1f} %" for item in found)
        )
    return table


def _defect_table(summary: DatasetSummary) -> Table:
    table = _table(
        f"Defects: {sum(defect.count for defect in summary.defects.values())}",
        "By split: of the image or person; blank where it belongs to none, such as a line about an image not there.",
    )
    table.add_column("kind")
    table.add_column("count", justify="right")
    table.add_column("by split")
    table.add_column("such as", overflow="fold")
    for kind, defect in summary.defects.items():
        of_splits = ", ".join(f"{split} {found.count}" for split, found in defect.splits.items())
        table.add_row(escape(kind), str(defect.count), of_splits, escape(printable(defect.examples[0])))
    return table


def _copy_table(summary: DatasetSummary) -> Table:
    uniform, largest = summary.nearly_uniform.count, summary.near_duplicates.largest_group
    images = sum(split.images for split in summary.splits.values())
    table = _table(
        "Copies of pictures",
        f"Near duplicates: perceptual hashes that differ in at most {summary.near_duplicate_distance} of 256 bits, "
        "exact copies not counted again. "
        + (f"{uniform} nearly uniform images were compared for exact copies only. " if uniform else "")
        + (_CHAINED if largest > _CHAIN_SHARE * images else ""),
    )
    table.add_column("kind")
    for heading in ("groups", "copies", "largest group", "groups across splits"):
        table.add_column(heading, justify="right")
    table.add_column("images with a copy in another split")
    for name, copies in (("exact", summary.exact_copies), ("near", summary.near_duplicates)):
        also = [
            f"{count} of {split} in {other}"
            for split, others in copies.images_also_in.items()
            for other, count in others.items()
        ]
        counts = (copies.groups, copies.copies, copies.largest_group, copies.groups_across_splits)
        table.add_row(name, *map(str, counts), ", ".join(also) or "none")
    return table
