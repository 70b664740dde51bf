"""GroupWalk read from a manifest and extracted frames: every rule and every refusal."""

import json
import math
from collections import Counter

import pytest
from PIL import Image

from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage

WIDTH, HEIGHT = 100, 80


def sample(video, agent, frame, split, **changes):
    """One line of the manifest, whole and valid."""
    return {
        "sample_id": f"{video}/{agent}/{frame}",
        "video_id": video,
        "agent_id": agent,
        "frame_index": frame,
        "image": f"frames/{video}/{frame:06d}.jpg",
        "bbox": [10, 20, 40, 70.5],
        "bbox_format": "xyxy_0based_halfopen",
        "labels": ["Happy"],
        "split": split,
        "setting": "bus_stop",
        "box_source": "annotation",
        **changes,
    }


def write(root, samples, pictures=True):
    """Write the manifest and each frame in it; returns the data root."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in samples)
    (root / "manifest.jsonl").write_text(text, encoding="utf-8")
    for line in samples if pictures else ():
        path = root / line["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    return root


def one_of_each(**changes):
    """A video each of train, val and test; the changes are to line 1, of train."""
    return [
        sample("a", "p1", 3, "train") | changes,
        sample("b", "p1", 0, "val", labels=["Sad"]),
        sample("c", "p1", 0, "test", labels=["Angry", "Neutral"]),
    ]


def by_id(dataset):
    return {subject.subject_id: subject for subject in dataset.subjects}


def without(line, name):
    return {key: value for key, value in line.items() if key != name}


def refused(root, message):
    with pytest.raises(RequestError, match=message) as failure:
        load_groupwalk(root)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def test_each_field_of_a_line_becomes_what_it_means(tmp_path):
    dataset = load_groupwalk(write(tmp_path, one_of_each(box_source="detector:frcnn@1", note="passed over")))
    assert (dataset.name, dataset.note) == ("groupwalk", "format unverified")
    assert dataset.categories == ("Angry", "Happy", "Neutral", "Sad")
    assert dataset.multi_label
    assert dataset.metric == "mAP"
    assert dataset.splits == ("train", "val", "test")
    assert dataset.defects.counts == {}
    assert [s.subject_id for s in dataset.subjects] == ["a/p1/3", "b/p1/0", "c/p1/0"]
    subject = dataset.subjects[0]
    assert (subject.video, subject.frame, subject.scene) == ("a", 3, "bus_stop")
    assert (subject.image, subject.width, subject.height) == ("frames/a/000003.jpg", WIDTH, HEIGHT)
    assert (dataset.root / subject.image).is_file()
    assert subject.body_box == (10, 20, 40, 70.5)
    assert (subject.labels, subject.box_source, subject.split) == (("Happy",), "detector:frcnn@1", "train")
    assert (subject.face_box, subject.other_boxes) == (None, ())
    assert dataset.targets.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]


def test_labels_come_in_the_order_of_the_categories_and_once(tmp_path):
    dataset = load_groupwalk(write(tmp_path, one_of_each(labels=["Sad", "Happy", "Sad", "Angry"])))
    assert dataset.subjects[0].labels == ("Angry", "Happy", "Sad")


def test_an_unknown_setting_is_null(tmp_path):
    assert load_groupwalk(write(tmp_path, one_of_each(setting=None))).subjects[0].scene is None


def test_test_splits_of_the_embedded_world_are_kept(tmp_path):
    extra = [sample(split, "p", 0, split) for split in ("test_anti", "test_do", "test_id")]
    dataset = load_groupwalk(write(tmp_path, one_of_each() + extra))
    assert dataset.test_splits == ("test", "test_id", "test_do", "test_anti")


def test_other_boxes_are_those_of_the_other_agents_of_the_same_image(tmp_path):
    samples = [
        *one_of_each(),
        sample("a", "p2", 3, "train", bbox=[50, 20, 80, 70]),
        sample("a", "p3", 3, "train", bbox=[90, 20, 120, 70], labels=[]),
        sample("a", "p4", 3, "train", bbox=[200, 20, 220, 70]),
        sample("a", "p2", 4, "train", bbox=[51, 21, 81, 71]),
    ]
    dataset = load_groupwalk(write(tmp_path, samples))
    subjects = by_id(dataset)
    assert subjects["a/p1/3"].other_boxes == ((50, 20, 80, 70), (90, 20, 100, 70))
    assert subjects["a/p2/3"].other_boxes == ((10, 20, 40, 70.5), (90, 20, 100, 70))
    assert subjects["a/p2/4"].other_boxes == ()
    assert "a/p3/3" not in subjects


def test_an_agent_twice_in_an_image_is_counted_and_not_somebody_else(tmp_path):
    again = sample("a", "p1", 3, "train", sample_id="again", bbox=[12, 20, 42, 70])
    dataset = load_groupwalk(write(tmp_path, [*one_of_each(), again]))
    assert dataset.defects.counts == {"agent twice in an image: both kept": 1}
    assert by_id(dataset)["a/p1/3"].other_boxes == by_id(dataset)["again"].other_boxes == ()


def test_boxes_are_clipped_or_dropped_and_counted(tmp_path):
    boxes = {
        "clipped": [-5, 10, 500, 60.5],
        "outside": [200, 10, 300, 60],
        "empty": [30, 10, 30, 60],
        "inverted": [60, 10, 30, 60],
        "nan": [math.nan, 10, 30, 60],
        "null": [None, 10, 30, 60],
        "infinite": [0, 0, math.inf, 60],
    }
    extra = [sample("a", name, 10 + n, "train", bbox=box) for n, (name, box) in enumerate(boxes.items())]
    dataset = load_groupwalk(write(tmp_path, one_of_each() + extra))
    assert dataset.defects.counts == {
        "body box that leaves the image: clipped": 1,
        "body box that holds no pixel of the image": 6,
    }
    assert [s.subject_id for s in dataset.subjects] == ["a/p1/3", "b/p1/0", "c/p1/0", "a/clipped/10"]
    assert by_id(dataset)["a/clipped/10"].body_box == (0, 10, 100, 60.5)


@pytest.mark.parametrize("labels", [[], None])
def test_a_line_without_labels_is_counted_and_left_out(tmp_path, labels):
    samples = [*one_of_each(), *(sample("a", "p2", frame, "train", labels=labels) for frame in (4, 5))]
    write(tmp_path, samples)
    (tmp_path / "frames/a/000005.jpg").unlink()
    dataset = load_groupwalk(tmp_path)
    assert dataset.defects.counts == {"agent without labels": 2, "missing image": 1}
    assert dataset.defects.examples["agent without labels"] == ["a/p2/4", "a/p2/5"]
    assert by_id(dataset).keys() == {"a/p1/3", "b/p1/0", "c/p1/0"}


def test_images_that_cannot_be_read_are_counted_once_each(tmp_path):
    samples = [
        *one_of_each(),
        sample("a", "p1", 5, "train"),
        sample("a", "p2", 5, "train"),
        sample("a", "p1", 6, "train"),
        sample("a", "p1", 7, "train"),
    ]
    write(tmp_path, samples)
    (tmp_path / "frames/a/000005.jpg").unlink()
    (tmp_path / "frames/a/000006.jpg").write_text("no picture")
    dataset = load_groupwalk(tmp_path)
    assert dataset.defects.counts == {"missing image": 1, "not an image": 1}
    assert [s.subject_id for s in dataset.subjects] == ["a/p1/3", "b/p1/0", "c/p1/0", "a/p1/7"]


def test_without_any_readable_image_the_defects_are_told(tmp_path):
    write(tmp_path, one_of_each(), pictures=False)
    refused(tmp_path, r"manifest.jsonl: no usable subject on its 3 lines \(3 x missing image\)")


def many_videos(train, test, frames=2):
    splits = {f"video_{n:02d}": "train" if n < train else "test" for n in range(train + test)}
    return [sample(video, "p", frame, split) for video, split in splits.items() for frame in range(frames)]


@pytest.mark.parametrize(("train", "test", "expected"), [(38, 7, 4), (17, 3, 2), (8, 2, 1), (2, 1, 1), (2, 40, 1)])
def test_without_val_a_tenth_of_the_videos_is_taken_from_train_as_a_whole(tmp_path, train, test, expected):
    dataset = load_groupwalk(write(tmp_path, many_videos(train, test)))
    split_of = {}
    for subject in dataset.subjects:
        assert split_of.setdefault(subject.video, subject.split) == subject.split
    assert Counter(split_of.values()) == {"train": train - expected, "val": expected, "test": test}
    assert {split_of[f"video_{n:02d}"] for n in range(train, train + test)} == {"test"}


def test_the_drawn_videos_depend_on_neither_the_order_of_lines_nor_on_images(tmp_path):
    def drawn():
        return {s.video for s in load_groupwalk(tmp_path).subjects if s.split == "val"}

    samples = many_videos(38, 7)
    write(tmp_path, samples)
    before = drawn()
    assert before != {f"video_{n:02d}" for n in range(4)}
    (tmp_path / "frames/video_00/000000.jpg").unlink()
    write(tmp_path, samples[::-1], pictures=False)
    assert drawn() == before


def test_val_is_not_drawn_from_a_video_without_labels(tmp_path):
    bare = [sample(f"bare_{n}", "p", 0, "train", labels=[]) for n in range(20)]
    dataset = load_groupwalk(write(tmp_path, many_videos(2, 1) + bare))
    assert Counter(s.split for s in dataset.subjects) == {"train": 2, "val": 2, "test": 2}


def test_one_train_video_is_too_few_to_take_val_from(tmp_path):
    refused(write(tmp_path, many_videos(1, 3)), r"manifest.jsonl: no video has split val, and 1 labelled in train")


def test_a_video_in_two_splits_is_refused_with_both_lines(tmp_path):
    samples = [*one_of_each(), sample("a", "p1", 4, "test")]
    found = refused(write(tmp_path, samples), r"line 4: video 'a' is in split test, and in train in .* line 1")
    assert "manifest.jsonl" in found


def test_an_image_of_two_videos_is_refused(tmp_path):
    samples = [*one_of_each(), sample("d", "p1", 3, "test", image="frames/./a/000003.jpg")]
    refused(write(tmp_path, samples), r"line 4: frames/a/000003.jpg is of video 'd', and of 'a' in .* line 1")


def test_a_sample_listed_twice_is_refused(tmp_path):
    samples = [*one_of_each(), sample("a", "p2", 4, "train", sample_id="a/p1/3")]
    refused(write(tmp_path, samples), r"line 4: sample_id 'a/p1/3' again, after .* line 1")


FIELDS = tuple(sample("a", "p", 0, "train"))


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named_with_its_line(tmp_path, name):
    lines = one_of_each()
    lines[1] = without(lines[1], name)
    write(tmp_path, lines, pictures=False)
    refused(tmp_path, rf"manifest.jsonl line 2: field '{name}' is missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_format": "xywh"}, r"field 'bbox_format' is \"xywh\"; give xyxy_0based_halfopen"),
        ({"bbox_format": None}, r"field 'bbox_format' is null"),
        ({"labels": ["Joyful"]}, r"field 'labels' has the unknown label \"Joyful\".*Angry, Happy, Neutral, Sad"),
        ({"labels": ["happy"]}, r"field 'labels' has the unknown label \"happy\""),
        ({"labels": [["Happy"]]}, r"field 'labels' has the unknown label \[\"Happy\"\]"),
        ({"labels": "Happy"}, r"field 'labels' is \"Happy\"; give a list"),
        ({"split": "dev"}, r"field 'split' is \"dev\"; give train or val or test"),
        ({"split": ["train"]}, r"field 'split' is "),
        ({"sample_id": ""}, r"field 'sample_id' is \"\"; give a text"),
        ({"sample_id": 7}, r"field 'sample_id' is 7"),
        ({"sample_id": "\ud800"}, r"field 'sample_id' is \"\\ud800\""),
        ({"video_id": None}, r"field 'video_id' is null"),
        ({"agent_id": 3}, r"field 'agent_id' is 3"),
        ({"frame_index": -1}, r"field 'frame_index' is -1; give a whole number"),
        ({"frame_index": 1.5}, r"field 'frame_index' is 1.5"),
        ({"frame_index": True}, r"field 'frame_index' is true"),
        ({"frame_index": 2**63}, r"field 'frame_index' is 9223372036854775808"),
        ({"bbox": [1, 2, 3]}, r"field 'bbox' is \[1, 2, 3\]; give four numbers"),
        ({"bbox": "1,2,3,4"}, r"field 'bbox' is "),
        ({"bbox": None}, r"field 'bbox' is null"),
        ({"bbox": [1, 2, 3, "4"]}, r"field 'bbox' is "),
        ({"bbox": [1, 2, 3, True]}, r"field 'bbox' is "),
        ({"bbox": [1, 2, 3, 10**400]}, r"field 'bbox' is \[1, 2, 3, 1000.*\.\.\.; give four numbers"),
        ({"setting": 5}, r"field 'setting' is 5"),
        ({"box_source": ""}, r"field 'box_source' is \"\""),
        ({"image": "../secret.jpg"}, r"field 'image': path '../secret.jpg' leaves the data root"),
        ({"image": "/etc/passwd"}, r"field 'image': path '/etc/passwd' leaves the data root"),
        ({"image": "frames\\a.jpg"}, r"field 'image': path .* leaves the data root"),
        ({"image": "a\x00.jpg"}, r"field 'image': path .* leaves the data root"),
        ({"image": None}, r"field 'image' is null"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_line(tmp_path, change, message):
    write(tmp_path, one_of_each(**change), pictures=False)
    refused(tmp_path, f"manifest.jsonl line 1: {message}")


def test_an_image_behind_a_link_out_of_the_root_is_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write(root, one_of_each())
    (root / "frames/a/000003.jpg").rename(tmp_path / "elsewhere.jpg")
    (root / "frames/a/000003.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    refused(root, r"000003.jpg is a symbolic link out of ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sample_id": "x"', r"line 4: not JSON"),
        ("not json", r"line 4: not JSON"),
        ("[" * 100_000, r"line 4: not JSON"),
        ("[1, 2]", r"line 4: \[1, 2\] found, one JSON object a line expected"),
        ('"text"', r"line 4: \"text\" found"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path, line, message):
    write(tmp_path, [*one_of_each(), line], pictures=False)
    refused(tmp_path, f"manifest.jsonl {message}")


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
def test_an_empty_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.jsonl").write_text(content)
    refused(tmp_path, r"manifest.jsonl: no line in it")


def test_a_missing_or_binary_manifest_is_refused(tmp_path):
    refused(tmp_path, r"manifest.jsonl: no such file; --data-root")
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, r"manifest.jsonl: not UTF-8")


def test_lines_are_cut_at_line_ends_alone_and_counted_with_blank_ones(tmp_path):
    write(tmp_path, one_of_each())
    first, *others = one_of_each(setting="bus\u2028stop\x85")
    text = "\r\n\r\n".join([json.dumps(first, ensure_ascii=False), *map(json.dumps, others)])
    (tmp_path / "manifest.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = load_groupwalk(tmp_path)
    assert len(dataset.subjects) == 3
    assert dataset.subjects[0].scene == "bus\u2028stop\x85"
    (tmp_path / "manifest.jsonl").write_bytes(text.encode() + b"\r\n{")
    refused(tmp_path, r"manifest.jsonl line 6: not JSON")


def test_the_digest_covers_the_manifest(tmp_path):
    before = load_groupwalk(write(tmp_path, one_of_each()))
    after = load_groupwalk(write(tmp_path, one_of_each(extra="remark")))
    assert after.subjects == before.subjects
    assert after.annotation_digest != before.annotation_digest


def test_a_plan_is_made_for_real_frames(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write(root, many_videos(12, 3, frames=2))
    stand_in = {"arch": "thin_resnet", "weights": "random"}
    base = default_experiment("groupwalk", "smoke", None).with_changes(
        trunks={"context": stand_in, "body": stand_in}, backbone=stand_in
    )
    plan = make_plan([("CCIM", base)], (0,), Storage(tmp_path / "runs"), root)
    assert plan.source.dataset.note == "format unverified"
    assert plan.source.train_subjects == 20
    assert plan.dictionaries[0].settings.size == 16
