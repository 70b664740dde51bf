"""What the author of a plug-in gets wrong is said in one line before anything starts."""

from pathlib import Path

from job_runs import ROOT
from plug_in_package import lines_of

MODEL = """
from torch import nn
from ccim_ray.baselines.card import BaselineCard, Input

CONTEXT = Input("context", "pooled", ("resnet18", "places365"))


class Sound(nn.Module):
    def __init__(self, feature_dims, num_categories):
        super().__init__()
        self.joint_dim = 6
        self.layer = nn.Linear(feature_dims["context"], 6)

    def forward(self, features):
        return self.layer(features["context"])


class SaysAnotherWidth(Sound):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.joint_dim = 7


class ReadsAnotherView(Sound):
    def forward(self, features):
        return self.layer(features["body"])


class HasNoJointDim(Sound):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        del self.joint_dim


def card(name, of="Sound", inputs=lambda options: (CONTEXT,), **others):
    return BaselineCard(name=name, title=name, module=f"wrong_models:{of}", inputs=inputs, **others)


SOUND = card("sound")
NO_CLASS = card("no_class", "Absent")
NO_JOINT_DIM = card("no_joint_dim", "HasNoJointDim")
OTHER_WIDTH = card("other_width", "SaysAnotherWidth")
OTHER_VIEW = card("other_view", "ReadsAnotherView")
NO_SUCH_OPTION = card("no_such_option", options={"depth": 3})
NO_INPUTS = card("no_inputs", inputs=lambda options: ())
TWICE = card("twice", inputs=lambda options: (CONTEXT, CONTEXT))
BAD_VIEW = card("bad_view", inputs=lambda options: (Input("torso", "pooled", ("resnet18", "imagenet")),))
BAD_FORM = card("bad_form", inputs=lambda options: (Input("body", "vector", ("resnet18", "imagenet")),))
BAD_ARCH = card("bad_arch", inputs=lambda options: (Input("body", "pooled", ("resnet34", "imagenet")),))
BAD_WEIGHTS = card("bad_weights", inputs=lambda options: (Input("body", "pooled", ("vgg16", "faces")),))
LOST_KEY = card("lost_key", inputs=lambda options: options["absent"])
BAD_LOSS = card("bad_loss", losses={"wrong_labels": "mse"})
BAD_VALUE = card("bad_value", training={"optimiser": "lion"})
"""

BROKEN = """
from ccim_ray.baselines.card import BaselineCard

CARD = BaselineCard(name="broken", titel="Broken")
"""

TRAINS = """
from ccim_ray.baselines.card import BaselineCard, Input

CARD = BaselineCard(
    name="{name}",
    title="",
    module="a:B",
    inputs=lambda options: (Input("body", "pooled", ("resnet18", "imagenet")),),
    training={{"epochs": 2, "{setting}": 1}},
)
"""
SETTINGS = {"typo": "learning_rat", "of_data": "dataset", "of_seed": "seed", "of_trunks": "trunks"}
"""Cards that set what is no setting of training, each a module of its own, for none of them can be imported."""

DATA = """
from dataclasses import replace
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.datasets.registry import DatasetCard
from ccim_ray.datasets.subject import Subject


def dataset_card(card_name, changes, **of_dataset):
    def load(root, options):
        subject = Subject(
            subject_id="1", image="1.png", width=9, height=9, split="train", body_box=(0, 0, 9, 9), labels=("Sad",),
            box_source="user",
        )
        values = dict(
            name=card_name, root=root, categories=("Sad", "Glad"), multi_label=False,
            subjects=(replace(subject, **changes),), defects=Defects(), annotation_digest="",
        )
        return Dataset(**values | of_dataset)

    return DatasetCard(name=card_name, load=load, multi_label=False)


WRONG_LABELS = dataset_card("wrong_labels", {"labels": ("Bored",)})
LABEL_AS_TEXT = dataset_card("label_as_text", {"labels": "Sad"})
WRONG_SPLIT = dataset_card("wrong_split", {"split": "valid"})
WRONG_BOX = dataset_card("wrong_box", {"body_box": (0, 0, 10, 9)})
OUTSIDE = dataset_card("outside", {"image": "../1.png"})
EMPTY = dataset_card("empty", {}, subjects=())
OTHER_NAME = dataset_card("other_name", {}, name="films")
ALIKE = dataset_card("alike", {}, categories=("Sad", "Joy!", "Joy?"))
LONG_CATEGORY = dataset_card("long_category", {}, categories=("Sad", "x" * 101))
UP = dataset_card("../up's", {})
NOT_A_DATASET = DatasetCard(name="not_a_dataset", load=lambda root, options: [], multi_label=False)
"""

SAID_OF_BASELINES = {
    "no_class": "its class wrong_models:Absent cannot be loaded (AttributeError",
    "no_joint_dim": "joint_dim is None, a whole number expected",
    "other_width": "h is (2, 6) for 2 subjects, (2, 7) due by its joint_dim",
    "other_view": "KeyError: 'body', wrong_models.py line 26; ccim_ray.testing.check_baseline shows more",
    "no_such_option": "TypeError: ",
    "no_inputs": "its card's inputs gave ()",
    "twice": "its inputs name a view twice: context, context",
    "bad_view": "its inputs: ValueError: there is no view 'torso'; choose one of context, masked_context, body, face",
    "bad_form": "its inputs: ValueError: body: there is no form 'vector'; choose one of pooled, map, geometry",
    "bad_arch": "its inputs: ValueError: body: unknown backbone 'resnet34': choose one of resnet18, resnet50",
    "bad_weights": "its inputs: ValueError: body: no weights 'faces' exist for backbone 'vgg16': choose one of",
    "lost_key": "its inputs: KeyError: 'absent', wrong_models.py line",
    "broken": "the entry point broken_models:CARD cannot be loaded (TypeError: ",
    "bad_loss": "its card, loss: Input should be 'cross_entropy', 'weighted_mse' or 'soft_margin' (found 'mse')",
    "bad_value": "its card, optimiser: Input should be 'adamw', 'adam' or 'sgd' (found 'lion')",
    **{
        name: f"the entry point {name}:CARD cannot be loaded (ValueError: {name}: training cannot set {setting!r}, "
        for name, setting in SETTINGS.items()
    },
}

SAID_OF_DATASETS = {
    "wrong_labels": "its loader returned 1 x unknown label: 'Bored' of 1",
    "label_as_text": "its loader returned 3 x unknown label: 'S' of 1, 'a' of 1, 'd' of 1",
    "wrong_split": "its loader returned 1 x split other than train, val and test: valid",
    "wrong_box": "its loader returned 1 x box that is not clipped to its image: 1",
    "outside": "its loader returned 1 x path that leaves the root: ../1.png",
    "empty": "its loader returned no subject",
    "other_name": "its loader returned a dataset of the name 'films'",
    "alike": "its loader returned 2 x category whose name is another's where MLflow takes no such characters: 'Joy!', ",
    "long_category": "its loader returned 1 x category of more than 100 characters: 'xxx",
    "../up's": "a name has letters, digits, '-', '_' and '.' alone; mend the package that brings it",
    "not_a_dataset": "its loader returned an object of class list, not a Dataset",
}

PROGRAM = """
import sys
from pathlib import Path
from ccim_ray.command_line import TrainingFlags
from ccim_ray.sweeping import sweep
from search_spaces.single import single_space

def ask(**changes):
    flags = TrainingFlags(storage="{folder}/runs", stand_ins=True, plan=True, data_root=Path("{folder}"), **changes)
    return sweep(flags, single_space(flags.experiment()), ["train.py"])

for name in {baselines}:
    print(refusal(lambda: ask(baseline=name, dataset="wrong_labels")))
for name in {datasets}:
    print(refusal(lambda: ask(dataset=name)))
"""


def install(folder: Path) -> None:
    for name, text in (("wrong_models", MODEL), ("broken_models", BROKEN), ("wrong_data", DATA)):
        (folder / f"{name}.py").write_text(text)
    for name, setting in SETTINGS.items():
        (folder / f"{name}.py").write_text(TRAINS.format(name=name, setting=setting))
    alone = {"broken": "broken_models:CARD"} | {name: f"{name}:CARD" for name in SETTINGS}
    baselines = [f"{name} = {alone.get(name, f'wrong_models:{name.upper()}')}" for name in SAID_OF_BASELINES]
    lines = ["[ccim_ray.baselines]", *baselines, "sound = wrong_models:SOUND"]
    datasets = {name: "UP" if name == "../up's" else name.upper() for name in SAID_OF_DATASETS}
    lines += ["[ccim_ray.datasets]", *(f"{name} = wrong_data:{of}" for name, of in datasets.items())]
    about = folder / "wrong-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: wrong\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("\n".join(lines))


def test_every_mistake_is_one_line_before_anything_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    install(tmp_path)
    names = {"baselines": list(SAID_OF_BASELINES), "datasets": list(SAID_OF_DATASETS), "folder": tmp_path}
    lines = lines_of(PROGRAM.format(**names), tmp_path)
    expected = [(f"error: --baseline {name}: ", said) for name, said in SAID_OF_BASELINES.items()]
    expected += [(f"error: --dataset {name}: ", said) for name, said in SAID_OF_DATASETS.items()]
    assert len(lines) == len(expected)
    for line, (start, said) in zip(lines, expected, strict=True):
        assert line.startswith(start), line
        assert said in line, line
    assert not (tmp_path / "runs").exists()


def test_a_sound_baseline_passes_and_draws_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    program = """
import torch
from ccim_ray.baselines.dry_run import require_joint_feature
from ccim_ray.baselines.registry import baseline_card
before = torch.get_rng_state()
print(require_joint_feature(baseline_card("sound"), {}, {"context": 5}))
print(torch.equal(before, torch.get_rng_state()))
"""
    assert lines_of(program, tmp_path) == ["None", "True"]
