"""EMOTIC files that are incomplete, damaged, or that point elsewhere are refused in one line."""

import numpy as np
import pytest
from scipy.io import savemat

from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.errors import RequestError


def test_unknown_label_is_refused_with_file_person_and_image(emotic):
    root = emotic.write(val=[emotic.picture("a.jpg", emotic.person("val", [1, 1, 9, 9], ["Fear"], ["Joy"]))])
    with pytest.raises(RequestError, match=r"Annotations.mat: unknown label 'Joy' in val\(1\).person\(1\)") as failure:
        load_emotic(root)
    assert "a.jpg" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("field", ["filename", "folder", "image_size", "person"])
def test_missing_field_of_an_image_is_refused(emotic, field):
    row = emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))
    root = emotic.write(train=[row])
    del row[field]
    content = dict.fromkeys(("val", "test"), np.empty((0, 0))) | {"train": emotic.structs(row)}
    savemat(root / "Annotations/Annotations.mat", content)
    with pytest.raises(RequestError, match=rf"Annotations.mat: field '{field}' is missing in train\(1\);"):
        load_emotic(root)


@pytest.mark.parametrize("field", ["body_bbox", "annotations_categories", "combined_categories"])
def test_missing_field_of_a_person_is_refused(emotic, field):
    one = emotic.person("test", [1, 1, 9, 9], ["Fear"], ["Fear"])
    del one[field]
    root = emotic.write(test=[emotic.picture("a.jpg", one)])
    with pytest.raises(RequestError, match=rf"field '{field}' is missing in test\(1\).person\(1\)"):
        load_emotic(root)


def test_missing_inner_fields_are_refused(emotic):
    row = emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))
    root = emotic.write(train=[row | {"image_size": emotic.structs({"n_col": 5})}])
    with pytest.raises(RequestError, match=r"field 'n_row' is missing in train\(1\).image_size"):
        load_emotic(root)
    one = emotic.person("train", [1, 1, 9, 9]) | {
        "annotations_categories": emotic.structs({"labels": emotic.cell(["Fear"])})
    }
    with pytest.raises(RequestError, match="field 'categories' is missing"):
        load_emotic(emotic.write(train=[emotic.picture("a.jpg", one)]))


def test_missing_split_is_refused(emotic):
    root = emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))])
    savemat(root / "Annotations/Annotations.mat", {"val": np.empty((0, 0)), "test": np.empty((0, 0))})
    with pytest.raises(RequestError, match=r"Annotations.mat: key 'train' is missing"):
        load_emotic(root)


def test_foreign_and_truncated_annotation_files_are_refused(emotic):
    root = emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))])
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


def test_missing_files_are_refused_with_the_flag(tmp_path, emotic):
    with pytest.raises(RequestError, match=r"Annotations.mat: no such file; --data-root"):
        load_emotic(tmp_path)
    root = emotic.write(
        train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))],
        pictures=False,
    )
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
def test_paths_that_leave_the_data_root_are_refused(emotic, folder, filename):
    row = emotic.picture(filename, emotic.person("train", [1, 1, 9, 9], ["Fear"]), folder=folder)
    with pytest.raises(RequestError, match=r"Annotations.mat train\(1\): path .* leaves the data root"):
        load_emotic(emotic.write(train=[row], pictures=False))


@pytest.mark.parametrize("link", ["mscoco/images/a.jpg", "mscoco"])
def test_symbolic_links_out_of_the_images_are_refused(emotic, tmp_path_factory, link):
    root = emotic.write(train=[emotic.picture("a.jpg", emotic.person("train", [1, 1, 9, 9], ["Fear"]))])
    inside = root / "emotic" / link
    outside = tmp_path_factory.mktemp("outside") / "moved"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(RequestError, match="is a symbolic link out of"):
        load_emotic(root)
