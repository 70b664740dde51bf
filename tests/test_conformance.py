"""The suites for plug-ins pass what conforms and name what does not."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from ccim_ray.baselines.card import BaselineCard, Input
from ccim_ray.baselines.cards import CARDS
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.testing import check_baseline, check_dataset


class Plain(nn.Module):
    """The smallest baseline that conforms."""

    def __init__(self, feature_dims, num_categories):
        super().__init__()
        self.joint_dim = 6
        self.fusion = nn.Linear(feature_dims["context"], 6)

    def forward(self, features):
        return self.fusion(features["context"])


class SaysAnotherWidth(Plain):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.joint_dim = 7


class HasAnUnusedLayer(Plain):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.unused = nn.Linear(2, 2)


class NeedsABatch(Plain):
    def forward(self, features):
        joint = super().forward(features)
        return joint - joint.mean(0, keepdim=True) if len(joint) > 1 else joint[0]


class DrawsElsewhere(Plain):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.fusion.weight, generator=generator)


class HidesState(Plain):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.hidden = torch.randn(6)

    def forward(self, features):
        return super().forward(features) + self.hidden


class UsesALayerOnlySometimes(Plain):
    """Every parameter counts, but in the first batch under DDP."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.other = nn.Linear(6, 6)
        self.batches = 0

    def forward(self, features):
        joint = super().forward(features)
        if not self.training:
            return joint
        self.batches += 1
        return joint if self.batches == 1 and torch.distributed.is_initialized() else self.other(joint)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """A module that a card can name, as an installed package has one."""
    written = ModuleType("written_by_a_user")
    for found in (Plain, SaysAnotherWidth, HasAnUnusedLayer, NeedsABatch, DrawsElsewhere, HidesState):
        setattr(written, found.__name__, found)
    written.UsesALayerOnlySometimes = UsesALayerOnlySometimes
    monkeypatch.setitem(sys.modules, "written_by_a_user", written)


def card(name):
    inputs = (Input("context", "pooled", ("resnet18", "places365")),)
    return BaselineCard(name="mine", title="Mine", module=f"written_by_a_user:{name}", inputs=lambda options: inputs)


@pytest.mark.parametrize("name", list(CARDS))
def test_the_papers_baselines_conform(name):
    check_baseline(CARDS[name])


def test_the_variant_with_depth_conforms():
    check_baseline(CARDS["emoticon"], {"sociodynamic": "depth"})


def test_the_smallest_baseline_conforms():
    check_baseline(card("Plain"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SaysAnotherWidth", r"mine: h is \(8, 6\) for 8 subjects, \(8, 7\) due"),
        ("HasAnUnusedLayer", r"mine: no gradient reaches unused\.weight, unused\.bias"),
        ("NeedsABatch", r"mine: h is \(6,\) for 1 subjects"),
        ("DrawsElsewhere", "two models of one seed differ"),
        ("HidesState", "state_dict does not hold all"),
        ("UsesALayerOnlySometimes", "does not train under DDP"),
    ],
)
def test_what_does_not_conform_is_named(name, said):
    with pytest.raises(AssertionError, match=said):
        check_baseline(card(name))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(WorldSettings(images=60, image_size=64), root)
    return load_dataset("confounded_scenes", root)


def test_an_embedded_world_conforms(dataset):
    check_dataset(dataset)


def changed(dataset, **changes):
    first, *others = dataset.subjects
    return replace(dataset, subjects=(replace(first, **changes), *others))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("Boredom",)}, "1 x unknown label"),
        ({"labels": ()}, "1 x no label"),
        ({"labels": ("Anger", "Fear")}, "1 x several labels in a single-label dataset"),
        ({"body_box": (-1.0, 0.0, 5.0, 5.0)}, "1 x box that is not clipped"),
        ({"face_box": (3.0, 3.0, 3.0, 9.0)}, "1 x box that is not clipped"),
        ({"image": "../secret.png"}, "1 x path that leaves the root: ../secret.png"),
        ({"width": 65}, "1 x image of another size"),
    ],
)
def test_a_wrong_record_is_named(dataset, changes, said):
    with pytest.raises(AssertionError, match=said):
        check_dataset(changed(dataset, **changes))


def test_a_counterfactual_belongs_to_a_test_subject_and_to_its_own_split(dataset):
    *others, last = dataset.subjects
    assert last.counterfactual_of is not None
    train = next(subject.subject_id for subject in others if subject.split == "train")
    for wrong in ({"split": "test_do"}, {"counterfactual_of": "nobody"}, {"counterfactual_of": train}):
        damaged = replace(dataset, subjects=(*others, replace(last, **wrong)))
        with pytest.raises(AssertionError, match="1 x counterfactual outside the split counterfactual, or of no test"):
            check_dataset(damaged)


def test_a_doubled_id_and_a_missing_split_are_named(dataset):
    with pytest.raises(AssertionError, match="1 x subject_id twice"):
        check_dataset(changed(dataset, subject_id=dataset.subjects[1].subject_id))
    without = replace(dataset, subjects=tuple(s for s in dataset.subjects if s.split != "val"))
    with pytest.raises(AssertionError, match="no subject in split val"):
        check_dataset(without)
