"""Damage of every kind of stored file is told, wherever it strikes: no changed value is ever read."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ccim_ray.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint, save_weights
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.subject import Subject
from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal, read_journal
from ccim_ray.perception.detection_files import PictureDetections, PlannedDetections, write_detections
from ccim_ray.perception.person_matching import Persons
from ccim_ray.prepared import read_shard, read_subject_index, write_shard, write_subject_index
from ccim_ray.storage import write_json
from ccim_ray.trial_folder import TrialResult, clear_damaged_progress, read_result

IDS = [f"subject-{number}" for number in range(8)]
FLIPS = 120


def model(seed=0):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    optimiser = torch.optim.AdamW(made.parameters())
    made(torch.randn(4, 6)).sum().backward()
    optimiser.step()
    return made, optimiser


def tensors_of(made, optimiser):
    moments = [value for state in optimiser.state_dict()["state"].values() for value in state.values()]
    return [value.tolist() for value in (*made.state_dict().values(), *moments)]


def write_features(path):
    write_shard(path, IDS, np.arange(8 * 16, dtype=np.float32).reshape(8, 16), [None] * 7 + ["truncated"])


def write_pictures(path):
    write_shard(path, IDS, np.arange(8 * 4 * 4 * 3, dtype=np.uint8).reshape(8, 4, 4, 3), [None] * 7 + ["truncated"])


def shard_content(path):
    table = read_shard(path)
    return table["subject_id"].to_pylist(), table["reason"].to_pylist(), table["rows"].to_pylist()


def write_subjects(path):
    subjects = tuple(
        Subject(
            subject_id=subject_id,
            image=f"{number}.jpg",
            width=90 + number,
            height=80,
            split=("train", "val", "test")[number % 3],
            body_box=(1.0 + number, 2.0, 50.0, 60.0),
            labels=(("Anger",), ("Peace", "Pain"))[number % 2],
            box_source="annotation",
        )
        for number, subject_id in enumerate(IDS)
    )
    categories = ("Anger", "Peace", "Pain")
    dataset = Dataset(
        name="emotic",
        root=path.parent,
        categories=categories,
        multi_label=True,
        subjects=subjects,
        defects=Defects(),
        annotation_digest="0",
    )
    write_subject_index(dataset, path)


def subjects_content(path):
    index = read_subject_index(path)
    return index.subject_ids, index.splits.tolist(), index.targets.tolist(), index.categories, index.multi_label


PICTURES = tuple(f"{number}.jpg" for number in range(20))


def write_boxes(path):
    generator = np.random.default_rng(0)
    found = [
        PictureDetections(Persons(generator.random((2, 4), np.float32), generator.random(2, np.float32)))
        for _ in PICTURES
    ]
    write_detections(path, PICTURES, found)


def boxes_content(path):
    found = PlannedDetections("a detector", path.parent, PICTURES).read()
    return [(name, each.persons.boxes_P4.tolist(), each.persons.scores_P.tolist()) for name, each in found.items()]


def dictionary_content(path):
    loaded = ConfounderDictionary.load(path)
    return loaded.prototypes_ND.tolist(), loaded.prior_N.tolist(), dict(loaded.provenance)


def weights_content(path):
    loaded, optimiser = model(seed=1)
    load_weights(path, loaded)
    return [value.tolist() for value in loaded.state_dict().values()]


def checkpoint_content(path):
    loaded = model(seed=1)
    return load_checkpoint(path, *loaded), tensors_of(*loaded)


KINDS = {
    "features": ("shard-00000.parquet", write_features, shard_content),
    "pictures": ("shard-00000.arrow", write_pictures, shard_content),
    "subjects": ("subjects.parquet", write_subjects, subjects_content),
    "boxes": ("shard-00000.parquet", write_boxes, boxes_content),
    "dictionary": (
        "z.safetensors",
        lambda path: ConfounderDictionary.random(4, 6, seed=0).save(path),
        dictionary_content,
    ),
    "weights": ("best.safetensors", lambda path: save_weights(path, model()[0]), weights_content),
    "checkpoint": (
        "checkpoint.pt",
        lambda path: save_checkpoint(path, Checkpoint(3, 0.5, 2), *model()),
        checkpoint_content,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path, kind):
    name, write, content_of = KINDS[kind]
    path = tmp_path / name
    write(path)
    whole, expected = path.read_bytes(), content_of(path)
    generator = random.Random(0)
    told = 0
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            assert content_of(path) == expected
        except RequestError:
            told += 1
    assert told > FLIPS // 4
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RequestError):
            content_of(path)


def write_journal(folder):
    with Journal(folder / "journal.jsonl") as journal:
        for step in range(5):
            journal.append(step, {"train/loss": 1 / (step + 3), "val/accuracy": step / 7})
    return folder / "journal.jsonl"


def write_result(folder):
    metrics = {"val/accuracy": 0.5, "test_do/accuracy": 0.3125}
    write_json(folder / "result.json", TrialResult("done", metrics, 3, 5, seconds=2.5).as_dict())
    return folder / "result.json"


def result_content(path):
    return replace(read_result(path.parent), seconds=0.0)


@pytest.mark.parametrize(("write", "read"), [(write_journal, read_journal), (write_result, result_content)])
def test_a_flipped_bit_in_text_is_told_or_changes_nothing(tmp_path, write, read):
    """A digit that became another one would be a wrong number. The time that a trial took has no digest."""
    path = write(tmp_path)
    whole, expected = path.read_bytes(), read(path)
    told = 0
    for place in range(0, 8 * (len(whole) - 1), 5):  # without its end the last line is one that a kill cut off
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert read(path) == expected, damaged
        except RequestError:
            told += 1
    assert told > len(whole) / 2


def test_a_sealed_file_is_a_safetensors_file_like_any_other_and_the_same_every_time(tmp_path):
    for name in ("one", "other"):
        save_weights(tmp_path / name, model()[0])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    loaded = load_file(tmp_path / "one")
    assert all(torch.equal(loaded[name], value) for name, value in model()[0].state_dict().items())


def progress_in(folder):
    with Journal(folder / "journal.jsonl") as journal:
        for step in range(3):
            journal.append(step, {"train/loss": 0.5})
    save_weights(folder / "best.safetensors", model()[0])
    save_checkpoint(folder / "checkpoint.pt", Checkpoint(3, 0.5, 2), *model())
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.safetensors", "journal.jsonl"])
def test_damaged_progress_goes_and_whole_progress_stays(tmp_path, name):
    kept = progress_in(tmp_path)
    assert clear_damaged_progress(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 3] ^= 255
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in clear_damaged_progress(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert clear_damaged_progress(tmp_path) is None
    assert read_journal(tmp_path / "journal.jsonl") == []


def test_a_checkpoint_without_its_best_weights_is_of_no_use(tmp_path):
    progress_in(tmp_path)
    (tmp_path / "best.safetensors").unlink()
    assert "best.safetensors is damaged (it is missing)" in clear_damaged_progress(tmp_path)
