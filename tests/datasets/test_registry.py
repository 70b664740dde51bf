"""A dataset is found by its name, and a wrong name or folder is said in one line."""

import pytest
from PIL import Image
from plug_in_package import install_package, lines_of

from ccim_ray.datasets.registry import DATASETS, load_dataset
from ccim_ray.errors import RequestError


def test_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(RequestError, match="--dataset imagenet: there is no such dataset") as failure:
        load_dataset("imagenet", tmp_path)
    assert all(name in str(failure.value) for name in ("confounded_scenes", "emotic", "caer_s", "groupwalk"))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_missing_folder_is_named_with_the_flag(name, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("absent", "file"):
        with pytest.raises(RequestError) as failure:
            load_dataset(name, tmp_path / folder)
        assert str(tmp_path / folder) in str(failure.value)
        assert "--data-root" in str(failure.value)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_empty_folder_is_refused_with_the_flag(name, tmp_path):
    with pytest.raises(RequestError, match="--data-root"):
        load_dataset(name, tmp_path)


def test_reads_with_the_loader_of_that_name_from_a_relative_folder(tmp_path, monkeypatch):
    for path in ("train/Fear/1.png", "test/Sad/1.png"):
        (tmp_path / "CAER-S" / path).parent.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "CAER-S" / path)
    (tmp_path / "body_boxes.csv").write_text("image,x1,y1,x2,y2\ntrain/Fear/1.png,0,0,9,9\n")
    monkeypatch.chdir(tmp_path.parent)
    dataset = load_dataset("caer_s", tmp_path.relative_to(tmp_path.parent))
    assert dataset.name == "caer_s"
    assert dataset.root == tmp_path.resolve()
    assert [s.subject_id for s in dataset.subjects] == ["train/Fear/1.png"]


@pytest.fixture
def caer_s(tmp_path):
    """Three people in two folders, all with boxes."""
    images = ("train/Fear/1.png", "train/Fear/2.png", "test/Sad/1.png")
    for path in images:
        (tmp_path / "CAER-S" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "CAER-S" / path)
    boxes = "".join(f"{image},0,0,9,9\n" for image in images)
    (tmp_path / "body_boxes.csv").write_text(f"image,x1,y1,x2,y2\n{boxes}")
    return tmp_path


def test_depth_pictures_beside_the_data_are_found_and_missing_ones_counted(caer_s):
    plain = load_dataset("caer_s", caer_s)
    assert {subject.depth for subject in plain.subjects} == {None}
    images = [subject.image for subject in plain.subjects]
    for image in images[:-1]:
        (caer_s / "depth" / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9)).save(caer_s / "depth" / f"{image}.png")
    dataset = load_dataset("caer_s", caer_s)
    assert [subject.depth for subject in dataset.subjects] == [*(f"depth/{image}.png" for image in images[:-1]), None]
    assert all((dataset.root / subject.depth).is_file() for subject in dataset.subjects[:-1])
    assert dataset.defects.counts["image without a depth picture"] == 1
    assert dataset.defects.examples["image without a depth picture"] == [images[-1]]
    assert dataset.fingerprint != plain.fingerprint


def test_another_depth_picture_is_another_dataset(caer_s):
    image = load_dataset("caer_s", caer_s).subjects[0].image
    depth = caer_s / "depth" / f"{image}.png"
    depth.parent.mkdir(parents=True)
    fingerprints = set()
    for side in (9, 90, 9):
        Image.new("L", (side, side)).save(depth)
        fingerprints.add(load_dataset("caer_s", caer_s).fingerprint)
    assert len(fingerprints) == 2


def test_the_embedded_world_keeps_the_depth_pictures_that_it_names_itself(small_world):
    dataset = load_dataset("confounded_scenes", small_world)
    assert all((dataset.root / subject.depth).is_file() for subject in dataset.subjects)
    assert "image without a depth picture" not in dataset.defects.counts


PROGRAM = """
from pathlib import Path
from ccim_ray.datasets.registry import dataset_card, load_dataset

print(load_dataset("films", Path()).name, dataset_card("films").dictionary_size)
print(refusal(load_dataset, "films", Path("absent")))
print(refusal(load_dataset, "unsure", Path()))
for name in ("no_card", "no_module", "else"):
    print(refusal(dataset_card, name))
"""


def test_another_installed_package_brings_a_dataset(tmp_path):
    install_package(tmp_path)
    lines = lines_of(PROGRAM, tmp_path)
    assert lines[0] == "films 32"
    starts = (
        "error: --data-root: absent is no folder; name the folder that holds films",
        "error: --dataset unsure: its card says multi_label=True, the dataset that it loads multi_label=False",
        "error: --dataset no_card: the entry point other_package:FACE_NET is of class BaselineCard, not a DatasetCard",
        "error: --dataset no_module: the entry point absent_package:CARD cannot be loaded (ModuleNotFoundError: ",
        "error: --dataset else: there is no such dataset; choose one of confounded_scenes, emotic, caer_s, groupwalk, "
        "films, no_card, no_module, unsure",
    )
    assert len(lines) == 1 + len(starts)
    for line, start in zip(lines[1:], starts, strict=True):
        assert line.startswith(start)
