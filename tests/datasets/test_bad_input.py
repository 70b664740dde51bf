"""What may be wrong with a download, for every dataset that is read from disk: counted and named, or refused in a line.

What only one of them can have wrong stands in the tests of its loader.
"""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import ViewRequest
from ccim_ray.perception.views import ViewMaker

SIZE = (64, 48)
NAMES = ("emotic", "caer_s", "groupwalk")
SPLITS = {"a": "train", "b": "val", "c": "test"}


def write_emotic(emotic, split_of):
    rows = {"train": [], "val": [], "test": []}
    for name, split in split_of.items():
        rows[split].append(emotic.picture(f"{name}.png", emotic.person(split, [5, 5, 40, 40], ["Fear"])))
    emotic.write(**rows, pictures=False)
    return [f"emotic/mscoco/images/{name}.png" for name in split_of]


def write_caer_s(emotic, split_of):
    """Of the pictures that are not for train, the loader chooses which are val and which test."""
    pictures = [f"train/Angry/{n}.png" if split == "train" else f"test/Anger/{n}.png" for n, split in split_of.items()]
    lines = ["image,x1,y1,x2,y2", *(f"{picture},4,4,40,40" for picture in pictures), ""]
    (emotic.root / "body_boxes.csv").write_text("\n".join(lines))
    return [f"CAER-S/{picture}" for picture in pictures]


def write_groupwalk(emotic, split_of):
    lines = [
        {
            "sample_id": name,
            "video_id": name,
            "agent_id": "p",
            "frame_index": 0,
            "image": f"frames/{name}.png",
            "bbox": [4, 4, 40, 40],
            "bbox_format": "xyxy_0based_halfopen",
            "labels": ["Sad"],
            "split": split,
            "setting": None,
            "box_source": "annotation",
        }
        for name, split in split_of.items()
    ]
    (emotic.root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [line["image"] for line in lines]


WRITERS = {"emotic": write_emotic, "caer_s": write_caer_s, "groupwalk": write_groupwalk}


@pytest.fixture
def written(emotic):
    """Writes a sound dataset, one subject a picture, by its name and the split of each; returns its root."""

    def write(name, split_of=SPLITS):
        for picture in WRITERS[name](emotic, split_of):
            path = emotic.root / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE, (200, 100, 50)).save(path)
        return emotic.root

    return write


def path_of(root, name):
    """The picture of that name."""
    (path,) = root.rglob(f"{name}.png")
    return path


def decoded(root, subjects):
    """Body crops of subjects, and for each None or why there is none."""
    maker = ViewMaker(root, [ViewRequest("body", "thin_resnet", None)], None, torch.device("cpu"))
    (rows,), (reasons,) = maker.make(subjects, [0])
    return rows, reasons


def refused(name, root, message, options=None):
    with pytest.raises(RequestError, match=message) as failure:
        load_dataset(name, root, *([options] if options else []))
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 1000
    return str(failure.value)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_any_colour_mode_are_read_without_complaint(written, name):
    modes = {"grey": "L", "grey with alpha": "LA", "alpha": "RGBA", "palette": "P", "bilevel": "1", "16 bit": "I;16"}
    root = written(name, dict.fromkeys([*modes, "printed"], "train") | {"val": "val", "test": "test", "test2": "test"})
    for picture, mode in modes.items():
        Image.new(mode, SIZE).save(path_of(root, picture))
    Image.new("CMYK", SIZE).save(path_of(root, "printed"), "TIFF")
    dataset = load_dataset(name, root)
    assert set(dataset.defects.counts) <= {"category without pictures"}
    assert len(dataset.subjects) == 10
    rows, reasons = decoded(root, dataset.subjects)
    assert set(reasons) == {None}
    assert rows.shape == (10, 64, 64, 3)


def png_of(width, height):
    """A PNG file that says it is so large, and holds no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", NAMES)
def test_pictures_that_cannot_be_read_are_counted_and_the_others_stay(written, name):
    bad = {
        "page": (b"<html>not found</html>", "not an image"),
        "cut": (png_of(*SIZE)[:20], "truncated or damaged image"),
        "bomb": (png_of(50_000, 50_000), "image too large to decode safely"),
        "absent": (None, "missing image"),
    }
    root = written(name, dict.fromkeys(bad, "train") | SPLITS)
    for picture, (content, _) in bad.items():
        path = path_of(root, picture)
        path.unlink() if content is None else path.write_bytes(content)
    dataset = load_dataset(name, root)
    for picture, (content, reason) in bad.items():
        if name == "caer_s" and content is None:  # its pictures are what lies in the folders
            reason = "body box of an image that is not there"
        assert dataset.defects.counts[reason] == 1
        assert f"{picture}.png" in dataset.defects.examples[reason][0]
    assert [subject.image.rpartition("/")[2] for subject in dataset.subjects] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_cut_off_below_its_header_is_found_when_it_is_decoded(written, name):
    root = written(name)
    path = path_of(root, "a")
    Image.effect_noise(SIZE, 80).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    _, reasons = decoded(root, load_dataset(name, root).subjects)
    assert reasons == ["truncated or damaged image", None, None]


@pytest.mark.parametrize("asked", NAMES)
@pytest.mark.parametrize("given", NAMES)
def test_the_folder_of_another_dataset_is_refused(written, given, asked):
    root = written(given)
    if asked == given:
        assert load_dataset(asked, root).subjects
    else:
        assert str(root) in refused(asked, root, "no such (file|folder).* --data-root")


FOREIGN = {
    "numbers.mat": lambda path: savemat(path, {"x": np.arange(9)}),
    "structs.mat": lambda path: savemat(path, {name: {"a": 1, "b": "text"} for name in ("train", "val", "test")}),
    "numbers in the splits.mat": lambda path: savemat(path, {name: np.eye(3) for name in ("train", "val", "test")}),
    "table.csv": lambda path: path.write_text("a,b\n1,2\n"),
    "picture.png": lambda path: Image.effect_noise(SIZE, 80).save(path),
    "page.html": lambda path: path.write_text("<html>404</html>"),
    "array.npy": lambda path: np.save(path, np.eye(9)),
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emotic", "Annotations.mat"),
        ("caer_s", "body_boxes.csv"),
        ("caer_s", "splits.csv"),
        ("caer_s", "train.txt"),
        ("groupwalk", "manifest.jsonl"),
    ],
)
def test_an_annotation_file_that_holds_something_else_is_refused(written, tmp_path, name, file, foreign):
    root = written(name)
    FOREIGN[foreign](tmp_path / foreign)
    path = root / "Annotations" / file if name == "emotic" else root / file
    path.write_bytes((tmp_path / foreign).read_bytes())
    assert str(path) in refused(name, root, file)


@pytest.mark.parametrize(
    ("name", "file"),
    [("caer_s", "body_boxes.csv"), ("caer_s", "train.txt"), ("groupwalk", "manifest.jsonl")],
)
def test_the_annotation_of_emotic_in_place_of_another_is_refused(written, emotic, name, file):
    write_emotic(emotic, SPLITS)
    root = written(name)
    shutil.copy(root / "Annotations/Annotations.mat", root / file)
    refused(name, root, file)


@pytest.mark.parametrize(("name", "file"), [("caer_s", "body_boxes.csv"), ("groupwalk", "manifest.jsonl")])
def test_a_text_file_cut_off_anywhere_gives_fewer_subjects_or_one_line(written, name, file):
    root = written(name)
    whole = (root / file).read_bytes()
    for length in range(len(whole)):
        (root / file).write_bytes(whole[:length])
        try:
            subjects = load_dataset(name, root).subjects
        except RequestError as error:
            refusal = str(error)
        else:
            # A number that lost its last digits is still a number, so the last line may be there with another box.
            lines = whole[:length].rstrip().count(b"\n") + (name == "groupwalk")
            assert len(subjects) <= lines
            continue
        assert str(root) in refusal


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("emotic", "ä" * 128),
        ("emotic", "deep/" * 250 + "a"),
        ("groupwalk", "ä" * 128),
        ("groupwalk", "deep/" * 250 + "a"),
        ("groupwalk", "a\ud800"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(written, emotic, name, path):
    root = written(name)
    if name == "emotic":
        emotic.write(train=[emotic.picture(path, emotic.person("train", [1, 1, 9, 9], ["Fear"]))], pictures=False)
    else:
        line = json.loads((root / "manifest.jsonl").read_text().splitlines()[0])
        (root / "manifest.jsonl").write_text(json.dumps(line | {"image": path}))
    refused(name, root, "no name that a file can have|field 'image'")


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("100,4,120,40", "that holds no pixel of the image"),
        ("-30,4,-4,40", "that holds no pixel of the image"),
        ("40,4,4,40", "that holds no pixel of the image"),
        ("20,20,19,40", "that holds no pixel of the image"),
        ("nan,4,20,40", "that holds no pixel of the image"),
        ("-inf,4,20,40", "that holds no pixel of the image"),
        ("-3,-9,20,40", "that leaves the image: clipped"),
    ],
)
@pytest.mark.parametrize("kind", ["body box", "face box"])
def test_wrong_boxes_of_caer_s_are_counted_by_kind(written, kind, box, reason):
    root = written("caer_s")
    if kind == "body box":
        (root / "body_boxes.csv").write_text(
            f"image,x1,y1,x2,y2\ntrain/Anger/a.png,{box}\ntest/Anger/b.png,4,4,40,40\n"
        )
    else:
        (root / "train.txt").write_text(f"Angry/a.png,0,{box}\n")
    dataset = load_dataset("caer_s", root)
    assert dataset.defects.counts[f"{kind} {reason}"] == 1
    assert dataset.defects.examples[f"{kind} {reason}"] == ["train/Angry/a.png"]
    train = [subject for subject in dataset.subjects if subject.split == "train"]
    assert len(train) == (kind == "face box" or "clipped" in reason)


SPLIT_IMAGES = {
    "emotic": ("mscoco/images/a.png", "mscoco/images/b.png"),
    "caer_s": ("train/Anger/a.png", "test/Angry/b.png"),
}


@pytest.mark.parametrize("name", SPLIT_IMAGES)
def test_a_chosen_split_file_goes_before_the_one_in_the_data_root(written, tmp_path_factory, name):
    root = written(name)
    first, second = SPLIT_IMAGES[name]
    chosen = tmp_path_factory.mktemp("splits") / "mine.csv"
    (root / "splits.csv").write_text(f"image,split\n{first},test\n")
    chosen.write_text(f"image,split\n{first},val\n{second},train\n")
    usual, other = load_dataset(name, root), load_dataset(name, root, LoadOptions(split_file=chosen))
    assert [subject.split for subject in usual.subjects] == ["test"]
    assert [subject.split for subject in other.subjects] == ["val", "train"]
    assert usual.annotation_digest != other.annotation_digest
    assert "image not in mine.csv" in other.defects.counts
    chosen.write_text(f"image,split\n{first},val\n{second},test\n")
    assert load_dataset(name, root, LoadOptions(split_file=chosen)).fingerprint != other.fingerprint


UNKNOWN_SUBJECT = ("image,split\nnobody.png,val\n", "mine.csv: unknown image 'nobody.png'")
NO_FILE = (None, "--split-file .*mine.csv: no such file; give")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("emotic", *UNKNOWN_SUBJECT),
        ("emotic", *NO_FILE),
        ("caer_s", *UNKNOWN_SUBJECT),
        ("caer_s", *NO_FILE),
        ("caer_s", "image,split\ntrain/Angry/a.png,dev\n", "mine.csv line 2: unknown split 'dev'"),
        ("caer_s", "image,split\n../a.png,val\n", "mine.csv line 2: path .* leaves the data root"),
        ("caer_s", "nothing of the kind\n", "mine.csv: header 'nothing of the kind' found"),
    ],
)
def test_a_chosen_split_file_that_is_wrong_is_refused(written, tmp_path_factory, name, content, message):
    chosen = tmp_path_factory.mktemp("splits") / "mine.csv"
    if content is not None:
        chosen.write_text(content)
    refused(name, written(name), message, LoadOptions(split_file=chosen))


def test_a_folder_as_split_file_is_refused(written, tmp_path):
    refused("caer_s", written("caer_s"), "--split-file .*: no such file", LoadOptions(split_file=tmp_path))
