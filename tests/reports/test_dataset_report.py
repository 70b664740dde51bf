"""The report on a dataset: counts by hand, copies once each, and a sheet that shows what is annotated."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.dataset import UNLOCATED, Dataset, Defects
from ccim_ray.datasets.near_duplicates import near_duplicate_groups
from ccim_ray.datasets.subject import Subject
from ccim_ray.datasets.verification import verify_images
from ccim_ray.reports.contact_sheet import (
    BODY_COLOUR,
    FACE_COLOUR,
    OTHER_COLOUR,
    sampled_subjects,
    write_contact_sheet,
)
from ccim_ray.reports.dataset_report import print_summary, summarise, write_groups, write_summary

WIDTH, HEIGHT = 125, 105


def subject(name, split, labels=("Sad",), box=(10, 20, 40, 80), **changes):
    return Subject(
        **{"subject_id": f"{name}#0", "image": name, "width": WIDTH, "height": HEIGHT, "split": split}
        | {"body_box": box, "labels": labels, "box_source": "annotation"}
        | changes
    )


def made(root, *subjects, note="", digest="0" * 64):
    """A dataset with a picture of noise, or of what lies there already, for each subject."""
    for number, one in enumerate(subjects):
        if not (root / one.image).exists():
            noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(noise).save(root / one.image)
    return Dataset(
        name="made",
        root=root,
        categories=("Happy", "Sad", "Angry"),
        multi_label=True,
        subjects=subjects,
        defects=Defects(),
        annotation_digest=digest,
        note=note,
    )


def summarised(dataset):
    verification = verify_images(dataset)
    return summarise(dataset, verification, near_duplicate_groups(verification))


def test_counts_of_a_split(tmp_path, capsys):
    dataset = made(
        tmp_path,
        subject("a.png", "train", ("Happy", "Sad"), box=(0, 0, 50, 100), face_box=(1, 1, 9, 9)),
        subject("b.png", "train", ("Sad",), box=(5, 5, 30, 47)),
        subject("b.png", "train", ("Sad",), box=(5, 5, 30, 15.5), subject_id="b.png#1", box_source="face"),
        subject("c.png", "train", ("Happy",), box=(0, 0, WIDTH, HEIGHT), box_source=UNLOCATED),
        subject("d.png", "train"),
        subject("e.png", "test", ("Happy",)),
    )
    (tmp_path / "d.png").write_bytes((tmp_path / "d.png").read_bytes()[:900])
    for number in range(7):
        dataset.defects.add("not an image", f"{number}.png", "test" if number else "train")
    dataset.defects.add("not an image", "elsewhere.png", "val")
    dataset.defects.add("face of an image that is not there", "train.txt: x.png")
    summary = summarised(dataset)
    train = summary.splits["train"]
    assert (train.images, train.subjects, train.damaged_images, train.faces) == (3, 4, 1, 1)
    assert train.labels_per_subject == 5 / 4
    assert train.box_sources == {"annotation": 2, "face": 1, UNLOCATED: 1}
    assert train.median_box_share == pytest.approx(25 * 42 / (WIDTH * HEIGHT))
    assert train.smallest_box_side == 10.5
    assert {name: item.subjects for name, item in train.categories.items()} == {"Happy": 2, "Sad": 3, "Angry": 0}
    assert train.categories["Sad"].prevalence == 3 / 4
    assert list(summary.splits) == ["train", "test"]
    defects = summary.defects
    assert {kind: defect.count for kind, defect in defects.items()} == {
        "not an image": 8,
        "face of an image that is not there": 1,
        "truncated or damaged image": 1,
        "no box": 1,
    }
    assert {kind: {name: of.count for name, of in defect.splits.items()} for kind, defect in defects.items()} == {
        "not an image": {"train": 1, "test": 6, "val": 1},  # val has no subject left
        "face of an image that is not there": {},
        "truncated or damaged image": {"train": 1},
        "no box": {"train": 1},
    }
    assert defects["not an image"].examples == [f"{number}.png" for number in range(5)]
    assert defects["not an image"].splits["test"].examples == [f"{number}.png" for number in range(1, 6)]
    capsys.readouterr()
    print_summary(summary)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:3] == ["not", "an", "image"]]
    assert row.split()[3:] == ["8", "train", "1,", "test", "6,", "val", "1", "0.png"]


def test_a_split_without_boxes_has_no_box_statistics(tmp_path):
    dataset = made(tmp_path, subject("a.png", "train", box_source=UNLOCATED))
    train = summarised(dataset).splits["train"]
    assert (train.median_box_share, train.smallest_box_side) == (None, None)


def test_each_copy_is_counted_once(tmp_path):
    dataset = made(tmp_path, *(subject(f"{n}.png", "train" if n < 5 else "test") for n in range(8)))
    for target in (5, 6):  # exact copies of 0 in test
        shutil.copy(tmp_path / "0.png", tmp_path / f"{target}.png")
    shutil.copy(tmp_path / "1.png", tmp_path / "2.png")  # an exact copy within train
    with Image.open(tmp_path / "3.png") as picture:
        picture.point(lambda value: value * 0.9).save(tmp_path / "7.png")  # a near duplicate across splits
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "4.png")
    summary = summarised(dataset)
    exact, near = summary.exact_copies, summary.near_duplicates
    assert (exact.groups, exact.copies, exact.largest_group, exact.groups_across_splits) == (2, 3, 3, 1)
    assert exact.images_also_in == {"train": {"test": 1}, "test": {"train": 2}}
    assert exact.examples == [["0.png", "5.png", "6.png"], ["1.png", "2.png"]]
    assert (near.groups, near.copies, near.largest_group, near.groups_across_splits) == (1, 1, 2, 1)
    assert near.images_also_in == {"train": {"test": 1}, "test": {"train": 1}}
    assert (summary.nearly_uniform.count, summary.nearly_uniform.examples) == (1, ["4.png"])
    verification = verify_images(dataset)
    write_groups(dataset, verification, near_duplicate_groups(verification), tmp_path / "copies.csv")
    with (tmp_path / "copies.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add((row["split"], row["image"]))
    assert {("train", "3.png"), ("test", "7.png")} in groups.values()
    assert sorted(map(len, groups.values())) == [2, 2, 3]


def test_an_image_of_two_people_is_no_copy_of_itself(tmp_path):
    dataset = made(tmp_path, subject("a.png", "train"), subject("a.png", "train", subject_id="a.png#1"))
    assert summarised(dataset).exact_copies.copies == 0


def test_json_and_table_say_the_same(small_world, tmp_path, capsys):
    dataset = load_caer_s(small_world)
    summary = summarised(dataset)
    write_summary(summary, tmp_path / "check.json")
    capsys.readouterr()
    print_summary(summary)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    cells = [line.split() for line in lines if line.split()]
    content = json.loads((tmp_path / "check.json").read_text())
    assert set(content["splits"]) == {"train", "val", "test_id", "test_do", "test_anti"}
    for name, split in content["splits"].items():
        (row,) = [cell for cell in cells if cell[0] == name and len(cell) > 5 and cell[1].isdigit()]
        assert row[1:4] == [str(split[key]) for key in ("images", "damaged_images", "subjects")]
    for category in dataset.categories:
        (row,) = [cell for cell in cells if cell[0] == category]
        counts = [content["splits"][split]["categories"][category]["subjects"] for split in dataset.splits]
        assert row[1::3] == [str(count) for count in counts]
    assert sum(item["subjects"] for item in content["splits"]["train"]["categories"].values()) == 31
    assert content["annotation_digest"] == dataset.annotation_digest
    assert content["fingerprint"] == dataset.fingerprint


def test_note_and_release_are_shown_everywhere(tmp_path, capsys):
    dataset = made(tmp_path, subject("a.png", "train"), note="format unverified", digest=f"pami-2019:{'0' * 64}")
    summary = summarised(dataset)
    write_summary(summary, tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text())
    assert (content["note"], content["release"]) == ("format unverified", "pami-2019")
    print_summary(summary)
    out = capsys.readouterr().out
    assert "format unverified" in out
    assert "pami-2019" in out
    write_contact_sheet(dataset, frozenset(), tmp_path / "with.png")
    write_contact_sheet(made(tmp_path, subject("a.png", "train")), frozenset(), tmp_path / "without.png")
    with_HWC, without_HWC = (np.array(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert (with_HWC[:74] != without_HWC[:74]).any()
    assert (with_HWC[74:] == without_HWC[74:]).all()


def test_markup_in_a_name_is_shown_as_it_is(tmp_path, capsys):
    dataset = made(tmp_path, subject("a.png", "train", box_source="detector:[bold]"))
    print_summary(summarised(dataset))
    assert "detector:[bold]" in capsys.readouterr().out


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def test_boxes_lie_where_they_are_annotated(tmp_path):
    """A tile is twice the picture's size: the corners of the boxes have their colours, the middle has none."""
    Image.new("RGB", (WIDTH, HEIGHT), "#0000FF").save(tmp_path / "a.png")
    person = subject(
        "a.png", "train", box=(10, 20, 60, 100), face_box=(20, 25, 40, 45), other_boxes=((80, 10, 110, 90),)
    )
    write_contact_sheet(made(tmp_path, person), frozenset(), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        left, top = next(
            (x, y) for y in range(sheet.height) for x in range(12) if sheet.getpixel((x, y)) == (0, 0, 255)
        )

        def at(x, y):
            return sheet.getpixel((left + round(2 * x), top + round(2 * y)))

        for box, colour in (
            ((10, 20, 60, 100), BODY_COLOUR),
            ((20, 25, 40, 45), FACE_COLOUR),
            ((80, 10, 110, 90), OTHER_COLOUR),
        ):
            x1, y1, x2, y2 = box
            corners = [(x1, y1), (x2 - 0.5, y1), (x1, y2 - 0.5), (x2 - 0.5, y2 - 0.5)]
            assert [at(*corner) for corner in corners] == [rgb(colour)] * 4
            assert at((x1 + x2) / 2, (y1 + y2) / 2) == (0, 0, 255)
        assert at(WIDTH - 3, HEIGHT - 3) == (0, 0, 255)


def test_the_sample_shows_every_split_and_rare_categories(tmp_path):
    common = [subject(f"{n}.png", "train") for n in range(200)]
    rare = [subject("rare.png", "train", ("Angry",)), subject("other.png", "train", ("Happy",))]
    few = [subject(f"test{n}.png", "test") for n in range(3)]
    dataset = Dataset(
        **{"name": "made", "root": tmp_path, "categories": ("Happy", "Sad", "Angry"), "multi_label": True},
        **{"subjects": (*common, *rare, *few), "defects": Defects(), "annotation_digest": ""},
    )
    damaged = frozenset({"test1.png", *(f"{n}.png" for n in range(100))})
    shown = sampled_subjects(dataset, damaged, tiles=24)
    assert {label for one in shown["train"] for label in one.labels} == {"Happy", "Sad", "Angry"}
    assert len(shown["train"]) == len({one.image for one in shown["train"]}) == 12
    assert {one.image for one in shown["test"]} == {"test0.png", "test2.png"}
    assert not {one.image for one in shown["train"]} & damaged
    assert sampled_subjects(dataset, damaged, tiles=24) == shown
    assert sampled_subjects(dataset, damaged, tiles=24, seed=1) != shown
