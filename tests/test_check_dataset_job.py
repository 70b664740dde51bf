"""The check as a user runs it, on small folders in the formats of all three datasets."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from job_runs import run_job
from PIL import Image

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world


def bytes_of(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def checked(dataset: str, root: Path, storage: Path, *flags: str) -> tuple[dict, str, Path]:  # type: ignore[type-arg]
    before = bytes_of(root)
    ended = run_job("check_dataset", "--dataset", dataset, "--data-root", str(root), "--storage", str(storage), *flags)
    assert ended.status == 0, ended.out + ended.err
    assert bytes_of(root) == before
    (folder,) = (storage / "checks").iterdir()
    content = json.loads((folder / "check.json").read_text())
    assert folder.name == f"{dataset}-{content['fingerprint'][:8]}"
    with Image.open(folder / "subjects.png") as sheet:
        sheet.load()
        assert sheet.width > 1000
    return content, ended.out, folder


def test_caer_s_with_planted_faults(small_world: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small_world, tmp_path / "data")
    train = sorted(subject.image for subject in load_caer_s(root).subjects if subject.split == "train")
    test = sorted(subject.image for subject in load_caer_s(root).subjects if subject.split == "test_do")
    (root / train[0]).write_bytes((root / train[0]).read_bytes()[:-2000])
    (root / train[1]).write_bytes((root / train[1]).read_bytes()[:20])
    (root / train[2]).write_bytes(b"nothing")
    shutil.copy(root / train[3], root / test[0])
    with Image.open(root / train[4]) as picture:
        picture.point(lambda value: value * 0.9).save(root / test[1])
    split_file = tmp_path / "disjoint.csv"
    content, out, folder = checked("caer_s", root, tmp_path / "runs", "--group-disjoint-split", str(split_file))
    assert {kind: defect["count"] for kind, defect in content["defects"].items()} == {
        "truncated or damaged image": 2,  # one in its header, which the loader counts, and one in its body
        "not an image": 1,
    }
    assert content["exact_copies"]["copies"] == content["near_duplicates"]["copies"] == 1
    assert content["near_duplicates"]["images_also_in"]["test_do"] == {"train": 1}
    for line in ("truncated or damaged image", "not an image", "exact", train[0].rpartition("/")[2]):
        assert line in out
    with split_file.open() as stream:
        split_of = {f"CAER-S/{row['image']}": row["split"] for row in csv.DictReader(stream)}
    assert split_of[train[3]] == split_of[test[0]]
    assert split_of[train[4]] == split_of[test[1]]
    with (folder / "copies.csv").open() as stream:
        assert {row["image"] for row in csv.DictReader(stream)} == {train[3], train[4], test[0], test[1]}


@pytest.mark.parametrize("like", ["emotic", "groupwalk"])
def test_other_formats(tmp_path: Path, like: str) -> None:
    root = tmp_path / "data"
    write_world(WorldSettings(like=like, images=50, image_size=64), root)
    content, out, _ = checked(like, root, tmp_path / "runs")
    assert content["defects"] == {}
    assert "Defects: none found" in out
    assert sum(split["subjects"] for split in content["splits"].values()) == 50
    assert content["note"] == ("format unverified" if like == "groupwalk" else "")
    assert ("format unverified" in out) == (like == "groupwalk")
    assert content["release"] == ("pami-2019" if like == "emotic" else "")


@pytest.mark.parametrize("dataset", ["emotic", "caer_s", "groupwalk"])
def test_an_empty_folder_cannot_be_used(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "data").mkdir()
    ended = run_job(
        *("check_dataset", "--dataset", dataset, "--data-root", str(tmp_path / "data")),
        *("--storage", str(tmp_path / "runs")),
    )
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / "data") in line
    assert not list((tmp_path / "data").iterdir())


def test_a_plan_starts_nothing(tmp_path: Path) -> None:
    ended = run_job("check_dataset", "--preset", "smoke", "--storage", str(tmp_path / "runs"), "--plan")
    assert (ended.status, ended.err) == (0, "")
    assert "678" in ended.out
    assert not (tmp_path / "runs").exists()


def test_file_names_that_mean_something_elsewhere(small_world: Path, tmp_path: Path) -> None:
    """To a terminal, to the tables that are printed, to a browser, to SQL, to file systems: here they are names."""
    root = shutil.copytree(small_world, tmp_path / "data")
    sound = root / next(subject.image for subject in load_caer_s(root).subjects if subject.split == "train")
    names = (
        *("[bold red]x[0].png", "\x1b[2J\x1b]0;owned\x07.png", "<img src=x onerror=alert(1)>.png", "%s%n{0}.png"),
        *("'; DROP TABLE runs; --.png", "two\nlines.png", 'a,b"c.png', "$x^{.png", "\u202egnp.png"),
    )
    listed = [name for name in names if "\n" not in name]  # a line is a picture there
    folder = f"{sound.parent.parent.name}/{sound.parent.name}"
    with (
        (root / "splits.csv").open("a", newline="") as splits,
        (root / "body_boxes.csv").open("a", newline="") as boxes,
    ):
        for name in (*listed, *(f"broken {name}" for name in listed)):
            csv.writer(splits).writerow([f"{folder}/{name}", "train"])
            csv.writer(boxes).writerow([f"{folder}/{name}", 4, 4, 40, 40])
    for name in (*names, os.fsdecode(b"\xff\xfe.png")):
        shutil.copy(sound, sound.with_name(name))
        sound.with_name(f"broken {name}").write_bytes(b"nothing")
    content, out, written = checked("caer_s", root, tmp_path / "runs")
    counts = {kind: defect["count"] for kind, defect in content["defects"].items()}
    assert counts == {"file whose name is not UTF-8": 2, "image not in splits.csv": 2, "not an image": len(listed)}
    assert content["exact_copies"]["copies"] == len(listed)
    assert out.replace("\n", "").isprintable()
    with (written / "copies.csv").open(newline="", encoding="utf-8") as stream:
        found = {row["image"] for row in csv.DictReader(stream)}
    assert found == {str(sound.with_name(name).relative_to(root)) for name in (*listed, sound.name)}
