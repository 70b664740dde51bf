"""EMOTIC read from annotation files with the fields, orders and shapes of the published ones."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.emotic import NOT_RATED, load_emotic
from ccim_ray.datasets.emotic_annotations import CATEGORIES
from ccim_ray.errors import RequestError

WIDTH, HEIGHT = 64, 48


def by_id(dataset):
    return {subject.subject_id: subject for subject in dataset.subjects}


def test_reads_train_of_one_annotator_and_val_and_test_of_several(emotic):
    dataset = load_emotic(
        emotic.write(
            train=[emotic.picture("a.jpg", emotic.person("train", [11, 6, 40, 30], ["Peace", "Affection"]))],
            val=[emotic.picture("b.jpg", emotic.person("val", [1, 1, 9, 9], ["Fear"], ["Fear", "Pain"], ["Anger"]))],
            test=[
                emotic.picture(
                    "c.jpg",
                    emotic.person("test", [1, 1, 9, 9], ["Doubt/Confusion"], ["Yearning", "Doubt/Confusion"]),
                    folder="ade20k/images",
                )
            ],
        )
    )
    assert dataset.name == "emotic"
    assert dataset.multi_label
    assert dataset.categories == CATEGORIES
    assert len(CATEGORIES) == 26
    assert list(CATEGORIES) == sorted(CATEGORIES)
    assert dataset.defects.counts == {}
    assert {name: (s.split, s.labels) for name, s in by_id(dataset).items()} == {
        "mscoco/images/a.jpg#0": ("train", ("Affection", "Peace")),
        "mscoco/images/b.jpg#0": ("val", ("Anger", "Fear", "Pain")),
        "ade20k/images/c.jpg#0": ("test", ("Doubt/Confusion", "Yearning")),
    }
    subject = dataset.subjects[0]
    assert subject.image == "emotic/mscoco/images/a.jpg"
    assert (dataset.root / subject.image).is_file()
    assert subject.body_box == (10, 5, 40, 30)
    assert (subject.width, subject.height) == (WIDTH, HEIGHT)
    assert subject.box_source == "annotation"
    assert dataset.annotation_digest.startswith("pami-2019:")


def test_one_picture_one_person_one_label_survive_squeezing(emotic):
    dataset = load_emotic(
        emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Peace"]))])
    )
    assert dataset.subjects[0].labels == ("Peace",)
    assert dataset.splits == ("train",)


def test_one_annotator_of_one_label_in_val_and_test_survives_squeezing(emotic):
    rows = {
        split: [emotic.picture(f"{split}.jpg", emotic.person(split, [1, 1, 9, 9], ["Peace"]))]
        for split in ("val", "test")
    }
    dataset = load_emotic(emotic.write(**rows))
    assert [(s.split, s.labels) for s in dataset.subjects] == [("val", ("Peace",)), ("test", ("Peace",))]
    assert dataset.defects.counts == {}


@pytest.mark.parametrize("split", ["train", "test"])
def test_nobody_is_dropped_for_a_mood_that_is_missing(emotic, split):
    person = emotic.person(split, [1, 1, 9, 9], ["Peace"], *([["Fear"]] if split == "test" else []))
    nobody_said = emotic.structs({"valence": 5, "arousal": 5, "dominance": float("nan")})
    moods = [name for name in person if name.endswith("continuous")]
    dataset = load_emotic(
        emotic.write(
            **{
                split: [
                    emotic.picture("nan.jpg", person | dict.fromkeys(moods, nobody_said)),
                    emotic.picture("empty.jpg", person | dict.fromkeys(moods, np.empty((0, 0)))),
                    emotic.picture("absent.jpg", {name: person[name] for name in person if name not in moods}),
                    emotic.picture("there.jpg", person),
                    emotic.picture("without labels.jpg", emotic.person(split, [1, 1, 9, 9]) | {moods[-1]: nobody_said}),
                ]
            }
        )
    )
    assert len(dataset.subjects) == 4
    unrated = [(f"mscoco/images/{name}.jpg#0", split) for name in ("nan", "empty", "absent")]
    assert dataset.defects.found.pop(NOT_RATED) == unrated
    assert dataset.defects.counts == {"person without labels": 1}


def test_fields_are_read_by_name_not_by_position(emotic):
    row = emotic.picture("a.jpg", emotic.person("val", [1, 1, 9, 9], ["Peace"], ["Fear"]))
    swapped = {name: row[name] for name in reversed(row)}
    one = emotic.person("val", [2, 2, 9, 9], ["Anger"], ["Pain"])
    swapped_person = emotic.picture("b.jpg", {name: one[name] for name in reversed(one)})
    root = emotic.write(val=[swapped])
    assert load_emotic(root).subjects[0].labels == ("Fear", "Peace")
    assert load_emotic(emotic.write(val=[swapped_person])).subjects[0].labels == ("Anger", "Pain")


def test_several_persons_see_each_other_and_keep_their_index(emotic):
    dataset = load_emotic(
        emotic.write(
            val=[
                emotic.picture(
                    "a.jpg",
                    emotic.person("val", [1, 1, 10, 10], ["Fear"], ["Fear"]),
                    emotic.person("val", [21, 1, 30, 10]),
                    emotic.person("val", [41, 1, 50, 10], ["Pain"], ["Peace"]),
                )
            ]
        )
    )
    subjects = by_id(dataset)
    assert subjects.keys() == {"mscoco/images/a.jpg#0", "mscoco/images/a.jpg#2"}
    assert subjects["mscoco/images/a.jpg#0"].other_boxes == ((20, 0, 30, 10), (40, 0, 50, 10))
    assert subjects["mscoco/images/a.jpg#2"].other_boxes == ((0, 0, 10, 10), (20, 0, 30, 10))
    assert dataset.defects.counts == {"person without labels": 1}
    assert dataset.defects.examples == {"person without labels": ["mscoco/images/a.jpg#1"]}


def test_picture_listed_twice_in_a_split_is_one_picture(emotic):
    rows = [
        emotic.picture("a.jpg", emotic.person("train", [1, 1, 10, 10], ["Fear"])),
        emotic.picture("b.jpg", emotic.person("train", [1, 1, 10, 10], ["Fear"])),
        emotic.picture("a.jpg", emotic.person("train", [21, 1, 30, 10], ["Pain"])),
    ]
    subjects = by_id(load_emotic(emotic.write(train=rows)))
    assert list(subjects) == ["mscoco/images/a.jpg#0", "mscoco/images/a.jpg#1", "mscoco/images/b.jpg#0"]
    assert subjects["mscoco/images/a.jpg#1"].other_boxes == ((0, 0, 10, 10),)


def test_same_box_twice_is_counted_and_nobody_is_his_own_neighbour(emotic):
    twice = [emotic.person("train", [1, 1, 10, 10], [label]) for label in ("Fear", "Pain")]
    dataset = load_emotic(emotic.write(train=[emotic.picture("a.jpg", *twice)]))
    assert [s.other_boxes for s in dataset.subjects] == [(), ()]
    assert dataset.defects.counts == {"same box twice in an image: both kept": 1}


@pytest.mark.parametrize(
    ("combined", "labels"),
    [(["Pain"], ("Pain",)), ([], ("Fear", "Peace")), (["Fear", "Peace"], ("Fear", "Peace"))],
)
def test_combined_categories_are_held_against_the_votes(emotic, combined, labels):
    root = emotic.write(
        test=[emotic.picture("a.jpg", emotic.person("test", [1, 1, 9, 9], ["Fear"], ["Peace"], combined=combined))]
    )
    dataset = load_emotic(root)
    assert dataset.subjects[0].labels == labels
    mismatch = {"combined_categories are not the union of the votes": 1}
    assert dataset.defects.counts == ({} if combined == ["Fear", "Peace"] else mismatch)


@pytest.mark.parametrize(
    ("annotated", "expected", "defect"),
    [
        (np.array([[1, 1, 64, 48]], np.uint8), (0, 0, 64, 48), None),
        (np.array([[0, 0, 20, 20]], np.uint8), (0, 0, 20, 20), "body box that leaves the image: clipped"),
        ([-7.5, 2.25, 700.0, 30.5], (0, 1.25, 64, 30.5), "body box that leaves the image: clipped"),
        ([5, 5, 5, 5], (4, 4, 5, 5), None),
        ([5, 5, 4, 9], None, "body box that holds no pixel of the image"),
        ([70, 5, 90, 9], None, "body box that holds no pixel of the image"),
        ([float("nan"), 5, 9, 9], None, "body box that holds no pixel of the image"),
        ([5, 5, 9], None, "body box that is not four numbers"),
        ([], None, "body box that is not four numbers"),
        ("none", None, "body box that is not four numbers"),
    ],
)
def test_boxes_go_from_one_based_inclusive_to_zero_based_half_open(emotic, annotated, expected, defect):
    sound = emotic.picture("sound.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))
    dataset = load_emotic(
        emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", annotated, ["Fear"])), sound])
    )
    found = [subject.body_box for subject in dataset.subjects if subject.image.endswith("/a.jpg")]
    assert found == ([] if expected is None else [expected])
    assert dataset.defects.counts == ({} if defect is None else {defect: 1})


def test_box_is_clipped_to_the_decoded_size_and_a_wrong_image_size_counted(emotic):
    row = emotic.picture("a.jpg", emotic.person("train", [1, 1, 200, 200], ["Fear"]), size=(300, 300))
    dataset = load_emotic(emotic.write(train=[row]))
    assert dataset.subjects[0].body_box == (0, 0, WIDTH, HEIGHT)
    assert dataset.defects.counts["image_size of the annotation is not the image's"] == 1


def test_picture_without_persons_is_counted(emotic):
    rows = [
        emotic.picture("a.jpg"),
        emotic.picture("b.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"])),
    ]
    dataset = load_emotic(emotic.write(train=rows))
    assert len(dataset.subjects) == 1
    assert dataset.defects.counts == {"image without persons": 1}


def test_missing_and_damaged_pictures_are_counted(emotic):
    rows = [emotic.picture(f"{name}.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"])) for name in "abc"]
    root = emotic.write(train=rows)
    (root / "emotic/mscoco/images/a.jpg").unlink()
    (root / "emotic/mscoco/images/b.jpg").write_bytes(b"GIF?")
    dataset = load_emotic(root)
    assert [s.subject_id for s in dataset.subjects] == ["mscoco/images/c.jpg#0"]
    assert dataset.defects.counts == {"missing image": 1, "not an image": 1}


@pytest.fixture
def overlapping(emotic):
    shared = {"folder": "framesdb/images"}
    box = [1, 1, 9, 9]
    return emotic.write(
        train=[
            emotic.picture("only.jpg", emotic.person("train", box, ["Fear"])),
            emotic.picture("shared.jpg", emotic.person("train", box, ["Fear"])) | shared,
        ],
        val=[emotic.picture("shared.jpg", emotic.person("val", box, ["Pain"], ["Pain"])) | shared],
    )


def test_picture_in_train_and_val_is_left_out_of_train(overlapping):
    dataset = load_emotic(overlapping)
    assert {name: s.split for name, s in by_id(dataset).items()} == {
        "mscoco/images/only.jpg#0": "train",
        "framesdb/images/shared.jpg#0": "val",
    }
    assert dataset.defects.counts == {"image in train and in val: left out of train": 1}
    assert dataset.defects.examples == {"image in train and in val: left out of train": ["framesdb/images/shared.jpg"]}


def test_overlap_can_be_kept_with_ids_that_stay_unique(overlapping):
    dataset = load_emotic(overlapping, LoadOptions(drop_overlap=False))
    assert {name: (s.split, s.labels) for name, s in by_id(dataset).items()} == {
        "mscoco/images/only.jpg#0": ("train", ("Fear",)),
        "framesdb/images/shared.jpg#0@train": ("train", ("Fear",)),
        "framesdb/images/shared.jpg#0": ("val", ("Pain",)),
    }
    assert dataset.defects.counts == {"image in train and in val: kept in both": 1}


def test_split_file_overrides_the_annotation(overlapping):
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/shared.jpg,test_do\n")
    dataset = load_emotic(overlapping)
    assert {name: s.split for name, s in by_id(dataset).items()} == {"framesdb/images/shared.jpg#0": "test_do"}
    assert dataset.defects.examples["image not in splits.csv"] == ["mscoco/images/only.jpg"]
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/other.jpg,val\n")
    with pytest.raises(RequestError, match=r"splits.csv: unknown image 'framesdb/images/other.jpg'"):
        load_emotic(overlapping)


def test_digest_covers_the_split_file(overlapping):
    before = load_emotic(overlapping).annotation_digest
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/shared.jpg,val\n")
    assert load_emotic(overlapping).annotation_digest != before


@pytest.mark.parametrize("name", ["CVPR17_Annotations.mat", "Annotations/CVPR17_Annotations.mat"])
def test_cvpr_release_is_recognised_and_recorded(emotic, name):
    row = emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]), cvpr=True)
    root = emotic.write(train=[row], name=name, images="cvpr_emotic")
    dataset = load_emotic(root)
    assert dataset.annotation_digest.startswith("cvpr-2017:")
    assert dataset.subjects[0].image == "cvpr_emotic/mscoco/images/a.jpg"
    assert dataset.defects.counts == {}


def test_later_release_goes_first_where_both_are_there(emotic):
    row = emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))
    emotic.write(train=[row], name="CVPR17_Annotations.mat", images="cvpr_emotic")
    assert load_emotic(emotic.write(train=[row])).annotation_digest.startswith("pami-2019:")


def test_image_folder_that_is_itself_a_link_is_fine(emotic, tmp_path_factory):
    root = emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))])
    elsewhere = tmp_path_factory.mktemp("disk") / "emotic"
    (root / "emotic").rename(elsewhere)
    (root / "emotic").symlink_to(elsewhere)
    assert len(load_emotic(root).subjects) == 1


coordinate = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-100, 200)
labels = st.lists(st.sampled_from(CATEGORIES), max_size=5, unique=True)
person = st.tuples(st.tuples(*[coordinate] * 4), st.lists(labels, max_size=3))


# Few examples of many pictures each: a file is read in a process of its own.
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pictures=st.lists(st.lists(person, max_size=4), min_size=1, max_size=12))
def test_boxes_after_loading_are_valid_and_everybody_is_accounted_for(emotic, pictures):
    sound = emotic.person("test", [1, 1, 9, 9], ["Fear"])
    rows = [
        emotic.picture(f"{number}.jpg", sound, *(emotic.person("test", box, *votes) for box, votes in persons))
        for number, persons in enumerate(pictures)
    ]
    dataset = load_emotic(emotic.write(test=rows))
    for subject in dataset.subjects:
        for x1, y1, x2, y2 in (subject.body_box, *subject.other_boxes):
            assert min(x1, y1) >= 0
            assert x2 <= WIDTH
            assert y2 <= HEIGHT
            assert min(x2 - x1, y2 - y1) >= 1
    counts = Counter(dataset.defects.counts)
    annotated = [one for persons in pictures for one in persons]
    missing = len(annotated) + len(pictures) - len(dataset.subjects)
    without_labels = counts["person without labels"]
    without_box = counts["body box that holds no pixel of the image"]
    assert max(without_labels, without_box) <= missing <= without_labels + without_box
    assert without_labels == sum(not any(votes) for _, votes in annotated)
