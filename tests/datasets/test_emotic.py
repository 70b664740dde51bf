"""EMOTIC read from .mat files with the fields, orders and shapes of the published ones."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from ccim_ray.datasets.emotic import CATEGORIES, load_emotic
from ccim_ray.errors import RequestError

WIDTH, HEIGHT = 64, 48


def structs(*rows):
    """A 1 x N MATLAB struct array; fields in the order of the dictionaries."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        for name, value in row.items():
            array[name][0, number] = value
    return array


def cell(names):
    array = np.empty((1, len(names)), dtype=object)
    array[0, :] = names
    return array


def annotator(labels):
    return {"categories": cell(labels)}


MOOD = {"valence": 5, "arousal": 5, "dominance": float("nan")}


def person(split, box, *votes, combined=None):
    """``votes`` are the label lists of the annotators: one in train, several in val and test."""
    voted = structs(*map(annotator, votes)) if votes else np.empty((0, 0))
    first = {"body_bbox": np.asarray(box), "annotations_categories": voted}
    if split == "train":
        return first | {"annotations_continuous": structs(MOOD), "gender": "Male", "age": "Adult"}
    united = sorted({name for vote in votes for name in vote}) if combined is None else combined
    return first | {
        "combined_categories": cell(united),
        "annotations_continuous": structs(*[MOOD] * max(1, len(votes))),
        "combined_continuous": structs(MOOD),
        "gender": "Female",
        "age": "Kid",
    }


def picture(filename, *persons, folder="mscoco/images", size=(WIDTH, HEIGHT), cvpr=False):
    columns, rows = {"n_col": size[0]}, {"n_row": size[1]}
    return {
        "filename": filename,
        "folder": folder,
        "image_size": structs(rows | columns if cvpr else columns | rows),
        "original_database": structs({"name": "mscoco", "info": structs({"image_id": 7})}),
        "person": structs(*persons) if persons else np.empty((0, 0)),
    }


@pytest.fixture
def write(tmp_path):
    """Writes an annotation file, and by default each picture in it; returns the data root."""

    def write(
        train=(),
        val=(),
        test=(),
        *,
        name="Annotations/Annotations.mat",
        images="emotic",
        pictures=True,
        compressed=False,
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        splits = {"train": train, "val": val, "test": test}
        content = {split: structs(*rows) if rows else np.empty((0, 0)) for split, rows in splits.items()}
        savemat(path, content, oned_as="row", do_compression=compressed)
        (tmp_path / images).mkdir(exist_ok=True)
        for row in (*train, *val, *test):
            file = tmp_path / images / row["folder"] / row["filename"]
            if pictures:
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (WIDTH, HEIGHT)).save(file, "JPEG")
        return tmp_path

    return write


def by_id(dataset):
    return {subject.subject_id: subject for subject in dataset.subjects}


def test_reads_train_of_one_annotator_and_val_and_test_of_several(write):
    dataset = load_emotic(
        write(
            train=[picture("a.jpg", person("train", [11, 6, 40, 30], ["Peace", "Affection"]))],
            val=[picture("b.jpg", person("val", [1, 1, 9, 9], ["Fear"], ["Fear", "Pain"], ["Anger"]))],
            test=[
                picture(
                    "c.jpg",
                    person("test", [1, 1, 9, 9], ["Doubt/Confusion"], ["Yearning", "Doubt/Confusion"]),
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


def test_one_picture_one_person_one_label_survive_squeezing(write):
    dataset = load_emotic(write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Peace"]))]))
    assert dataset.subjects[0].labels == ("Peace",)
    assert dataset.splits == ("train",)


def test_fields_are_read_by_name_not_by_position(write):
    row = picture("a.jpg", person("val", [1, 1, 9, 9], ["Peace"], ["Fear"]))
    swapped = {name: row[name] for name in reversed(row)}
    one = person("val", [2, 2, 9, 9], ["Anger"], ["Pain"])
    swapped_person = picture("b.jpg", {name: one[name] for name in reversed(one)})
    root = write(val=[swapped])
    assert load_emotic(root).subjects[0].labels == ("Fear", "Peace")
    assert load_emotic(write(val=[swapped_person])).subjects[0].labels == ("Anger", "Pain")


def test_several_persons_see_each_other_and_keep_their_index(write):
    dataset = load_emotic(
        write(
            val=[
                picture(
                    "a.jpg",
                    person("val", [1, 1, 10, 10], ["Fear"], ["Fear"]),
                    person("val", [21, 1, 30, 10]),
                    person("val", [41, 1, 50, 10], ["Pain"], ["Peace"]),
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


def test_picture_listed_twice_in_a_split_is_one_picture(write):
    rows = [
        picture("a.jpg", person("train", [1, 1, 10, 10], ["Fear"])),
        picture("b.jpg", person("train", [1, 1, 10, 10], ["Fear"])),
        picture("a.jpg", person("train", [21, 1, 30, 10], ["Pain"])),
    ]
    subjects = by_id(load_emotic(write(train=rows)))
    assert list(subjects) == ["mscoco/images/a.jpg#0", "mscoco/images/a.jpg#1", "mscoco/images/b.jpg#0"]
    assert subjects["mscoco/images/a.jpg#1"].other_boxes == ((0, 0, 10, 10),)


def test_same_box_twice_is_counted_and_nobody_is_his_own_neighbour(write):
    twice = [person("train", [1, 1, 10, 10], [label]) for label in ("Fear", "Pain")]
    dataset = load_emotic(write(train=[picture("a.jpg", *twice)]))
    assert [s.other_boxes for s in dataset.subjects] == [(), ()]
    assert dataset.defects.counts == {"same box twice in an image: both kept": 1}


@pytest.mark.parametrize(
    ("combined", "labels"),
    [(["Pain"], ("Pain",)), ([], ("Fear", "Peace")), (["Fear", "Peace"], ("Fear", "Peace"))],
)
def test_combined_categories_are_held_against_the_votes(write, combined, labels):
    root = write(
        test=[picture("a.jpg", person("test", [1, 1, 9, 9], ["Fear"], ["Peace"], combined=combined))]
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
def test_boxes_go_from_one_based_inclusive_to_zero_based_half_open(write, annotated, expected, defect):
    sound = picture("sound.jpg", person("train", [1, 1, 9, 9], ["Fear"]))
    dataset = load_emotic(write(train=[picture("a.jpg", person("train", annotated, ["Fear"])), sound]))
    found = [subject.body_box for subject in dataset.subjects if subject.image.endswith("/a.jpg")]
    assert found == ([] if expected is None else [expected])
    assert dataset.defects.counts == ({} if defect is None else {defect: 1})


def test_box_is_clipped_to_the_decoded_size_and_a_wrong_image_size_counted(write):
    row = picture("a.jpg", person("train", [1, 1, 200, 200], ["Fear"]), size=(300, 300))
    dataset = load_emotic(write(train=[row]))
    assert dataset.subjects[0].body_box == (0, 0, WIDTH, HEIGHT)
    assert dataset.defects.counts["image_size of the annotation is not the image's"] == 1


def test_picture_without_persons_is_counted(write):
    rows = [picture("a.jpg"), picture("b.jpg", person("train", [1, 1, 9, 9], ["Fear"]))]
    dataset = load_emotic(write(train=rows))
    assert len(dataset.subjects) == 1
    assert dataset.defects.counts == {"image without persons": 1}


def test_missing_and_damaged_pictures_are_counted(write):
    rows = [picture(f"{name}.jpg", person("train", [1, 1, 9, 9], ["Fear"])) for name in "abc"]
    root = write(train=rows)
    (root / "emotic/mscoco/images/a.jpg").unlink()
    (root / "emotic/mscoco/images/b.jpg").write_bytes(b"GIF?")
    dataset = load_emotic(root)
    assert [s.subject_id for s in dataset.subjects] == ["mscoco/images/c.jpg#0"]
    assert dataset.defects.counts == {"missing image": 1, "not an image": 1}


@pytest.fixture
def overlapping(write):
    shared = {"folder": "framesdb/images"}
    box = [1, 1, 9, 9]
    return write(
        train=[
            picture("only.jpg", person("train", box, ["Fear"])),
            picture("shared.jpg", person("train", box, ["Fear"])) | shared,
        ],
        val=[picture("shared.jpg", person("val", box, ["Pain"], ["Pain"])) | shared],
    )


def test_picture_in_train_and_val_is_left_out_of_train(overlapping):
    dataset = load_emotic(overlapping)
    assert {name: s.split for name, s in by_id(dataset).items()} == {
        "mscoco/images/only.jpg#0": "train",
        "framesdb/images/shared.jpg#0": "val",
    }
    assert dataset.defects.counts == {"image in train and in val: left out of train": 1}
    assert dataset.defects.examples == {
        "image in train and in val: left out of train": ["framesdb/images/shared.jpg"]
    }


def test_overlap_can_be_kept_with_ids_that_stay_unique(overlapping):
    dataset = load_emotic(overlapping, drop_overlap=False)
    assert {name: (s.split, s.labels) for name, s in by_id(dataset).items()} == {
        "mscoco/images/only.jpg#0": ("train", ("Fear",)),
        "framesdb/images/shared.jpg#0@train": ("train", ("Fear",)),
        "framesdb/images/shared.jpg#0": ("val", ("Pain",)),
    }
    assert dataset.defects.counts == {"image in train and in val: kept in both": 1}


def test_split_file_overrides_the_annotation(overlapping):
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/shared.jpg,test_do\n")
    dataset = load_emotic(overlapping)
    assert {name: s.split for name, s in by_id(dataset).items()} == {
        "framesdb/images/shared.jpg#0": "test_do"
    }
    assert dataset.defects.examples["image not in splits.csv"] == ["mscoco/images/only.jpg"]
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/other.jpg,val\n")
    with pytest.raises(RequestError, match=r"splits.csv: unknown image 'framesdb/images/other.jpg'"):
        load_emotic(overlapping)


def test_digest_covers_the_split_file(overlapping):
    before = load_emotic(overlapping).annotation_digest
    (overlapping / "splits.csv").write_text("image,split\nframesdb/images/shared.jpg,val\n")
    assert load_emotic(overlapping).annotation_digest != before


@pytest.mark.parametrize("name", ["CVPR17_Annotations.mat", "Annotations/CVPR17_Annotations.mat"])
def test_cvpr_release_is_recognised_and_recorded(write, name):
    row = picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]), cvpr=True)
    root = write(train=[row], name=name, images="cvpr_emotic")
    dataset = load_emotic(root)
    assert dataset.annotation_digest.startswith("cvpr-2017:")
    assert dataset.subjects[0].image == "cvpr_emotic/mscoco/images/a.jpg"
    assert dataset.defects.counts == {}


def test_later_release_goes_first_where_both_are_there(write):
    row = picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))
    write(train=[row], name="CVPR17_Annotations.mat", images="cvpr_emotic")
    assert load_emotic(write(train=[row])).annotation_digest.startswith("pami-2019:")


def test_unknown_label_is_refused_with_file_person_and_image(write):
    root = write(val=[picture("a.jpg", person("val", [1, 1, 9, 9], ["Fear"], ["Joy"]))])
    with pytest.raises(
        RequestError, match=r"Annotations.mat: unknown label 'Joy' in val\(1\).person\(1\)"
    ) as failure:
        load_emotic(root)
    assert "a.jpg" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("field", ["filename", "folder", "image_size", "person"])
def test_missing_field_of_an_image_is_refused(write, field):
    row = picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))
    root = write(train=[row])
    del row[field]
    content = dict.fromkeys(("val", "test"), np.empty((0, 0))) | {"train": structs(row)}
    savemat(root / "Annotations/Annotations.mat", content)
    with pytest.raises(RequestError, match=rf"Annotations.mat: field '{field}' is missing in train\(1\);"):
        load_emotic(root)


@pytest.mark.parametrize("field", ["body_bbox", "annotations_categories", "combined_categories"])
def test_missing_field_of_a_person_is_refused(write, field):
    one = person("test", [1, 1, 9, 9], ["Fear"], ["Fear"])
    del one[field]
    root = write(test=[picture("a.jpg", one)])
    with pytest.raises(RequestError, match=rf"field '{field}' is missing in test\(1\).person\(1\)"):
        load_emotic(root)


def test_missing_inner_fields_are_refused(write):
    row = picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))
    root = write(train=[row | {"image_size": structs({"n_col": 5})}])
    with pytest.raises(RequestError, match=r"field 'n_row' is missing in train\(1\).image_size"):
        load_emotic(root)
    one = person("train", [1, 1, 9, 9]) | {"annotations_categories": structs({"labels": cell(["Fear"])})}
    with pytest.raises(RequestError, match="field 'categories' is missing"):
        load_emotic(write(train=[picture("a.jpg", one)]))


def test_missing_split_is_refused(write):
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))])
    savemat(root / "Annotations/Annotations.mat", {"val": np.empty((0, 0)), "test": np.empty((0, 0))})
    with pytest.raises(RequestError, match=r"Annotations.mat: key 'train' is missing"):
        load_emotic(root)


def test_foreign_and_truncated_annotation_files_are_refused(write):
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))])
    path = root / "Annotations/Annotations.mat"
    whole = path.read_bytes()
    for content in (
        b"",
        b"<html>not found</html>",
        whole[: len(whole) // 2],
        b"MATLAB 7.3 MAT-file".ljust(512),
    ):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"Annotations.mat: "):
            load_emotic(root)


@pytest.mark.parametrize("compressed", [False, True])
def test_annotation_file_cut_off_anywhere_is_refused(write, compressed):
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))], compressed=compressed)
    path = root / "Annotations/Annotations.mat"
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(RequestError, match=r"Annotations.mat: "):
            load_emotic(root)


def test_missing_files_are_refused_with_the_flag(tmp_path, write):
    with pytest.raises(RequestError, match=r"Annotations.mat: no such file; --data-root"):
        load_emotic(tmp_path)
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))], pictures=False)
    with pytest.raises(RequestError, match=r"emotic: no usable image of the 1 .*1 x missing image"):
        load_emotic(root)
    (root / "emotic").rmdir()
    with pytest.raises(RequestError, match=r"emotic: no such folder, though .* --data-root"):
        load_emotic(root)


@pytest.mark.parametrize(
    ("folder", "filename"),
    [
        ("../outside", "a.jpg"),
        ("mscoco/images", "../../../a.jpg"),
        ("/etc", "passwd"),
        ("mscoco\\images", "a.jpg"),
    ],
)
def test_paths_that_leave_the_data_root_are_refused(write, folder, filename):
    row = picture(filename, person("train", [1, 1, 9, 9], ["Fear"]), folder=folder)
    with pytest.raises(RequestError, match=r"Annotations.mat train\(1\): path .* leaves the data root"):
        load_emotic(write(train=[row], pictures=False))


@pytest.mark.parametrize("link", ["mscoco/images/a.jpg", "mscoco"])
def test_symbolic_links_out_of_the_images_are_refused(write, tmp_path_factory, link):
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))])
    inside = root / "emotic" / link
    outside = tmp_path_factory.mktemp("outside") / "moved"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(RequestError, match="is a symbolic link out of"):
        load_emotic(root)


def test_image_folder_that_is_itself_a_link_is_fine(write, tmp_path_factory):
    root = write(train=[picture("a.jpg", person("train", [1, 1, 9, 9], ["Fear"]))])
    elsewhere = tmp_path_factory.mktemp("disk") / "emotic"
    (root / "emotic").rename(elsewhere)
    (root / "emotic").symlink_to(elsewhere)
    assert len(load_emotic(root).subjects) == 1


coordinate = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-100, 200)
labels = st.lists(st.sampled_from(CATEGORIES), max_size=5, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(persons=st.lists(st.tuples(st.tuples(*[coordinate] * 4), st.lists(labels, max_size=3)), max_size=4))
def test_boxes_after_loading_are_valid_and_everybody_is_accounted_for(write, persons):
    sound = person("test", [1, 1, 9, 9], ["Fear"])
    annotated = [person("test", box, *votes) for box, votes in persons]
    dataset = load_emotic(write(test=[picture("a.jpg", sound, *annotated)]))
    for subject in dataset.subjects:
        for x1, y1, x2, y2 in (subject.body_box, *subject.other_boxes):
            assert min(x1, y1) >= 0
            assert x2 <= WIDTH
            assert y2 <= HEIGHT
            assert min(x2 - x1, y2 - y1) >= 1
    counts = Counter(dataset.defects.counts)
    missing = len(persons) + 1 - len(dataset.subjects)
    without_labels = counts["person without labels"]
    without_box = counts["body box that holds no pixel of the image"]
    assert max(without_labels, without_box) <= missing <= without_labels + without_box
    assert without_labels == sum(not any(votes) for _, votes in persons)
