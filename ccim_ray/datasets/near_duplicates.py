"""Pictures that are copies of each other, byte for byte or to the eye, and splits that keep such copies together.

A model that saw a copy of a test picture in training is not being tested. Copies to the eye are found by the
Hamming distance of perceptual hashes (``verification.perceptual_hash``).

Suffixes: N images, U different hashes, W words of a hash; G groups, S splits, K categories and, last, the total.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.verification import Verification
from ccim_ray.errors import RequestError
from ccim_ray.storage import atomic_path

Groups = npt.NDArray[np.intp]
"""A group's number for each image, (N,): images with the same number belong together."""

MAX_DISTANCE = 40
"""Bits of 256 in which the hashes of near duplicates differ at most.

The same share as the customary 10 bits of 64, of which the embedded world's pictures have too many by chance. There,
JPEG quality 50, brightness x 0.8 or x 1.15, half size, a shift by 1 % and a crop of 1 % at each side stay at or below
36 bits, a crop of 2 % at about 40. Of the 32 million pairs of 8,000 pictures drawn independently, many of them of one
scene, 3 come as close."""

MAX_LOW_FREQUENCY_DISTANCE = 12
"""Bits of the first 64 in which they differ at most: copies lose high frequencies first. It loses no copy that
MAX_DISTANCE finds, and three of four words need not be compared for nearly all pairs."""

SPLIT_SEED = 0
"""Seed of the order in which groups of one size are given to splits."""

_BLOCK = 64  # rows of the distance matrix held at a time: 64 x 70,000 words are 36 MB


def exact_groups(verification: Verification) -> Groups:
    """Groups of images whose files are the same bytes."""
    _, group_N = np.unique(np.array(verification.sha256, dtype="S64"), return_inverse=True)
    return np.asarray(group_N, np.intp)


def near_duplicate_groups(verification: Verification) -> Groups:
    """Groups of images that are linked by near duplicates, exact ones among them.

    Links chain: a group holds whatever can be reached from one near duplicate to the next, such as the frames of one
    shot of a film. Nearly uniform pictures, whose hash is noise, would chain what has nothing in common, so they are
    joined only with exact copies.
    """
    exact_N = exact_groups(verification)
    rows = np.flatnonzero(~verification.uniform_N)
    if not len(rows):
        return exact_N
    hashes_UW, hash_of_row = np.unique(verification.hashes_NW[rows], axis=0, return_inverse=True)
    group_U = _linked(len(hashes_UW), _near_pairs(hashes_UW))
    # Images and groups of hashes are the nodes of one graph: exact copies may differ in neither.
    linked_N = exact_N.copy()
    first = int(exact_N.max()) + 1
    joined = _merge(first + len(hashes_UW), exact_N[rows], first + group_U[hash_of_row.ravel()])
    return joined[linked_N]


def _near_pairs(hashes_UW: npt.NDArray[np.uint64]) -> Iterator[tuple[Groups, Groups]]:
    """Pairs of rows within both distances, a block of rows at a time; every pair is compared."""
    low_U = np.ascontiguousarray(hashes_UW[:, 0])
    for start in range(0, len(low_U), _BLOCK):
        distance = np.bitwise_count(low_U[start : start + _BLOCK, None] ^ low_U[None, start:])
        left, right = np.nonzero(distance <= MAX_LOW_FREQUENCY_DISTANCE)
        upper = right > left
        left, right = left[upper] + start, right[upper] + start
        total = np.zeros(len(left), np.uint16)
        for word_U in hashes_UW.T:
            total += np.bitwise_count(word_U[left] ^ word_U[right])
        near = total <= MAX_DISTANCE
        yield left[near], right[near]


def _linked(count: int, pairs: Iterator[tuple[Groups, Groups]]) -> Groups:
    """Connected components; merged block by block, so that many pairs never lie in memory together."""
    group_U = np.arange(count)
    for left, right in pairs:
        if len(left):
            group_U = _merge(count, group_U[left], group_U[right])[group_U]
    return group_U


def _merge(count: int, left: Groups, right: Groups) -> Groups:
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def group_disjoint_split(dataset: Dataset, group_of: Mapping[str, int], seed: int = SPLIT_SEED) -> dict[str, str]:
    """Split the dataset anew, so that no group lies in two splits.

    Each split keeps its share of the subjects and of each category as well as groups allow: groups are given out from
    the largest to the smallest, each to the split that it brings nearest to its share (least chi-square). A group
    larger than a split's share goes where it does least harm, mostly into the largest split, whatever the shares.

    Args:
        dataset: gives the images, their subjects and categories, and the shares.
        group_of: group of each image; an image without one is a group of its own.
        seed: of the order among groups of the same size.

    Returns:
        Split of each image.

    Raises:
        RequestError: a split would be left without a subject.
    """
    names = dataset.splits
    images = list(dict.fromkeys(subject.image for subject in dataset.subjects))
    singles = {image: -1 - number for number, image in enumerate(images) if image not in group_of}
    labels, group_N = np.unique([group_of.get(image, singles.get(image)) for image in images], return_inverse=True)
    row_of = dict(zip(images, group_N.tolist(), strict=True))
    counts_GK = np.zeros((len(labels), len(dataset.categories) + 1))
    share_S = np.zeros(len(names))
    for subject, target_K in zip(dataset.subjects, dataset.targets, strict=True):
        counts_GK[row_of[subject.image]] += (*target_K, 1.0)
        share_S[names.index(subject.split)] += 1 / len(dataset.subjects)
    split_G = _assigned(counts_GK, share_S, np.random.default_rng(seed))
    empty = [name for number, name in enumerate(names) if number not in split_G]
    if empty:
        raise RequestError(
            f"--group-disjoint-split: {len(images)} images of {dataset.root} form {len(labels)} groups of near "
            f"duplicates, the largest of {int(np.bincount(group_N).max())}; that leaves nothing for {empty[0]}"
        )
    return {image: names[split_G[row_of[image]]] for image in images}


def _assigned(
    counts_GK: npt.NDArray[np.float64], share_S: npt.NDArray[np.float64], generator: np.random.Generator
) -> Groups:
    wanted_SK = share_S[:, None] * counts_GK.sum(axis=0)
    weight_SK = 1 / np.maximum(wanted_SK, 1e-9)
    held_SK = np.zeros_like(wanted_SK)
    split_G = np.zeros(len(counts_GK), np.intp)
    shuffled = generator.permutation(len(counts_GK))
    for group in shuffled[np.argsort(-counts_GK[shuffled, -1], kind="stable")]:
        count_K = counts_GK[group]
        # What adding the group changes in the sum of (held - wanted)^2 / wanted.
        change_S = (((2 * (held_SK - wanted_SK) + count_K) * count_K) * weight_SK).sum(axis=1)
        split_G[group] = change_S.argmin()
        held_SK[split_G[group]] += count_K
    return split_G


def write_split_file(dataset: Dataset, split_of: Mapping[str, str], path: Path) -> None:
    """Write a split file that the loader of CAER-S or EMOTIC takes: images relative to the image folder.

    Raises:
        RequestError: ``path`` lies in the data root, exists with other content, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "split"))
    # The image folder is the first part of an image's path, whatever the release calls it.
    writer.writerows((image.partition("/")[2], split) for image, split in split_of.items())
    content = text.getvalue().encode()
    if path.exists() and (not path.is_file() or path.read_bytes() != content):
        raise RequestError(f"--group-disjoint-split {path}: exists and holds something else; name a new file")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def require_splittable(dataset_name: str, root: Path | None, path: Path) -> None:
    """Refuse what cannot be split anew, before anything is read.

    Raises:
        RequestError: the dataset's split stands in its own files, or ``path`` lies in the data root.
    """
    reasons = {
        "confounded_scenes": "the splits of the embedded world differ by design",
        "groupwalk": "its manifest splits whole videos, which keeps their frames together",
    }
    if dataset_name in reasons:
        raise RequestError(f"--group-disjoint-split: {reasons[dataset_name]}; leave the flag out")
    if root and path.resolve().is_relative_to(root.resolve()):
        raise RequestError(
            f"--group-disjoint-split {path}: lies in the data root, which a check leaves as it is; name another file"
        )


def groups_by_image(images: Sequence[str], group_N: Groups) -> dict[str, int]:
    """Group of each image."""
    return dict(zip(images, group_N.tolist(), strict=True))
