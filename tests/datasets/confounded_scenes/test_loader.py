"""An embedded world comes back as its maker wrote it, through the loader of the dataset it imitates."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.counterfactuals import load_counterfactuals
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import load_truth, write_world
from ccim_ray.datasets.images import read_rgb, read_size
from ccim_ray.errors import RequestError

SPLITS = ("train", "val", "test_id", "test_do", "test_anti", "counterfactual")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    roots = {}
    for like in ("caer_s", "emotic", "groupwalk"):
        roots[like] = tmp_path_factory.mktemp(like)
        write_world(WorldSettings(like=like, images=60, image_size=64), roots[like])
    return roots


@pytest.fixture
def world(worlds, tmp_path):
    """A world like CAER-S of one's own, to damage."""
    shutil.copytree(worlds["caer_s"], tmp_path / "world")
    return tmp_path / "world"


@pytest.mark.parametrize("like", ["caer_s", "emotic", "groupwalk"])
def test_every_subject_comes_back_with_what_only_its_maker_knows(worlds, like):
    root = worlds[like]
    dataset = load_confounded_scenes(root)
    assert dataset.name == "confounded_scenes"
    assert dataset.multi_label == (like != "caer_s")
    assert dataset.note == ""
    assert dataset.splits == SPLITS
    assert dataset.test_splits == SPLITS[2:5]
    assert {kind for kind in dataset.defects.counts if kind != "category without pictures"} == set()
    tables = (load_truth(root), load_counterfactuals(root))
    assert [len(table) for table in tables] == [60, 8]
    truth = {row["subject_id"]: row for table in tables for row in table.to_pylist()}
    assert {subject.subject_id for subject in dataset.subjects} == truth.keys()
    assert len(truth) == 68
    for subject in dataset.subjects:
        row = truth[subject.subject_id]
        assert subject.split == row["split"]
        assert subject.scene == row["scene"]
        assert subject.face_box == pytest.approx(row["face_box"])
        assert [list(point) for point in subject.keypoints] == row["keypoints"]
        assert len(subject.keypoints) == 18
        assert [list(box) for box in subject.other_boxes] == row["other_boxes"]
        assert row["emotion"] in dataset.categories
        assert read_rgb(root / subject.image).shape == (64, 64, 3)
        assert read_size(root / subject.depth) == (64, 64)
        x1, y1, x2, y2 = subject.body_box
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 64


def test_body_box_and_labels_are_those_of_the_real_format(world):
    joined, real = load_confounded_scenes(world), load_caer_s(world)
    drawn = joined.subjects[:60]
    assert [(s.subject_id, s.body_box, s.labels) for s in drawn] == [
        (s.subject_id, s.body_box, s.labels) for s in real.subjects
    ]
    assert {s.box_source for s in drawn} == {"user"}


def test_digest_covers_the_truth(world):
    before = load_confounded_scenes(world)
    truth = load_truth(world)
    column = truth.schema.get_field_index("scene")
    renamed = pa.array(["elsewhere"] * len(truth), pa.string())
    pq.write_table(truth.set_column(column, truth.schema.field(column), renamed), world / "truth.parquet")
    after = load_confounded_scenes(world)
    assert after.annotation_digest != before.annotation_digest
    assert {s.scene for s in after.subjects[:60]} == {"elsewhere"}


def test_truth_that_lacks_a_subject_is_refused(world):
    pq.write_table(load_truth(world).slice(1), world / "truth.parquet")
    with pytest.raises(RequestError, match=r"truth.parquet: no row for "):
        load_confounded_scenes(world)


def test_truth_of_another_split_is_refused(world):
    lines = (world / "splits.csv").read_text().splitlines()
    image, _, split = lines[1].rpartition(",")
    assert split == "train"
    (world / "splits.csv").write_text("\n".join([lines[0], f"{image},val", *lines[2:]]))
    with pytest.raises(RequestError, match=r"truth.parquet: .* is in train, the dataset's files say val"):
        load_confounded_scenes(world)


def test_picture_that_cannot_be_read_is_counted(world):
    subject = load_confounded_scenes(world).subjects[0]
    (world / subject.image).write_text("not a picture")
    dataset = load_confounded_scenes(world)
    assert len(dataset.subjects) == 59 + 8
    assert dataset.defects.counts["not an image"] == 1
    assert dataset.defects.counts["subject of the truth that could not be read"] == 1


def test_folder_without_a_world_is_refused_with_the_job_that_makes_one(tmp_path):
    with pytest.raises(RequestError, match=r"world.json: cannot be read .* jobs/make_confounded_scenes.py"):
        load_confounded_scenes(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"like": "imagenet"}', '{"weather": 1}', '{"bias": 2}', "[]"])
def test_malformed_settings_are_refused_in_one_line(world, content):
    (world / "world.json").write_text(content)
    with pytest.raises(RequestError, match=r"world.json: ") as failure:
        load_confounded_scenes(world)
    assert "\n" not in str(failure.value)


def test_world_whose_files_are_of_another_form_is_refused(world):
    chosen = json.loads((world / "world.json").read_text()) | {"like": "groupwalk"}
    (world / "world.json").write_text(json.dumps(chosen))
    with pytest.raises(RequestError, match=r"manifest.jsonl: no such file"):
        load_confounded_scenes(world)


def test_missing_and_damaged_truth_are_refused(world):
    (world / "truth.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(RequestError, match=r"truth.parquet: cannot be read"):
        load_confounded_scenes(world)
    pq.write_table(pa.table({"name": ["a"]}), world / "truth.parquet")
    with pytest.raises(RequestError, match=r"truth.parquet: "):
        load_confounded_scenes(world)
    (world / "truth.parquet").unlink()
    with pytest.raises(RequestError, match=r"truth.parquet: no such file"):
        load_confounded_scenes(world)
