"""A dataset is found by its name, and a wrong name or folder is said in one line."""

import pytest
from PIL import Image

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
