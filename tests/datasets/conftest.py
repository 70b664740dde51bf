"""Writes EMOTIC annotation files with the fields, orders and shapes of the published ones."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

SIZE = (64, 48)
MOOD = {"valence": 5, "arousal": 5, "dominance": 5}
EMPTY = np.empty((0, 0))


class EmoticFiles:
    """Builds the structs of an annotation file and writes it under ``root`` with its pictures, 64 x 48."""

    def __init__(self, root):
        self.root = root

    @staticmethod
    def structs(*rows):
        """A 1 x N MATLAB struct array; fields in the order of the dictionaries."""
        array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
        for number, row in enumerate(rows):
            for name, value in row.items():
                array[name][0, number] = value
        return array

    @staticmethod
    def cell(names):
        array = np.empty((1, len(names)), dtype=object)
        array[0, :] = names
        return array

    def person(self, split, box, *votes, combined=None):
        """``votes`` are the label lists of the annotators: one in train, several in val and test."""
        voted = self.structs(*({"categories": self.cell(vote)} for vote in votes)) if votes else EMPTY
        first = {"body_bbox": np.asarray(box), "annotations_categories": voted}
        if split == "train":
            return first | {"annotations_continuous": self.structs(MOOD), "gender": "Male", "age": "Adult"}
        united = sorted({name for vote in votes for name in vote}) if combined is None else combined
        return first | {
            "combined_categories": self.cell(united),
            "annotations_continuous": self.structs(*[MOOD] * max(1, len(votes))),
            "combined_continuous": self.structs(MOOD),
            "gender": "Female",
            "age": "Kid",
        }

    def picture(self, filename, *persons, folder="mscoco/images", size=SIZE, cvpr=False):
        """The 2017 release puts the height first."""
        columns, rows = {"n_col": size[0]}, {"n_row": size[1]}
        return {
            "filename": filename,
            "folder": folder,
            "image_size": self.structs(rows | columns if cvpr else columns | rows),
            "original_database": self.structs({"name": "mscoco", "info": self.structs({"image_id": 7})}),
            "person": self.structs(*persons) if persons else EMPTY,
        }

    def write(
        self,
        train=(),
        val=(),
        test=(),
        *,
        name="Annotations/Annotations.mat",
        images="emotic",
        pictures=True,
        compressed=False,
    ):
        """Writes the annotation file and by default each picture in it; returns the data root."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        splits = {"train": train, "val": val, "test": test}
        content = {split: self.structs(*rows) if rows else EMPTY for split, rows in splits.items()}
        savemat(path, content, oned_as="row", do_compression=compressed)
        (self.root / images).mkdir(exist_ok=True)
        for row in (*train, *val, *test):
            file = self.root / images / row["folder"] / row["filename"]
            if pictures:
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", SIZE).save(file, "JPEG")
        return self.root


@pytest.fixture
def emotic(tmp_path):
    return EmoticFiles(tmp_path)
