"""CAER-S read from folders and files in the formats in which they are published."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccim_ray.datasets.caer_s import CATEGORIES, SPLIT_SEED, body_from_face, load_caer_s
from ccim_ray.errors import RequestError

WIDTH, HEIGHT = 100, 80


def add_picture(root, relative, size=(WIDTH, HEIGHT)):
    path = root / "CAER-S" / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def root(tmp_path):
    """Each category with 2 pictures under train and 3 under test, Angry and Anger as published."""
    for category in CATEGORIES:
        in_train = "Angry" if category == "Anger" else category
        for number in (1, 2):
            add_picture(tmp_path, f"train/{in_train}/{number:04}.png")
        for number in (1, 2, 3):
            add_picture(tmp_path, f"test/{category}/{number:04}.png")
    return tmp_path


def all_paths(root):
    base = root / "CAER-S"
    return sorted(path.relative_to(base).as_posix() for path in base.rglob("*.png"))


def write_bodies(root, boxes=None):
    boxes = dict.fromkeys(all_paths(root), (10, 10, 60, 70)) if boxes is None else boxes
    rows = [f"{path},{','.join(map(str, box))}" for path, box in boxes.items()]
    (root / "body_boxes.csv").write_text("\n".join(["image,x1,y1,x2,y2", *rows, ""]))


def write_splits(root, split_of):
    rows = [f"{path},{split}" for path, split in split_of.items()]
    (root / "splits.csv").write_text("\n".join(["image,split", *rows, ""]))


def by_id(dataset):
    return {subject.subject_id: subject for subject in dataset.subjects}


def test_reads_layout_with_angry_in_train_and_anger_in_test(root):
    write_bodies(root)
    dataset = load_caer_s(root)
    assert dataset.name == "caer_s"
    assert dataset.categories == ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
    assert not dataset.multi_label
    assert dataset.defects.counts == {}
    assert len(dataset.subjects) == 35
    assert Counter(subject.labels for subject in dataset.subjects) == {(name,): 5 for name in CATEGORIES}
    subject = by_id(dataset)["train/Angry/0001.png"]
    assert subject.image == "CAER-S/train/Angry/0001.png"
    assert (dataset.root / subject.image).is_file()
    assert subject.labels == ("Anger",)
    assert (subject.width, subject.height) == (WIDTH, HEIGHT)
    assert subject.body_box == (10, 10, 60, 70)
    assert subject.box_source == "user"
    assert subject.face_box is None


def test_default_split_takes_a_stratified_third_of_the_test_folder_for_validation(root):
    for category in CATEGORIES:
        for number in range(4, 31):
            add_picture(root, f"test/{category}/{number:04}.png", (8, 8))
    write_bodies(root, dict.fromkeys(all_paths(root), (0, 0, 8, 8)))
    dataset = load_caer_s(root)
    assert dataset.splits == ("train", "val", "test")
    counts = Counter((subject.split, subject.labels[0]) for subject in dataset.subjects)
    for category in CATEGORIES:
        assert [counts[split, category] for split in ("train", "val", "test")] == [2, 10, 20]
    assert all((s.split == "train") == s.subject_id.startswith("train/") for s in dataset.subjects)
    validation = {s.subject_id for s in dataset.subjects if s.split == "val"}
    assert validation == {s.subject_id for s in load_caer_s(root).subjects if s.split == "val"}
    first_ten = {f"test/{category}/{number:04}.png" for category in CATEGORIES for number in range(1, 11)}
    assert validation != first_ten
    # Results are compared over years: another seed, or way of drawing, would be another test set.
    assert SPLIT_SEED == 0
    of_sad = sorted(int(name[9:13]) for name in validation if "/Sad/" in name)
    assert of_sad == [1, 6, 7, 8, 14, 15, 20, 21, 22, 26]


def test_default_split_does_not_depend_on_the_name_of_the_anger_folder_or_on_boxes(root):
    write_bodies(root)
    before = {s.subject_id.replace("Angry", "Anger"): s.split for s in load_caer_s(root).subjects}
    (root / "CAER-S/train/Angry").rename(root / "CAER-S/train/Anger")
    (root / "CAER-S/test/Anger").rename(root / "CAER-S/test/Angry")
    write_bodies(root, dict.fromkeys(all_paths(root)[::2], (1, 1, 5, 5)))
    after = {s.subject_id.replace("Angry", "Anger"): s.split for s in load_caer_s(root).subjects}
    assert after == {name: before[name] for name in after}


def test_split_file_is_the_truth(root):
    write_bodies(root)
    write_splits(
        root,
        {"test/Fear/0001.png": "train", "train/Anger/0002.png": "test_do", "./test/Sad/0003.png": "val"},
    )
    dataset = load_caer_s(root)
    assert {name: subject.split for name, subject in by_id(dataset).items()} == {
        "test/Fear/0001.png": "train",
        "train/Angry/0002.png": "test_do",
        "test/Sad/0003.png": "val",
    }
    assert dataset.defects.counts == {"image not in splits.csv": 32}
    assert len(dataset.defects.examples["image not in splits.csv"]) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,split\ntest/Fear/9999.png,val\n", r"splits.csv: unknown image 'test/Fear/9999.png'"),
        ("image,split\ntest/Fear/0001.png,dev\n", r"splits.csv line 2: unknown split 'dev'"),
        (
            "image,split\ntest/Fear/0001.png,val\n\ntest/Fear/0001.png,test\n",
            r"line 4: .* as val and as test",
        ),
        ("path,split\ntest/Fear/0001.png,val\n", r"header 'path,split' found, 'image,split' expected"),
        ("", r"header '' found"),
        ("image,split\ntest/Fear/0001.png\n", r"line 2: 1 fields found, 2 expected"),
        ("image,split\n../secret.png,val\n", r"line 2: path '../secret.png' leaves the data root"),
        ("image,split\n/etc/passwd,val\n", r"line 2: path '/etc/passwd' leaves the data root"),
        ("image,split\ntest\\Fear\\0001.png,val\n", r"line 2: path .* leaves the data root"),
    ],
)
def test_wrong_split_file_is_refused_in_one_line_with_file_and_line(root, content, message):
    write_bodies(root)
    (root / "splits.csv").write_text(content)
    with pytest.raises(RequestError, match=message) as failure:
        load_caer_s(root)
    assert "\n" not in str(failure.value)


def test_binary_split_file_is_refused(root):
    (root / "splits.csv").write_bytes(b"image,split\n\xff\xfe\x00")
    with pytest.raises(RequestError, match="not UTF-8"):
        load_caer_s(root)


def test_split_file_of_a_spreadsheet_program_is_read(root):
    write_bodies(root)
    (root / "splits.csv").write_bytes(b"\xef\xbb\xbfimage,split\r\ntest/Fear/0001.png,test\r\n")
    assert [s.subject_id for s in load_caer_s(root).subjects] == ["test/Fear/0001.png"]


@pytest.mark.parametrize(
    "lines",
    [
        {"train.txt": "train/Angry/0001.png,0,20,10,29,21", "test.txt": "test/Sad/0002.png,5,50,8,53,11"},
        {"train.txt": "Angry/0001.png,0,20,10,29,21", "test.txt": "Sad/0002.png,5,50,8,53,11"},
        {"train.txt": "Anger/0001.png,0,20,10,29,21", "val.txt": "Sad/0002.png,5,50,8,53,11"},
    ],
)
def test_face_files_in_each_published_format_become_half_open_boxes(root, lines):
    for name, line in lines.items():
        (root / name).write_text(line + "\n")
    dataset = load_caer_s(root)
    subjects = by_id(dataset)
    assert subjects.keys() == {"train/Angry/0001.png", "test/Sad/0002.png"}
    assert subjects["train/Angry/0001.png"].face_box == (20, 10, 30, 22)
    assert subjects["test/Sad/0002.png"].face_box == (50, 8, 54, 12)
    assert dataset.defects.counts == {"no box": 33}


def test_body_from_face_is_three_faces_wide_and_six_tall_with_the_face_near_the_top(root):
    (root / "train.txt").write_text("Angry/0001.png,0,40,20,49,29\nAngry/0002.png,0,0,0,49,49\n")
    subjects = by_id(load_caer_s(root))
    assert subjects["train/Angry/0001.png"].body_box == (30, 15, 60, 75)
    assert subjects["train/Angry/0001.png"].box_source == "face"
    assert subjects["train/Angry/0002.png"].body_box == (0, 0, 100, 80)


def test_body_box_of_the_user_goes_before_the_face_and_the_face_is_kept(root):
    (root / "train.txt").write_text("Angry/0001.png,0,40,20,49,29\n")
    write_bodies(root, {"train/Anger/0001.png": (1.5, 2.25, 30.75, 40)})
    (subject,) = load_caer_s(root).subjects
    assert subject.body_box == (1.5, 2.25, 30.75, 40)
    assert subject.box_source == "user"
    assert subject.face_box == (40, 20, 50, 30)


def test_faces_outside_the_image_are_clipped_or_dropped_and_counted(root):
    (root / "train.txt").write_text(
        "Angry/0001.png,0,-3,-1,9,9\nAngry/0002.png,0,90,70,120,90\nFear/0001.png,2,200,10,220,30\n"
    )
    dataset = load_caer_s(root)
    subjects = by_id(dataset)
    assert subjects["train/Angry/0001.png"].face_box == (0, 0, 10, 10)
    assert subjects["train/Angry/0002.png"].face_box == (90, 70, 100, 80)
    assert subjects.keys() == {"train/Angry/0001.png", "train/Angry/0002.png"}
    assert dataset.defects.counts["face box that leaves the image: clipped"] == 2
    assert dataset.defects.counts["face box that holds no pixel of the image"] == 1


def test_disagreements_of_the_face_file_are_counted(root):
    (root / "train.txt").write_text("Angry/0001.png,3,1,1,9,9\nAngry/0001.png,0,2,2,9,9\nAngry/0009.png,0,1,1,9,9\n\n")
    dataset = load_caer_s(root)
    (subject,) = dataset.subjects
    assert subject.labels == ("Anger",)
    assert subject.face_box == (1, 1, 10, 10)
    assert dataset.defects.counts == {
        "label of the face file is not the folder's: the folder's is kept": 1,
        "second face of an image: the first is kept": 1,
        "face of an image that is not there": 1,
        "no box": 34,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Angry/0001.png,0,1,1,9", r"train.txt line 2: .* path,label,x1,y1,x2,y2 expected"),
        ("Angry/0001.png,7,1,1,9,9", r"train.txt line 2: unknown label '7'"),
        ("Angry/0001.png,0,1,1,9,wide", r"train.txt line 2: box '1,1,9,wide' is not four numbers"),
        ("a/b/Angry/0001.png,0,1,1,9,9", r"train.txt line 2: path .* expected"),
        ("train/../../x/0001.png,0,1,1,9,9", r"train.txt line 2: path .* leaves the data root"),
    ],
)
def test_malformed_face_file_is_refused(root, line, message):
    (root / "train.txt").write_text(f"Angry/0001.png,0,1,1,9,9\n{line}\n")
    with pytest.raises(RequestError, match=message):
        load_caer_s(root)


def test_body_boxes_are_clipped_and_counted_and_fall_back_on_the_face(root):
    write_bodies(
        root,
        {
            "train/Angry/0001.png": (-5, 10, 500, 60.5),
            "train/Angry/0002.png": (200, 10, 300, 60),
            "train/Fear/0001.png": ("nan", 10, 50, 60),
            "train/Fear/0777.png": (1, 1, 5, 5),
        },
    )
    (root / "train.txt").write_text("Angry/0002.png,0,40,20,49,29\n")
    dataset = load_caer_s(root)
    subjects = by_id(dataset)
    assert subjects["train/Angry/0001.png"].body_box == (0, 10, 100, 60.5)
    assert subjects["train/Angry/0002.png"].box_source == "face"
    assert dataset.defects.counts == {
        "body box of an image that is not there": 1,
        "body box that leaves the image: clipped": 1,
        "body box that holds no pixel of the image": 2,
        "no box": 33,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("train/Fear/0001.png,1,1,6,6", r"line 3: train/Fear/0001.png is listed twice"),
        ("../Fear/0001.png,1,1,6,6", r"line 3: path '../Fear/0001.png' leaves the data root"),
        ("/etc/passwd,1,1,6,6", r"line 3: path '/etc/passwd' leaves the data root"),
        ("train/Fear/0002.png,1,1,6", r"line 3: 4 fields found, 5 expected"),
        ("train/Fear/0002.png,1,1,6,six", r"line 3: box '1,1,6,six' is not four numbers"),
    ],
)
def test_wrong_line_of_the_body_boxes_is_refused(root, row, message):
    (root / "body_boxes.csv").write_text(f"image,x1,y1,x2,y2\ntrain/Fear/0001.png,1,1,5,5\n{row}\n")
    with pytest.raises(RequestError, match=f"body_boxes.csv {message}"):
        load_caer_s(root)


def test_without_any_box_the_message_says_which_files_would_give_them(root):
    with pytest.raises(RequestError, match=r"35 images has a body box; give .*body_boxes.csv.*train.txt"):
        load_caer_s(root)


def test_damaged_and_foreign_files_are_counted(root):
    write_bodies(root)
    (root / "CAER-S/train/Fear/0001.png").write_text("not a picture")
    (root / "CAER-S/train/Fear/Thumbs.db").write_text("")
    (root / "CAER-S/train/Fear/.DS_Store").write_text("")
    (root / "CAER-S/.hidden").mkdir()
    add_picture(root, "train/Sad/0004.jpg")
    dataset = load_caer_s(root)
    assert len(dataset.subjects) == 34
    assert dataset.defects.counts == {"not an image": 1, "file that is no .png or .jpg": 1, "no box": 1}
    assert dataset.defects.examples["not an image"] == ["train/Fear/0001.png"]


def test_jpeg_pictures_are_read(root):
    add_picture(root, "train/Sad/0004.jpg", (33, 22))
    write_bodies(root, {"train/Sad/0004.jpg": (0, 0, 33, 22)})
    (subject,) = load_caer_s(root).subjects
    assert (subject.width, subject.height) == (33, 22)


def test_category_that_is_missing_from_a_folder_is_counted(root):
    for path in (root / "CAER-S/train/Fear").iterdir():
        path.unlink()
    (root / "CAER-S/train/Fear").rmdir()
    write_bodies(root)
    assert load_caer_s(root).defects.examples == {"category without pictures": ["train/Fear"]}


def test_unknown_emotion_folder_is_refused(root):
    add_picture(root, "train/Contempt/0001.png")
    with pytest.raises(RequestError, match="unknown label 'Contempt'"):
        load_caer_s(root)


def test_missing_folders_and_empty_downloads_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"CAER-S/train: no such folder; --data-root"):
        load_caer_s(tmp_path)
    (tmp_path / "CAER-S/train/Fear").mkdir(parents=True)
    (tmp_path / "CAER-S/test").mkdir()
    with pytest.raises(RequestError, match="no usable image"):
        load_caer_s(tmp_path)


def test_symbolic_links_out_of_the_data_are_refused(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (8, 8)).save(outside / "secret.png")
    link = root / "CAER-S/train/Fear/0009.png"
    link.symlink_to(outside / "secret.png")
    with pytest.raises(RequestError, match="symbolic link out of"):
        load_caer_s(root)
    link.unlink()
    (root / "CAER-S/train/Angry").rename(outside / "Angry")
    (root / "CAER-S/train/Angry").symlink_to(outside / "Angry")
    with pytest.raises(RequestError, match="symbolic link out of"):
        load_caer_s(root)


def test_data_root_that_is_itself_a_link_is_fine(root, tmp_path_factory):
    write_bodies(root)
    link = tmp_path_factory.mktemp("links") / "data"
    link.symlink_to(root)
    assert load_caer_s(link).fingerprint == load_caer_s(root).fingerprint


def test_digest_and_fingerprint_follow_the_annotation(root):
    write_bodies(root)
    before = load_caer_s(root)
    assert load_caer_s(root).fingerprint == before.fingerprint
    write_bodies(root, dict.fromkeys(all_paths(root), (10, 10, 60, 71)))
    after = load_caer_s(root)
    assert after.annotation_digest != before.annotation_digest
    assert after.fingerprint != before.fingerprint


anything = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-200, 300)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.tuples(*[anything] * 4), face=st.tuples(*[anything] * 4))
def test_boxes_after_loading_are_valid_and_inside_the_image(tmp_path, body, face):
    if not (tmp_path / "CAER-S").exists():
        add_picture(tmp_path, "train/Fear/1.png")
        add_picture(tmp_path, "test/Fear/1.png")
    write_bodies(tmp_path, {"train/Fear/1.png": body, "test/Fear/1.png": (1, 1, 9, 9)})
    (tmp_path / "train.txt").write_text(f"Fear/1.png,2,{','.join(map(str, face))}\n")
    for subject in load_caer_s(tmp_path).subjects:
        for box in (subject.body_box, subject.face_box):
            if box is not None:
                x1, y1, x2, y2 = box
                assert min(x1, y1) >= 0
                assert x2 <= WIDTH
                assert y2 <= HEIGHT
                assert min(x2 - x1, y2 - y1) >= 1


@given(x=st.floats(0, 90), y=st.floats(0, 70), width=st.floats(1, 10), height=st.floats(1, 10))
def test_grown_body_holds_its_face(x, y, width, height):
    face = (x, y, x + width, y + height)
    body = body_from_face(face, WIDTH, HEIGHT)
    assert body is not None
    assert body[0] <= face[0]
    assert body[1] <= face[1]
    assert body[2] >= face[2]
    assert body[3] >= face[3]
