"""A package of other people as pip leaves it in a folder: its module, and entry points in its dist-info."""

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
from pathlib import Path

import torch
from torch import nn

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.registry import DatasetCard
from ccim_ray.datasets.subject import Subject


class FaceNet(nn.Module):
    def __init__(self, feature_dims, num_categories, width):
        super().__init__()
        self.joint_dim = width
        self.layer = nn.Linear(feature_dims["face"], width)

    def forward(self, features):
        return self.layer(features["face"])


FACE_NET = BaselineCard(
    name="face_net",
    title="Face-Net",
    module="other_package:FaceNet",
    inputs=lambda options: (Input("face", "pooled", ("resnet18", "imagenet")),),
    options={"width": 8},
)
LOST_CLASS = BaselineCard(name="lost_class", title="", module="other_package:Gone", inputs=FACE_NET.inputs)


def load_films(root, options):
    subject = Subject(
        subject_id="1", image="1.png", width=9, height=9, split="train", body_box=(0, 0, 9, 9), labels=("Sad",),
        box_source="user",
    )
    return Dataset(
        name="films", root=Path(root), categories=("Sad", "Glad"), multi_label=False, subjects=(subject,),
        defects=Defects(),
        annotation_digest="",
    )


FILMS = DatasetCard(name="films", load=load_films, multi_label=False, dictionary_size=32)
UNSURE = DatasetCard(name="unsure", load=load_films, multi_label=True)
"""

ENTRY_POINTS = """
[ccim_ray.baselines]
face_net = other_package:FACE_NET
lost_class = other_package:LOST_CLASS
other_name = other_package:FACE_NET
no_card = other_package:FaceNet
emot_net = other_package:FACE_NET
no_object = other_package:NOTHING
no_module = absent_package:CARD

[ccim_ray.datasets]
films = other_package:FILMS
unsure = other_package:UNSURE
no_card = other_package:FACE_NET
no_module = absent_package:CARD
"""


def install_package(folder: Path) -> None:
    """Leave the package in ``folder``, to be put on the path of a new process."""
    (folder / "other_package.py").write_text(MODULE)
    (folder / "other_package-1.0.dist-info").mkdir()
    (folder / "other_package-1.0.dist-info" / "METADATA").write_text("Name: other_package\nVersion: 1.0\n")
    (folder / "other_package-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)


def lines_of(program: str, folder: Path) -> list[str]:
    """What the program prints in a process that finds the package; a RequestError is printed as ``error: ...``."""
    wrapped = "from ccim_ray.errors import RequestError\n" + REFUSALS + program
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ended = subprocess.run(
        [sys.executable, "-c", wrapped], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


REFUSALS = """
def refusal(call, *arguments):
    try:
        return "no error, but " + repr(call(*arguments))
    except RequestError as error:
        return "error: " + str(error)
"""
