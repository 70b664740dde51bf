"""What is said about the data before anything is made from them."""

import csv
from pathlib import Path

from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.pipeline.preparation import list_defects, report_state


def dataset_with(note, *defects):
    found = Defects()
    for kind, *where in defects:
        found.add(kind, *where)
    return Dataset(
        name="groupwalk",
        root=Path("/data"),
        categories=("Angry", "Sad"),
        multi_label=True,
        subjects=(),
        defects=found,
        annotation_digest="",
        note=note,
    )


def test_the_note_is_said_once_and_the_defects_with_an_example(capsys):
    report_state(dataset_with("format unverified", ("missing image", "a.jpg"), ("missing image", "b.jpg")))
    assert capsys.readouterr().out.splitlines() == [
        "  groupwalk: format unverified",
        "  groupwalk: 2 x missing image, such as a.jpg",
    ]


def test_every_defect_is_listed_where_the_console_names_one(tmp_path, capsys):
    found = [("missing image", f"{number}.jpg", "val") for number in range(7)] + [("no box", "a, with a comma", "")]
    list_defects(dataset_with("", *found).defects, tmp_path / "new" / "defects.csv")
    with (tmp_path / "new" / "defects.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["kind", "where", "split"], *map(list, found)]
    assert capsys.readouterr().out == f"  all 8 defects by name: {tmp_path / 'new' / 'defects.csv'}\n"
    list_defects(dataset_with("").defects, tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()
    assert capsys.readouterr().out == ""


def test_sound_data_without_a_note_are_passed_in_silence(capsys):
    report_state(dataset_with(""))
    assert capsys.readouterr().out == ""
