"""The embedded world on disk: real formats, the same bytes every time, and nothing mixed up."""

import csv
import hashlib
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel
from ccim_ray.datasets.confounded_scenes.emotions import CATEGORIES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import (
    TRUTH_SCHEMA,
    finish_world,
    is_complete,
    load_truth,
    world_plan,
    write_chunk,
    write_world,
)
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.errors import RequestError

LIKES = ("caer_s", "emotic", "groupwalk")
SIZE = 64
COUNT = 200


def settings_of(like, **changed):
    return WorldSettings(like=like, images=COUNT, image_size=SIZE, annotator_bias=0.3, **changed)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A finished world of each kind."""
    made = {like: tmp_path_factory.mktemp(like) for like in LIKES}
    for like, root in made.items():
        write_world(settings_of(like), root)
    return made


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def by_id(root):
    return {row["subject_id"]: row for row in load_truth(root).to_pylist()}


def read_csv(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("like", LIKES)
def test_bytes_do_not_depend_on_the_order_of_the_chunks(like, roots, tmp_path):
    settings = settings_of(like)
    rows = []
    for chunk in reversed(world_plan(settings)):
        rows = write_chunk(settings, chunk, tmp_path) + rows
    # A chunk that is written again, as after a lost worker, changes nothing.
    write_chunk(settings, world_plan(settings)[0], tmp_path)
    finish_world(settings, rows[::-1], tmp_path)
    assert digests(tmp_path) == digests(roots[like])


@given(st.builds(WorldSettings, images=st.integers(50, 5_000), like=st.sampled_from(LIKES)))
@hypothesis_settings(max_examples=30, deadline=None)
def test_the_plan_covers_every_picture_once(settings):
    plan = world_plan(settings)
    for split, count in settings.split_sizes().items():
        chunks = [chunk for chunk in plan if chunk.split == split]
        assert chunks[0].start == 0
        assert chunks[-1].stop == count
        assert all(first.stop == second.start for first, second in pairwise(chunks))
        assert all(0 < chunk.stop - chunk.start <= 128 for chunk in chunks)
    twice = sum(chunk.stop - chunk.start for chunk in plan if chunk.split == "counterfactual")
    assert twice == min(300, settings.split_sizes()["test_do"])
    assert sum(chunk.stop - chunk.start for chunk in plan) == settings.images + twice


@pytest.mark.parametrize("like", LIKES)
def test_truth_names_every_picture_and_its_depth(like, roots):
    root, settings = roots[like], settings_of(like)
    truth = load_truth(root)
    assert truth.schema.equals(TRUTH_SCHEMA)
    rows = truth.to_pylist()
    sizes = settings.split_sizes()
    assert {split: sum(row["split"] == split for row in rows) for split in sizes} == sizes
    assert len({row["subject_id"] for row in rows}) == COUNT
    model = CausalModel(settings)
    for split, count in sizes.items():
        latents = model.draw(split, count)
        drawn = [row for row in rows if row["split"] == split]
        assert [row["emotion"] for row in drawn] == [CATEGORIES[like][e] for e in latents.emotion_N]
        assert [row["scene"] for row in drawn] == [latents.scene_name(i) for i in range(count)]
        assert [row["ambiguous"] for row in drawn] == latents.ambiguous_N.tolist()
        assert [len(row["other_boxes"]) for row in drawn] == latents.other_count_N.tolist()
    for row in rows:
        with Image.open(root / row["depth"]) as depth:
            assert (depth.size, depth.mode) == ((SIZE, SIZE), "L")
        assert len(row["keypoints"]) == 18
        for name in ("oracle_observational", "oracle_do", "oracle_subject"):
            assert len(row[name]) == len(CATEGORIES[like])
            if like != "emotic":
                assert math.isclose(sum(row[name]), 1, abs_tol=1e-7)
        for x1, y1, x2, y2 in (row["face_box"], *row["other_boxes"]):
            assert 0 <= x1 < x2 <= SIZE
            assert 0 <= y1 < y2 <= SIZE


@pytest.mark.parametrize(("like", "suffix"), [("caer_s", "png"), ("emotic", "jpg"), ("groupwalk", "jpg")])
def test_pictures_are_of_the_size_asked_for_and_nothing_temporary_is_left(like, suffix, roots):
    pictures = [path for path in roots[like].rglob(f"*.{suffix}") if "depth" not in path.parts]
    assert len(pictures) == COUNT + 26
    assert sum("counterfactual" in path.parts for path in pictures) == 26
    for path in pictures[:40]:
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((SIZE, SIZE), "RGB")
            assert np.asarray(picture).std() > 5
    left = [path.name for path in roots[like].rglob("*") if path.name.startswith(".")]
    assert left == []
    assert not (roots[like] / "world.unfinished.json").exists()


def test_caer_s_files_are_those_of_the_published_face_list(roots):
    root, truth = roots["caer_s"], by_id(roots["caer_s"])
    assert {path.name for path in (root / "CAER-S" / "train").iterdir()} <= {
        "Angry",
        *CATEGORIES["caer_s"][1:],
    }
    assert {path.name for path in (root / "CAER-S" / "test").iterdir()} <= set(CATEGORIES["caer_s"])
    assert (root / "CAER-S" / "train" / "Angry" / "0001.png").is_file()
    listed = set()
    for half in ("train", "test"):
        for line in (root / f"{half}.txt").read_text().splitlines():
            name, label, *corners = line.split(",")
            listed.add(name)
            folder = name.split("/")[1].replace("Angry", "Anger")
            assert name.startswith(f"{half}/")
            assert CATEGORIES["caer_s"][int(label)] == folder
            x1, y1, x2, y2 = map(int, corners)
            face = truth[name]["face_box"]
            # Whole pixels, the last one included, around the true box.
            assert 0 <= face[0] - x1 < 1
            assert 0 <= face[1] - y1 < 1
            assert 0 <= x2 + 1 - face[2] < 1
            assert 0 <= y2 + 1 - face[3] < 1
            assert (half == "train") == (truth[name]["split"] == "train")
    assert listed == set(truth)
    assert {row["image"]: row["split"] for row in read_csv(root / "splits.csv")} == {
        name: row["split"] for name, row in truth.items()
    }
    assert {row["image"] for row in read_csv(root / "body_boxes.csv")} == set(truth)


@pytest.mark.parametrize(("like", "load"), [("caer_s", load_caer_s), ("emotic", load_emotic)])
def test_the_dataset_loader_reads_every_subject_without_a_defect(like, load, roots):
    truth, settings = by_id(roots[like]), settings_of(like)
    written = [row for chunk in world_plan(settings) for row in write_chunk(settings, chunk, roots[like])]
    drawn = {row["subject_id"]: row for row in written}
    dataset = load(roots[like])
    assert dataset.defects.counts == {}
    assert {subject.subject_id for subject in dataset.subjects} == set(truth)
    for subject in dataset.subjects:
        row = truth[subject.subject_id]
        assert subject.split == row["split"]
        if row["split"] in ("test_do", "test_anti") or not row["ambiguous"]:
            assert row["emotion"] in subject.labels
        assert list(subject.body_box) == drawn[subject.subject_id]["body_box"]
        assert list(subject.labels) == drawn[subject.subject_id]["labels"]


def test_emotic_structs_have_the_fields_of_the_release_in_order(roots):
    content = loadmat(roots["emotic"] / "Annotations" / "Annotations.mat", squeeze_me=True, struct_as_record=False)
    assert [key for key in content if not key.startswith("__")] == ["train", "val", "test"]
    sizes = settings_of("emotic").split_sizes()
    tests = sum(count for split, count in sizes.items() if split.startswith("test"))
    assert [len(content[key]) for key in ("train", "val", "test")] == [sizes["train"], sizes["val"], tests]
    person = ["body_bbox", "annotations_categories", "annotations_continuous", "gender", "age"]
    folders = set()
    for key in ("train", "val", "test"):
        several = key != "train"
        fields = [*person[:2], "combined_categories", person[2], "combined_continuous", *person[3:]]
        for image in content[key]:
            assert image._fieldnames == ["filename", "folder", "image_size", "original_database", "person"]
            assert image.image_size._fieldnames == ["n_col", "n_row"]
            assert (roots["emotic"] / "emotic" / image.folder / image.filename).is_file()
            folders.add(image.folder)
            assert image.person._fieldnames == (fields if several else person)
            assert image.person.gender in ("Male", "Female")
            assert image.person.age in ("Kid", "Teenager", "Adult")
            votes = np.atleast_1d(image.person.annotations_categories)
            ratings = np.atleast_1d(image.person.annotations_continuous)
            assert len(votes) == len(ratings) == (3 if several else 1)
            for rating in ratings:
                assert rating._fieldnames == ["valence", "arousal", "dominance"]
                assert all(getattr(rating, name) in range(1, 11) for name in rating._fieldnames)
            chosen = [set(np.atleast_1d(vote.categories)) for vote in votes]
            assert all(chosen)
            if several:
                assert set().union(*chosen) == set(np.atleast_1d(image.person.combined_categories))
                assert image.person.combined_continuous.valence in range(1, 11)
    assert folders == {"mscoco/images", "framesdb/images", "emodb_small/images", "ade20k/images"}


def test_the_mat_header_says_nothing_of_when_and_where(roots):
    header = (roots["emotic"] / "Annotations" / "Annotations.mat").read_bytes()[:128]
    assert header[:116].decode("ascii").startswith("MATLAB 5.0 MAT-file")
    assert b"Created on" not in header
    assert header[124:] == b"\x00\x01IM"


def test_groupwalk_manifest_keeps_a_video_in_one_split_and_one_setting(roots):
    root, truth = roots["groupwalk"], by_id(roots["groupwalk"])
    samples = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    assert {sample["sample_id"] for sample in samples} == set(truth)
    places: dict[str, set[tuple[str, str]]] = {}
    for sample in samples:
        row = truth[sample["sample_id"]]
        video, agent, frame = sample["sample_id"].split("/")
        assert (sample["video_id"], sample["agent_id"], sample["frame_index"]) == (video, agent, int(frame))
        assert sample["image"] == f"frames/{video}/{int(frame):06d}.jpg"
        assert (root / sample["image"]).is_file()
        assert sample["bbox_format"] == "xyxy_0based_halfopen"
        assert sample["box_source"] == "annotation"
        assert set(sample["labels"]) <= set(CATEGORIES["groupwalk"])
        assert (sample["split"], sample["setting"]) == (row["split"], row["scene"])
        x1, y1, x2, y2 = sample["bbox"]
        assert 0 <= x1 < x2 <= SIZE
        assert 0 <= y1 < y2 <= SIZE
        places.setdefault(video, set()).add((sample["split"], sample["setting"]))
    assert all(len(place) == 1 for place in places.values())
    assert 35 <= len(places) <= 45


def test_a_folder_holds_one_world(roots, tmp_path):
    settings = settings_of("caer_s")
    assert is_complete(settings, roots["caer_s"])
    assert not is_complete(settings_of("caer_s", bias=0.2), roots["caer_s"])
    assert not is_complete(settings, tmp_path / "nothing")
    with pytest.raises(RequestError, match="other settings"):
        write_world(settings_of("caer_s", bias=0.2), roots["caer_s"])
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(RequestError, match=r"holiday\.jpg"):
        write_world(settings, tmp_path)
    with pytest.raises(RequestError, match="is a file"):
        write_world(settings, tmp_path / "holiday.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_unfinished_world_is_neither_complete_nor_read_nor_mixed_with_another(tmp_path):
    settings = settings_of("caer_s")
    chunk = world_plan(settings)[-1]
    rows = write_chunk(settings, chunk, tmp_path)
    assert len(rows) == chunk.stop - chunk.start
    assert not is_complete(settings, tmp_path)
    with pytest.raises(RequestError, match="no finished embedded world"):
        load_truth(tmp_path)
    with pytest.raises(ValueError, match=f"each of {COUNT + 26} pictures once"):
        finish_world(settings, rows, tmp_path)
    with pytest.raises(RequestError, match="other settings"):
        write_chunk(settings_of("caer_s", seed=1), chunk, tmp_path)
    assert not is_complete(settings, tmp_path)
