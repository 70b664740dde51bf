"""Planted defects: what was planted is what the real loaders and a full decode find, kind by kind."""

import hashlib
import json
import shutil
import zlib
from collections import Counter

import numpy as np
import pytest
from job_runs import run_job
from PIL import Image

from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import (
    finish_world,
    is_complete,
    load_truth,
    world_plan,
    write_chunk,
    write_world,
)
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.images import UnreadableImage, read_rgb
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.verification import verify_images
from ccim_ray.errors import RequestError

LIKES = ("caer_s", "emotic", "groupwalk")
COUNT = 200
# One and four pictures of each kind: every variant of a box is among four.
RATES = {0.005: 1, 0.02: 4}
IMAGE_FOLDER = {"caer_s": "CAER-S", "emotic": "emotic", "groupwalk": "."}
NEAR_DUPLICATE = "near-duplicate image across splits"

BOXES = {"body box that leaves the image: clipped", "body box that holds no pixel of the image"}
UNDECODABLE = {"not an image", "truncated or damaged image"}
KINDS = {
    "caer_s": {
        *BOXES,
        *UNDECODABLE,
        "face box that leaves the image: clipped",
        "face box that holds no pixel of the image",
        "no box",
        "face of an image that is not there",
        "body box of an image that is not there",
        "second face of an image: the first is kept",
        "label of the face file is not the folder's: the folder's is kept",
        "file that is no .png or .jpg",
        "image not in splits.csv",
        NEAR_DUPLICATE,
    },
    "emotic": {
        *BOXES,
        *UNDECODABLE,
        "missing image",
        "image in train and in val: left out of train",
        "image_size of the annotation is not the image's",
        "combined_categories are not the union of the votes",
        "body box that is not four numbers",
        "same box twice in an image: both kept",
        "person without labels",
        "person without valence, arousal or dominance: kept",
    },
    "groupwalk": {
        *BOXES,
        *UNDECODABLE,
        "missing image",
        "agent twice in an image: both kept",
        "agent without labels",
    },
}


def settings_of(like, images=COUNT, seed=0):
    return WorldSettings(like=like, images=images, image_size=64, seed=seed)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A finished world of each kind at each rate."""
    made = {}
    for like in LIKES:
        for rate in RATES:
            made[like, rate] = tmp_path_factory.mktemp(like)
            write_world(settings_of(like), made[like, rate], rate)
    return made


def planted(root):
    return json.loads((root / "planted_defects.json").read_text())


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def found(like, root, options=None):
    """Counts and examples of the loader, and of decoding every subject's picture."""
    dataset = load_dataset(like, root, options) if options else load_dataset(like, root)
    counts = Counter(dataset.defects.counts)
    examples = {kind: list(shown) for kind, shown in dataset.defects.examples.items()}
    for image in sorted({subject.image for subject in dataset.subjects}):
        try:
            read_rgb(root / image)
        except UnreadableImage as failure:
            counts[failure.reason] += 1
            within = (root / image).relative_to(root / IMAGE_FOLDER[like]).as_posix()
            examples.setdefault(failure.reason, []).append(within)
    return dataset, dict(counts), examples


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("like", LIKES)
def test_what_was_planted_is_what_is_found(worlds, like, rate):
    root = worlds[like, rate]
    record = planted(root)
    assert (record["like"], record["rate"]) == (like, rate)
    assert record["defects"].keys() == KINDS[like]
    assert {entry["count"] for entry in record["defects"].values()} == {RATES[rate]}
    assert all(len(set(entry["where"])) == entry["count"] for entry in record["defects"].values())
    expected = {kind: entry for kind, entry in record["defects"].items() if kind != NEAR_DUPLICATE}
    _, counts, examples = found(like, root)
    assert counts == {kind: entry["count"] for kind, entry in expected.items()}
    assert {kind: sorted(shown) for kind, shown in examples.items()} == {
        kind: sorted(entry["where"]) for kind, entry in expected.items()
    }


WITHOUT_SPLIT = {
    "face of an image that is not there",
    "body box of an image that is not there",
    "file that is no .png or .jpg",
    "image not in splits.csv",
}


@pytest.mark.parametrize("like", LIKES)
def test_each_defect_is_counted_in_the_split_of_its_picture(worlds, like):
    root = worlds[like, 0.02]
    split_of = {row["subject_id"]: row["split"] for row in load_truth(root).to_pylist()}
    of_picture = {}
    for subject_id, split in split_of.items():
        video, _, frame = subject_id.rpartition("/")
        picture = f"frames/{video.split('/')[0]}/{int(frame):06d}.jpg" if like == "groupwalk" else subject_id
        of_picture[picture.removesuffix("#0")] = split
    expected = {}
    for kind, entry in planted(root)["defects"].items():
        if kind == NEAR_DUPLICATE:
            continue
        for where in entry["where"]:
            name = where.rpartition(": ")[2].removesuffix("/again")
            split = None if kind in WITHOUT_SPLIT else split_of.get(name) or of_picture[name.partition("#")[0]]
            expected.setdefault(kind, set()).add((where, split))
    found = verify_images(load_dataset(like, root)).defects.found
    folder = "" if like == "groupwalk" else f"{IMAGE_FOLDER[like]}/"
    assert {k: {(where.removeprefix(folder), split) for where, split in v} for k, v in found.items()} == expected
    assert len({split for places in expected.values() for _, split in places}) > 3


@pytest.mark.parametrize("like", LIKES)
def test_counts_hold_in_the_smallest_world_for_any_seed(like, tmp_path):
    for seed in range(4):
        root = tmp_path / str(seed)
        write_world(settings_of(like, images=50, seed=seed), root, 0.001)
        expected = {kind: entry["count"] for kind, entry in planted(root)["defects"].items()}
        expected.pop(NEAR_DUPLICATE, None)
        assert found(like, root)[1] == expected
        assert all(count == 1 for kind, count in expected.items() if kind != "category without pictures")


@pytest.mark.parametrize("like", LIKES)
def test_quirks_load_and_are_what_they_are_called(worlds, like):
    root = worlds[like, 0.02]
    names = {"caer_s": {"4-channel PNG", "16-bit grey PNG"}}.get(like, {"grey JPEG", "CMYK JPEG"})
    modes = {"4-channel PNG": "RGBA", "16-bit grey PNG": "I;16", "grey JPEG": "L", "CMYK JPEG": "CMYK"}
    quirks = planted(root)["quirks"]
    assert quirks.keys() == names
    readable = {subject.image for subject in load_dataset(like, root).subjects}
    for kind, entry in quirks.items():
        assert entry["count"] == len(entry["where"]) == 4
        for where in entry["where"]:
            path = root / IMAGE_FOLDER[like] / where
            assert path.relative_to(root).as_posix() in readable
            with Image.open(path) as picture:
                assert picture.mode == modes[kind]
                assert picture.format == kind.rsplit(maxsplit=1)[-1]
            assert read_rgb(path).std() > 5


@pytest.mark.parametrize("like", LIKES)
def test_everything_else_is_as_without_defects(worlds, like, tmp_path):
    """The other pictures keep their bytes, their boxes and their labels."""
    root = worlds[like, 0.02]
    write_world(settings_of(like), tmp_path)
    record = planted(root)
    entries = (*record["defects"].values(), *record["quirks"].values())
    touched = " ".join(where for entry in entries for where in entry["where"])
    clean = {subject.subject_id: subject for subject in load_dataset(like, tmp_path).subjects}
    spoilt = {subject.subject_id: subject for subject in load_dataset(like, root).subjects}
    untouched = {
        name: subject
        for name, subject in clean.items()
        if name not in touched and subject.image.partition("/")[2] not in touched and subject.image not in touched
    }
    assert len(untouched) > COUNT / 2
    assert {name: spoilt.get(name) for name in untouched} == untouched
    assert all((root / s.image).read_bytes() == (tmp_path / s.image).read_bytes() for s in untouched.values())


def test_a_defect_costs_what_the_loader_says(worlds):
    emotic = worlds["emotic", 0.02]
    record = planted(emotic)["defects"]
    split_of = {subject.subject_id: subject.split for subject in load_dataset("emotic", emotic).subjects}
    for image in record["image in train and in val: left out of train"]["where"]:
        assert split_of[f"{image}#0"] == "val"
    for second in record["same box twice in an image: both kept"]["where"]:
        assert {second, second.replace("#1", "#0")} <= split_of.keys()
    for kind in ("body box that is not four numbers", "person without labels"):
        assert not set(record[kind]["where"]) & split_of.keys()
    kept, counts, _ = found("emotic", emotic, LoadOptions(drop_overlap=False))
    assert counts["image in train and in val: kept in both"] == 4
    assert len(kept.subjects) == len(split_of) + 4

    caer_s = worlds["caer_s", 0.02]
    record = planted(caer_s)["defects"]
    by_id = {subject.subject_id: subject for subject in load_dataset("caer_s", caer_s).subjects}
    for where in record["body box that holds no pixel of the image"]["where"]:
        assert by_id[where].box_source == "face"
    for where in record["label of the face file is not the folder's: the folder's is kept"]["where"]:
        assert by_id[where].labels[0][:3] == where.split("/")[1][:3]


def test_a_near_duplicate_is_a_picture_of_train_a_little_changed(worlds):
    root = worlds["caer_s", 0.02]
    record = planted(root)
    copies = record["copies"]
    assert sorted(copies) == sorted(record["defects"][NEAR_DUPLICATE]["where"])
    assert len(set(copies.values())) == 4
    subjects = {subject.subject_id: subject for subject in load_dataset("caer_s", root).subjects}
    truth = {row["subject_id"]: row for row in load_truth(root).to_pylist()}
    for copy, original in copies.items():
        assert subjects[copy].split.startswith("test")
        assert subjects[original].split == "train"
        assert subjects[copy].labels == subjects[original].labels
        assert subjects[copy].body_box == subjects[original].body_box
        assert truth[copy]["face_box"] == truth[original]["face_box"]
        assert (root / "CAER-S" / copy).read_bytes() != (root / "CAER-S" / original).read_bytes()
        pixels = [read_rgb(root / "CAER-S" / name).astype(float) for name in (copy, original)]
        assert np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1] > 0.93
        assert 3 < pixels[0].mean() - pixels[1].mean() < 9


@pytest.mark.parametrize("like", LIKES)
def test_bytes_do_not_depend_on_the_order_of_the_chunks_or_on_an_interruption(worlds, like, tmp_path):
    settings, rate = settings_of(like), 0.02
    write_chunk(settings, world_plan(settings)[1], tmp_path, rate)
    assert not is_complete(settings, tmp_path, rate)
    rows = [row for chunk in reversed(world_plan(settings)) for row in write_chunk(settings, chunk, tmp_path, rate)]
    finish_world(settings, rows, tmp_path, rate)
    assert digests(tmp_path) == digests(worlds[like, rate])
    assert is_complete(settings, tmp_path, rate)
    write_world(settings, tmp_path, rate)
    assert digests(tmp_path) == digests(worlds[like, rate])


def test_another_seed_plants_elsewhere(worlds, tmp_path):
    write_world(settings_of("groupwalk", seed=1), tmp_path, 0.02)
    here, there = planted(tmp_path)["defects"], planted(worlds["groupwalk", 0.02])["defects"]
    assert here.keys() == there.keys()
    assert here != there


def test_a_folder_holds_a_world_of_one_rate(worlds, tmp_path):
    settings, with_defects = settings_of("emotic"), worlds["emotic", 0.02]
    before = digests(with_defects)
    for rate in (0.0, 0.005):
        assert not is_complete(settings, with_defects, rate)
        with pytest.raises(RequestError, match="other planted defects"):
            write_world(settings, with_defects, rate)
    assert digests(with_defects) == before
    write_chunk(settings, world_plan(settings)[1], tmp_path / "clean")
    with pytest.raises(RequestError, match="no planted defects"):
        write_world(settings, tmp_path / "clean", 0.02)
    # Interrupted after the first of two marks: it goes on, and only as what it was.
    (tmp_path / "begun").mkdir()
    shutil.copy(with_defects / "planted_defects.json", tmp_path / "begun")
    with pytest.raises(RequestError, match="other planted defects"):
        write_world(settings, tmp_path / "begun")
    write_world(settings, tmp_path / "begun", 0.02)
    assert digests(tmp_path / "begun") == before


@pytest.mark.parametrize("like", LIKES)
def test_a_rate_too_high_is_refused_before_anything_is_written(like, tmp_path):
    for rate in (-0.1, 0.21, float("nan"), 0.15):
        with pytest.raises(RequestError, match=f"--defects {rate:g}: [^\n]+$"):
            write_world(settings_of(like), tmp_path / "world", rate)
    assert not (tmp_path / "world").exists()


def test_it_is_read_as_the_real_dataset_only(worlds):
    with pytest.raises(RequestError, match=r"planted_defects\.json: .*--dataset groupwalk$"):
        load_confounded_scenes(worlds["groupwalk", 0.02])


def test_the_job_refuses_a_rate_in_one_line(tmp_path):
    out = tmp_path / "world"
    ended = run_job("make_confounded_scenes", "--images", "100", "--out", str(out), "--defects", "0.3")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "error: --defects 0.3: give a share of the pictures from 0 to 0.2\n"
    assert not out.exists()


GOLDEN = {
    "caer_s": "c44141feb55a97eda23f297c7a266918c7ad0c4b521c452f4a206e28b943ad9d",
    "emotic": "9f728a1506e89e68e642b479bd6230d913107bebbe0505c89db5368e07f0a1e0",
    "groupwalk": "05d95e4b3bfa5830dc6b2f400ead0725ac2efd070d9f9e2b175708547b4b6186",
}


@pytest.mark.parametrize("like", LIKES)
def test_annotations_without_defects_are_those_from_before_there_were_any(like, tmp_path):
    """Cached worlds stay valid: their bytes may not change with what can be planted."""
    settings = settings_of(like)
    write_world(settings, tmp_path)
    assert not (tmp_path / "planted_defects.json").exists()
    digest = hashlib.sha256()
    names = {"caer_s": ("train.txt", "test.txt", "body_boxes.csv", "splits.csv"), "groupwalk": ("manifest.jsonl",)}
    for name in names.get(like, ("splits.csv",)):
        digest.update((tmp_path / name).read_bytes())
    if like == "emotic":
        for struct in uncompressed((tmp_path / "Annotations" / "Annotations.mat").read_bytes()):
            digest.update(struct)
    assert digest.hexdigest() == GOLDEN[like]


def uncompressed(mat):
    """The top elements of a MATLAB file, whose compressed bytes depend on the version of zlib."""
    start = 128
    while start < len(mat):
        length = int.from_bytes(mat[start + 4 : start + 8], "little")
        yield zlib.decompress(mat[start + 8 : start + 8 + length])
        start += 8 + length
