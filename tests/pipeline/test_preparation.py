"""What is said about the data before anything is made from them."""

from pathlib import Path

from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.pipeline.preparation import report_state


def dataset_with(note, *defects):
    found = Defects()
    for kind, where in defects:
        found.add(kind, where)
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


def test_sound_data_without_a_note_are_passed_in_silence(capsys):
    report_state(dataset_with(""))
    assert capsys.readouterr().out == ""
