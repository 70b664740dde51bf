"""Which files are pictures, and a file of boxes that stays inside their folder."""

import os

import numpy as np
import pytest
from PIL import Image

from ccim_ray.errors import RequestError
from ccim_ray.new_pictures import find_pictures, pictures_state, read_boxes

HEADER = "image,x1,y1,x2,y2\n"


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.JPG",
        "a/z.png",
        "a/y.webp",
        ".hidden.png",
        ".cache/q.png",
        "notes.txt",
        "depth/b.JPG.png",
        "depth/c.png",
    ):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "pictures"


def boxes(tmp_path, text):
    (tmp_path / "boxes.csv").write_text(text)
    return tmp_path / "boxes.csv"


def test_pictures_are_found_below_the_folder_in_order(folder):
    found = find_pictures(folder)
    assert found.root == folder
    assert found.images == ("a/y.webp", "a/z.png", "b.JPG", "depth/c.png")
    assert found.other_files == 1


def test_one_picture_may_have_any_name(folder):
    found = find_pictures(folder / "notes.txt")
    assert (found.root, found.images) == (folder, ("notes.txt",))


def test_a_folder_without_pictures_and_none_at_all_are_told(folder, tmp_path):
    with pytest.raises(RequestError, match="there is no such folder or file"):
        find_pictures(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.md").touch()
    with pytest.raises(RequestError, match="none of its 1 files is a picture by its name"):
        find_pictures(tmp_path / "empty")


def test_columns_may_stand_in_any_order_beside_others(folder, tmp_path):
    path = boxes(tmp_path, "y2,label,image,x1,y1,x2,depth\n9,Sad, b.JPG ,1,2,8,\n\n5,Fear,a/z.png,0,0,4,depth/c.png\n")
    read = read_boxes(path, folder)
    assert [(p.image, p.box, p.depth) for p in read.persons] == [
        ("b.JPG", (1, 2, 8, 9), None),
        ("a/z.png", (0, 0, 4, 5), "depth/c.png"),
    ]
    assert read.unread == ("label",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "header '' lacks image, x1"),
        ("image,x1,y1,x2\n", "lacks y2; write image,x1,y1,x2,y2"),
        ("image,x1,y1,x2,y2,x1\n", "names x1 twice"),
        (HEADER, "holds no box"),
        (HEADER + "b.JPG,1,2,3\n", "line 2: 4 fields found, 5 expected"),
        (HEADER + "b.JPG,1,2,3,4\nb.JPG,1,2,3,x\n", "line 3: x1,y1,x2,y2 hold '1,2,3,x'"),
        (HEADER + "../secret.png,1,2,3,4\n", "line 2: path '../secret.png' leaves"),
        (HEADER + "/etc/passwd,1,2,3,4\n", "leaves"),
        (HEADER + "a/../../x.png,1,2,3,4\n", "leaves"),
        ("image,x1,y1,x2,y2,depth\nb.JPG,1,2,3,4,../d.png\n", "'../d.png' leaves"),
        (HEADER + "link.png,1,2,3,4\n", "link.png is a symbolic link out of"),
        (HEADER + "way/secret.png,1,2,3,4\n", "symbolic link out of"),
    ],
)
def test_a_file_of_boxes_that_is_wrong_is_refused_in_one_line(folder, tmp_path, text, told):
    (tmp_path / "secret.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "way").symlink_to(tmp_path)
    with pytest.raises(RequestError, match=told) as error:
        read_boxes(boxes(tmp_path, text), folder)
    assert "\n" not in str(error.value)


def test_a_picture_that_is_replaced_by_one_of_the_same_size_is_another(tmp_path):
    def write(grey):
        Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(tmp_path / "a.bmp")

    write(1)
    os.utime(tmp_path / "a.bmp", ns=(1, 1))
    before = pictures_state(tmp_path, ["a.bmp"])
    assert pictures_state(tmp_path, ["a.bmp"]) == before
    write(2)
    assert pictures_state(tmp_path, ["a.bmp"]) != before
    assert pictures_state(tmp_path, ["b.bmp"]) != pictures_state(tmp_path, ["c.bmp"])
