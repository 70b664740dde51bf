"""Copies of pictures, and splits that keep them together."""

import io
import shutil

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.dataset import Dataset, Defects, LoadOptions
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.near_duplicates import (
    MAX_DISTANCE,
    MAX_LOW_FREQUENCY_DISTANCE,
    exact_groups,
    group_disjoint_split,
    groups_by_image,
    near_duplicate_groups,
    require_splittable,
    write_split_file,
)
from ccim_ray.datasets.subject import Subject
from ccim_ray.datasets.verification import Verification, perceptual_hash, verify_images
from ccim_ray.errors import RequestError


def verified(hashes_NW, sha256=None, uniform_N=None):
    count = len(hashes_NW)
    return Verification(
        images=tuple(f"{n}.png" for n in range(count)),
        sha256=tuple(sha256 or (f"{n:064x}" for n in range(count))),
        hashes_NW=np.asarray(hashes_NW, np.uint64),
        uniform_N=np.zeros(count, bool) if uniform_N is None else np.asarray(uniform_N),
        damaged=frozenset(),
        defects=Defects(),
    )


def flipped(hash_W, bits):
    changed = hash_W.copy()
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def partition(group_N):
    return {frozenset(np.flatnonzero(group_N == group).tolist()) for group in np.unique(group_N)}


def reference_partition(hashes_NW):
    """Every pair compared in Python integers, groups merged one by one."""
    words = [[int(word) for word in row] for row in hashes_NW]
    group = list(range(len(words)))
    for i, left in enumerate(words):
        for j in range(i):
            bits = [(a ^ b).bit_count() for a, b in zip(left, words[j], strict=True)]
            if bits[0] <= MAX_LOW_FREQUENCY_DISTANCE and sum(bits) <= MAX_DISTANCE:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    return partition(np.array(group))


def test_groups_are_those_of_comparing_every_pair():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (40, 4), np.uint64)
    # Neighbours at all distances about the limits, and neighbours of neighbours, in an order that crosses blocks.
    for _ in range(160):
        parent = hashes[rng.integers(len(hashes))]
        hashes = np.vstack([hashes, flipped(parent, rng.permutation(256)[: rng.integers(0, 60)])])
    hashes = hashes[rng.permutation(len(hashes))]
    found = partition(near_duplicate_groups(verified(hashes)))
    assert found == reference_partition(hashes)
    assert 40 < len(found) < 160


@pytest.mark.parametrize(
    ("bits", "linked"),
    [
        (range(64, 64 + MAX_DISTANCE), True),
        (range(64, 64 + MAX_DISTANCE + 1), False),
        (range(MAX_LOW_FREQUENCY_DISTANCE), True),
        (range(MAX_LOW_FREQUENCY_DISTANCE + 1), False),
    ],
)
def test_the_limits_are_inclusive(bits, linked):
    base = np.random.default_rng(1).integers(0, 2**64, 4, np.uint64)
    first, second = near_duplicate_groups(verified([base, flipped(base, bits)]))
    assert (first == second) == linked


def test_exact_copies_are_groups_whatever_their_hash():
    hashes = np.random.default_rng(2).integers(0, 2**64, (4, 4), np.uint64)
    sha256 = ["a" * 64, "b" * 64, "a" * 64, "c" * 64]
    verification = verified(hashes, sha256)
    assert partition(exact_groups(verification)) == {frozenset({0, 2}), frozenset({1}), frozenset({3})}
    assert partition(near_duplicate_groups(verification)) == partition(exact_groups(verification))


def test_uniform_pictures_do_not_chain():
    hashes = np.zeros((5, 4), np.uint64)
    sha256 = [letter * 64 for letter in "aabcd"]
    uniform = [True, True, True, False, False]
    groups = partition(near_duplicate_groups(verified(hashes, sha256, uniform)))
    assert groups == {frozenset({0, 1}), frozenset({2}), frozenset({3, 4})}


def test_nothing_and_one_picture():
    assert len(near_duplicate_groups(verified(np.empty((0, 4))))) == 0
    assert len(near_duplicate_groups(verified(np.zeros((1, 4))))) == 1


def jpeg(picture, quality):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


CHANGES = {
    "jpeg of quality 60": lambda picture: jpeg(picture, 60),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "darker and a JPEG": lambda picture: jpeg(ImageEnhance.Brightness(picture).enhance(0.85), 80),
    "half size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped by 1 % a side": lambda picture: picture.crop((1, 1, picture.width - 1, picture.height - 1)),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Root and dataset of 128 px pictures of different scenes."""
    root = tmp_path_factory.mktemp("pictures")
    write_world(WorldSettings(like="caer_s", images=60, image_size=128), root)
    return root, load_caer_s(root)


def test_different_pictures_are_not_copies(pictures):
    _, dataset = pictures
    assert len(np.unique(near_duplicate_groups(verify_images(dataset)))) == 60


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found(pictures, change):
    root, dataset = pictures
    opened = [Image.open(root / subject.image).convert("RGB") for subject in dataset.subjects]
    hashes = [perceptual_hash(np.array(picture)) for picture in opened]
    hashes += [perceptual_hash(np.array(change(picture))) for picture in opened]
    expected = {frozenset({n, n + 60}) for n in range(60)}
    assert partition(near_duplicate_groups(verified(hashes))) == expected


def made_dataset(splits, labels, root):
    subjects = tuple(
        Subject(
            subject_id=f"{n}",
            image=f"CAER-S/{n}.png",
            width=9,
            height=9,
            split=split,
            body_box=(0, 0, 9, 9),
            labels=(label,),
            box_source="user",
        )
        for n, (split, label) in enumerate(zip(splits, labels, strict=True))
    )
    return Dataset(
        name="caer_s",
        root=root,
        categories=("a", "b"),
        multi_label=False,
        subjects=subjects,
        defects=Defects(),
        annotation_digest="",
    )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_group_lies_in_two_splits(tmp_path_factory, data):
    splits = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=30, max_size=60))
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(splits), max_size=len(splits)))
    groups = data.draw(st.lists(st.integers(0, 20), min_size=len(splits), max_size=len(splits)))
    dataset = made_dataset(splits, labels, tmp_path_factory.getbasetemp())
    known = data.draw(st.integers(0, len(splits)))  # the rest have no group
    group_of = {subject.image: group for subject, group in list(zip(dataset.subjects, groups, strict=True))[:known]}
    try:
        split_of = group_disjoint_split(dataset, group_of)
    except RequestError:  # too few groups: test_a_group_of_everything_leaves_a_split_empty
        assume(False)
    assert set(split_of) == {subject.image for subject in dataset.subjects}
    assert set(split_of.values()) == set(splits)
    for group in set(group_of.values()):
        assert len({split_of[image] for image in group_of if group_of[image] == group}) == 1


def shares(names, of):
    return {name: sum(item == name for item in of) / len(of) for name in names}


def test_shares_and_categories_are_kept():
    rng = np.random.default_rng(3)
    splits = ["train"] * 700 + ["val"] * 100 + ["test"] * 200
    labels = rng.choice(["a", "b"], 1000, p=[0.15, 0.85])
    dataset = made_dataset(splits, labels, None)
    group_of = {subject.image: int(rng.integers(250)) for subject in dataset.subjects}
    split_of = group_disjoint_split(dataset, group_of)
    found = shares(("train", "val", "test"), list(split_of.values()))
    assert found == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.005)
    for split in ("train", "val", "test"):
        of_split = [subject.labels[0] for subject in dataset.subjects if split_of[subject.image] == split]
        assert shares("a", of_split)["a"] == pytest.approx((labels == "a").mean(), abs=0.015)


def test_the_same_seed_gives_the_same_split():
    dataset = made_dataset(["train"] * 60 + ["test"] * 40, ["a"] * 100, None)
    first = group_disjoint_split(dataset, {}, seed=0)
    assert group_disjoint_split(dataset, {}, seed=0) == first
    assert group_disjoint_split(dataset, {}, seed=1) != first


def test_a_group_of_everything_leaves_a_split_empty():
    dataset = made_dataset(["train"] * 6 + ["test"] * 4, ["a"] * 10, None)
    with pytest.raises(RequestError, match=r"10 images .* form 1 groups .* largest of 10; .* nothing for test"):
        group_disjoint_split(dataset, {subject.image: 0 for subject in dataset.subjects})


@pytest.mark.parametrize(("like", "load"), [("caer_s", load_caer_s), ("emotic", load_emotic)])
def test_the_loader_takes_the_split_file(tmp_path, like, load):
    root = tmp_path / "world"
    write_world(WorldSettings(like=like, images=60, image_size=64), root)
    (root / "splits.csv").unlink()
    dataset = load(root)
    pairs = [(dataset.subjects[n].image, dataset.subjects[-1 - n].image) for n in range(15)]
    for first, second in pairs:
        shutil.copy(root / first, root / second)
    dataset = load(root)
    verification = verify_images(dataset)
    group_of = groups_by_image(verification.images, near_duplicate_groups(verification))
    split_of = group_disjoint_split(dataset, group_of)
    write_split_file(dataset, split_of, tmp_path / "disjoint.csv")
    again = load(root, LoadOptions(split_file=tmp_path / "disjoint.csv"))
    assert again.defects.counts == {}
    assert {subject.image: subject.split for subject in again.subjects} == split_of
    assert any(subject.split != split_of[subject.image] for subject in dataset.subjects)
    assert all(split_of[first] == split_of[second] for first, second in pairs)


def test_an_existing_file_is_kept(tmp_path):
    dataset = made_dataset(["train", "test"], "ab", tmp_path)
    path = tmp_path / "split.csv"
    write_split_file(dataset, {"CAER-S/0.png": "train"}, path)
    write_split_file(dataset, {"CAER-S/0.png": "train"}, path)
    with pytest.raises(RequestError, match=r"split.csv: exists and holds something else"):
        write_split_file(dataset, {"CAER-S/0.png": "test"}, path)
    assert path.read_text() == "image,split\n0.png,train\n"


def test_what_cannot_be_split_anew(tmp_path):
    for name in ("groupwalk", "confounded_scenes"):
        with pytest.raises(RequestError, match="leave the flag out"):
            require_splittable(name, tmp_path, tmp_path / "x.csv")
    with pytest.raises(RequestError, match="lies in the data root"):
        require_splittable("caer_s", tmp_path, tmp_path / "splits.csv")
    require_splittable("caer_s", tmp_path / "data", tmp_path / "splits.csv")
