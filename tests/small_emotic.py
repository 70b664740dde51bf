"""A small folder in EMOTIC's format, one person a picture: it has neither faces nor keypoints, nor depth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

ImageFiles = Mapping[str, tuple[str, np.ndarray, tuple[int, int, int, int]]]
"""File name -> split, picture (H, W, 3) uint8, and the person's box as the annotation has it: 1-based, inclusive."""


def plain_pictures(count: int = 6, size: tuple[int, int] = (48, 40)) -> dict:
    """Pictures of one colour with a person of 20 x 30 pixels: four in train, the others in val and test."""
    splits = ["train"] * (count - 2) + ["val", "test"]
    width, height = size
    return {
        f"{number}.png": (split, np.full((height, width, 3), 20 + 30 * number, np.uint8), (5, 3, 24, 32))
        for number, split in enumerate(splits)
    }


def write_emotic(root: Path, pictures: ImageFiles) -> Path:
    """Write annotation and pictures; returns the data root."""
    content: dict[str, list] = {"train": [], "val": [], "test": []}
    (root / "emotic/images").mkdir(parents=True)
    for name, (split, image_HWC, box) in pictures.items():
        Image.fromarray(image_HWC).save(root / "emotic/images" / name)
        rating = {"valence": 3, "arousal": 7, "dominance": 4}
        person = {"body_bbox": list(box), "annotations_categories": {"categories": "Fear"}}
        if split == "train":
            person["annotations_continuous"] = rating
        else:
            person |= {"combined_categories": "Fear", "combined_continuous": rating}
        size = {"n_col": image_HWC.shape[1], "n_row": image_HWC.shape[0]}
        content[split].append({"filename": name, "folder": "images", "image_size": size, "person": person})
    rows = {}
    for split, of_split in content.items():
        rows[split] = np.empty(len(of_split), object)
        rows[split][:] = of_split
    savemat(
        root / "Annotations.mat",
        {split: of_split if len(of_split) != 1 else of_split[0] for split, of_split in rows.items()},
    )
    return root
