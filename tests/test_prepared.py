"""What the preparing stages write is what a trial reads, row for row, and damage is named."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.prepared import (
    SubjectIndex,
    TrialInputs,
    TrialPaths,
    ViewRows,
    read_shards,
    read_subject_index,
    write_shard,
    write_subject_index,
)

IDS = tuple(f"subject-{number}" for number in range(10))
REASONS = (None, None, "missing image", *[None] * 6, "truncated")


def make_rows(kind):
    rng = np.random.default_rng(0)
    if kind == ".parquet":
        return rng.normal(size=(10, 7)).astype(np.float32)
    return rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def write_all(folder, kind, rows, cuts=(4, 6)):
    bounds = [0, *cuts, len(rows)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        path = folder / f"shard-{number:05d}{kind}"
        write_shard(path, list(IDS[start:stop]), rows[start:stop], list(REASONS[start:stop]))


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_shards_come_back_as_they_were(tmp_path, kind):
    rows = make_rows(kind)
    write_all(tmp_path, kind, rows)
    view = read_shards(tmp_path, IDS)
    assert len(view) == 10
    assert view.row_shape == rows.shape[1:]
    assert view.reasons == REASONS
    taken = view.take(np.arange(10))
    assert taken.dtype == rows.dtype
    np.testing.assert_array_equal(taken, rows)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [kind] * 3


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_the_same_rows_make_the_same_bytes(tmp_path, kind):
    for folder in (tmp_path / "one", tmp_path / "other"):
        write_all(folder, kind, make_rows(kind))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_values_that_are_not_finite_survive(tmp_path):
    rows = make_rows(".parquet")
    rows[0, :3] = np.nan, np.inf, -0.0
    write_all(tmp_path, ".parquet", rows)
    assert read_shards(tmp_path, IDS).take(np.arange(10)).tobytes() == rows.tobytes()


def test_pictures_stay_on_the_disk(tmp_path):
    pictures = np.zeros((256, 64, 64, 3), np.uint8)
    ids = [str(number) for number in range(256)]
    write_shard(tmp_path / "shard-00000.arrow", ids, pictures, [None] * 256)
    before = pa.total_allocated_bytes()
    view = read_shards(tmp_path, tuple(ids))
    assert pa.total_allocated_bytes() - before < pictures.nbytes / 2
    assert not view.shards[0].flags.owndata
    assert view.take(np.array([255, 0])).flags.writeable


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any),
    picks=st.lists(st.integers(0, 10**6), max_size=20),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=3),
)
def test_rows_in_any_order_are_those_of_the_whole(sizes, picks, shape):
    total = sum(sizes)
    whole = np.random.default_rng(total).integers(0, 256, (total, *shape), dtype=np.uint8)
    view = ViewRows(tuple(np.split(whole, np.cumsum(sizes)[:-1])), (None,) * total)
    rows = np.array(picks, np.int64) % total
    taken = view.take(rows)
    np.testing.assert_array_equal(taken, whole[rows])
    assert taken.dtype == whole.dtype
    assert not np.shares_memory(taken, whole)


def test_a_row_that_does_not_exist_is_an_error():
    view = ViewRows((np.zeros((2, 3)), np.zeros((2, 3))), (None,) * 4)
    with pytest.raises(IndexError):
        view.take(np.array([4]))


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "replaced"])
def test_a_damaged_shard_is_named(tmp_path, kind, damage):
    write_all(tmp_path, kind, make_rows(kind))
    path = tmp_path / f"shard-00001{kind}"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-40], "emptied": b"", "replaced": b"not a shard at all"}[damage])
    with pytest.raises(RequestError) as error:
        read_shards(tmp_path, IDS)
    assert str(path) in str(error.value)
    assert "delete it" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_changed_value_inside_a_feature_shard_is_noticed(tmp_path):
    rows = make_rows(".parquet")
    write_all(tmp_path, ".parquet", rows)
    path = tmp_path / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    place = content.index(rows[4].tobytes())
    content[place + 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"shard-00001\.parquet"):
        read_shards(tmp_path, IDS)


def test_rows_that_are_missing_doubled_or_of_others_are_refused(tmp_path):
    rows = make_rows(".parquet")
    write_all(tmp_path / "lacking", ".parquet", rows)
    (tmp_path / "lacking" / "shard-00001.parquet").unlink()
    write_all(tmp_path / "whole", ".parquet", rows)
    (tmp_path / "empty").mkdir()
    wrong = [
        (tmp_path / "lacking", IDS),
        (tmp_path / "empty", IDS),
        (tmp_path / "nowhere", IDS),
        (tmp_path / "whole", IDS[:-1]),
        (tmp_path / "whole", (*IDS[1:], IDS[0])),
    ]
    for folder, ids in wrong:
        with pytest.raises(RequestError, match=f"{folder} holds"):
            read_shards(folder, ids)


def test_a_full_disk_leaves_no_half_shard(tmp_path, full_disk):
    for kind, rows in ((".parquet", np.zeros((64, 512), np.float32)), (".arrow", np.zeros((64, 64, 64, 3), "u1"))):
        with full_disk(), pytest.raises(RequestError, match="--storage"):
            write_shard(tmp_path / f"shard-00000{kind}", [str(n) for n in range(64)], rows, [None] * 64)
    assert list(tmp_path.iterdir()) == []


def test_the_index_holds_what_the_dataset_holds(tmp_path, small_world):
    dataset = load_dataset("confounded_scenes", small_world)
    write_subject_index(dataset, tmp_path / "subjects.parquet")
    index = read_subject_index(tmp_path / "subjects.parquet")
    assert index.subject_ids == tuple(subject.subject_id for subject in dataset.subjects)
    assert index.splits.tolist() == [subject.split for subject in dataset.subjects]
    np.testing.assert_array_equal(index.targets, dataset.targets)
    assert index.targets.dtype == np.float32
    assert (index.categories, index.multi_label) == (dataset.categories, dataset.multi_label)
    assert (index.metric, index.test_splits) == ("accuracy", ("test_id", "test_do", "test_anti"))


def test_the_index_follows_agents_through_their_frames(tmp_path, small_world):
    dataset = load_dataset("confounded_scenes", small_world)
    assert read_back(dataset, tmp_path).agents is None
    agents = [f"video/{row // 2}" for row in range(len(dataset.subjects))]
    followed = tuple(replace(s, agent=agent) for s, agent in zip(dataset.subjects, agents, strict=True))
    assert read_back(replace(dataset, subjects=followed), tmp_path).agents.tolist() == agents
    # Each agent once: nothing to average.
    alone = tuple(replace(subject, agent=subject.subject_id) for subject in dataset.subjects)
    assert read_back(replace(dataset, subjects=alone), tmp_path).agents is None


def test_an_index_from_before_agents_is_still_read(tmp_path, small_world):
    dataset = load_dataset("confounded_scenes", small_world)
    write_subject_index(dataset, tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet").drop_columns("agent")
    facts = {b"ccim_ray": table.schema.metadata[b"ccim_ray"]}  # there was no digest either
    pq.write_table(table.replace_schema_metadata(facts), tmp_path / "old.parquet")
    index = read_subject_index(tmp_path / "old.parquet")
    assert index.agents is None
    assert index.subject_ids == tuple(subject.subject_id for subject in dataset.subjects)


def read_back(dataset, folder):
    write_subject_index(dataset, folder / "index.parquet")
    return read_subject_index(folder / "index.parquet")


def test_the_index_keeps_several_labels_and_none(tmp_path):
    def subject(number, split, labels):
        return Subject(
            subject_id=f"s{number}",
            image=f"{number}.jpg",
            width=9,
            height=9,
            split=split,
            body_box=(0.0, 0.0, 5.0, 5.0),
            labels=labels,
            box_source="annotation",
        )

    dataset = Dataset(
        name="emotic",
        root=tmp_path,
        categories=("Anger", "Peace", "Pain"),
        multi_label=True,
        subjects=(
            subject(0, "train", ("Pain", "Anger")),
            subject(1, "test", ()),
            subject(2, "val", ("Peace",)),
        ),
        defects=Defects(),
        annotation_digest="0",
    )
    write_subject_index(dataset, tmp_path / "subjects.parquet")
    index = read_subject_index(tmp_path / "subjects.parquet")
    assert index.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert (index.metric, index.test_splits) == ("mAP", ("test",))


def write_inputs(folder):
    """Three subjects with one view and a dictionary; returns their paths."""
    subjects = [
        Subject(
            subject_id=IDS[number],
            image=f"{number}.jpg",
            width=9,
            height=9,
            split=split,
            body_box=(0.0, 0.0, 5.0, 5.0),
            labels=("Anger",),
            box_source="annotation",
        )
        for number, split in enumerate(("train", "val", "train"))
    ]
    dataset = Dataset(
        name="caer_s",
        root=folder,
        categories=("Anger", "Fear"),
        multi_label=False,
        subjects=tuple(subjects),
        defects=Defects(),
        annotation_digest="0",
    )
    write_subject_index(dataset, folder / "subjects.parquet")
    write_shard(folder / "context" / "shard-00000.parquet", list(IDS[:3]), np.eye(3, dtype="f4"), [None] * 3)
    ConfounderDictionary.random(4, 3).save(folder / "dictionary.safetensors")
    return TrialPaths(
        folder=str(folder / "trial"),
        subjects=str(folder / "subjects.parquet"),
        views={"context": str(folder / "context")},
        dictionary=str(folder / "dictionary.safetensors"),
    )


def test_a_trial_reads_all_its_inputs(tmp_path):
    inputs = write_inputs(tmp_path).read()
    np.testing.assert_array_equal(inputs.views["context"].take(np.array([2, 0])), np.eye(3)[[2, 0]])
    assert inputs.dictionary.size == 4
    assert inputs.rows("train").tolist() == [0, 2]
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "another table"])
@pytest.mark.parametrize("name", ["subjects.parquet", "context/shard-00000.parquet", "dictionary.safetensors"])
def test_an_input_that_is_missing_or_damaged_is_named(tmp_path, name, damage):
    paths = write_inputs(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        pq.write_table(pa.table({"something": [1, 2, 3]}), path)
    with pytest.raises(RequestError) as error:
        paths.read()
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_of_a_split_are_those_usable_in_every_view():
    index = SubjectIndex(
        subject_ids=IDS[:6],
        splits=np.array(["train", "val", "train", "test", "train", "val"]),
        targets=np.zeros((6, 2), np.float32),
        categories=("a", "b"),
        multi_label=True,
    )
    blank = np.zeros((6, 1), np.float32)
    views = {
        "context": ViewRows((blank,), ("bad", None, None, None, None, None)),
        "body": ViewRows((blank[:2], blank[2:]), (None, None, None, None, "bad", None)),
    }
    inputs = TrialInputs(index, views, None)
    assert inputs.rows("train").tolist() == [2]
    assert inputs.rows("val").tolist() == [1, 5]
    assert inputs.rows("test_do").tolist() == []


def test_counterfactuals_are_found_by_the_place_of_their_subject():
    splits = ["train", "test_do", "counterfactual", "test_do", "test_do", "counterfactual", "counterfactual"]
    index = SubjectIndex(
        subject_ids=tuple(f"s{number}" for number in range(7)),
        splits=np.array(splits),
        targets=np.zeros((7, 2), np.float32),
        categories=("a", "b"),
        multi_label=True,
        factual_rows=np.array([-1, -1, 4, -1, -1, 3, 1]),
    )
    blank = np.zeros((7, 1), np.float32)

    def found(bad, split="test_do", index=index):
        reasons = tuple("bad" if row == bad else None for row in range(7))
        inputs = TrialInputs(index, {"body": ViewRows((blank,), reasons)}, None)
        pairs = inputs.counterfactuals(inputs.rows(split))
        return None if pairs is None else [array.tolist() for array in pairs]

    assert found(bad=None) == [[2, 1, 0], [2, 5, 6]]
    assert found(bad=5) == [[2, 0], [2, 6]]  # unusable in the other scene
    assert found(bad=1) == [[1, 0], [2, 5]]  # unusable in its own
    assert found(bad=4) == [[1, 0], [5, 6]]
    assert found(bad=None, split="train") is None
    assert found(bad=None, index=replace(index, factual_rows=None)) is None


def test_the_index_on_disk_keeps_who_is_whose_counterfactual(tmp_path, small_world):
    dataset = load_dataset("confounded_scenes", small_world)
    write_subject_index(dataset, tmp_path / "subjects.parquet")
    index = read_subject_index(tmp_path / "subjects.parquet")
    named = [None if row < 0 else index.subject_ids[row] for row in index.factual_rows]
    assert named == [subject.counterfactual_of for subject in dataset.subjects]
    assert sum(name is not None for name in named) == 8
