"""Precision, memory order and compilation change the last digits alone; the modalities' own loss takes part."""

import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ccim_ray.baselines.card import Input
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.experiment import Experiment
from ccim_ray.journal import read_journal
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import tf32_where_asked, train
from ccim_ray.trial import build_recogniser

CATEGORIES = ("Anger", "Fear", "Happy")
SPLITS = {"train": 24, "val": 9, "test": 9}
TRUNK = {"arch": "thin_resnet", "weights": "random"}


def make_inputs(*, pictures=False):
    """Features of 512 dimensions, or pictures, whose brightness tells the category."""
    rng = np.random.default_rng(3)
    splits = np.repeat(list(SPLITS), list(SPLITS.values()))
    category = np.arange(len(splits)) % 3
    views = {}
    for name in ("context", "body"):
        if pictures:
            noise = rng.integers(0, 120, (len(splits), 64, 64, 3))
            rows = (noise + 60 * category[:, None, None, None]).astype(np.uint8)
        else:
            rows = (rng.normal(size=(len(splits), 512)) + category[:, None]).astype(np.float32)
        views[name] = ViewRows((rows,), (None,) * len(splits))
    ids = tuple(f"s{number}" for number in range(len(splits)))
    index = SubjectIndex(ids, splits, np.eye(3, dtype=np.float32)[category], CATEGORIES, False)
    return TrialInputs(index, views, ConfounderDictionary.random(6, 512, seed=1))


def make_experiment(**changes):
    base = {
        "dataset": "caer_s",
        "trunks": {"context": TRUNK, "body": TRUNK},
        "backbone": TRUNK,
        "epochs": 3,
        "batch_size": 8,
        "schedule": "constant",
        "learning_rate": 1e-3,
    }
    return Experiment.parse(base | changes)


def losses(folder, inputs, build=None, **changes):
    """Train/loss of every epoch."""
    experiment = make_experiment(**changes)

    def of_baseline():
        return build_recogniser(experiment, len(CATEGORIES), inputs.dictionary)

    result = train(experiment, inputs, build or of_baseline, folder)
    assert result.status == "done"
    return [line.metrics["train/loss"] for line in read_journal(folder / "journal.jsonl")]


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_bfloat16_is_close_to_float32_and_not_the_same(tmp_path, trainable):
    inputs = make_inputs(pictures=trainable == "all")
    by_precision = {
        precision: losses(
            tmp_path / precision, inputs, precision=precision, trainable=trainable, batch_size=SPLITS["train"], epochs=8
        )
        for precision in ("float32", "bfloat16", "auto")
    }
    # Eight bits of mantissa in the first step; what later steps make of the difference depends on the processor.
    assert by_precision["bfloat16"][0] == pytest.approx(by_precision["float32"][0], rel=0.02)
    assert by_precision["bfloat16"][-1] < 0.8 * by_precision["bfloat16"][0]
    assert by_precision["bfloat16"] != by_precision["float32"]
    assert by_precision["auto"] == by_precision["float32"]  # on a CPU


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_tf32_on_a_cpu_is_float32_to_the_bit(tmp_path, trainable):
    inputs = make_inputs(pictures=trainable == "all")
    for precision in ("float32", "tf32"):
        losses(tmp_path / precision, inputs, precision=precision, trainable=trainable, epochs=2)
    for name in ("best.safetensors", "scores.safetensors"):
        assert (tmp_path / "tf32" / name).read_bytes() == (tmp_path / "float32" / name).read_bytes()


def tf32_settings():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    return products.allow_tf32, convolutions.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("convolutions", [True, False])
def test_a_gpu_may_take_tf32_inside_the_block_alone(monkeypatch, convolutions):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
    before, gpu = tf32_settings(), torch.device("cuda")
    assert before == (False, convolutions, "highest")
    with pytest.raises(KeyError), tf32_where_asked(make_experiment(precision="tf32"), gpu):
        assert tf32_settings() == (True, True, "high")
        raise KeyError
    assert tf32_settings() == before
    for precision, device in (("tf32", torch.device("cpu")), ("float32", gpu), ("auto", gpu), ("bfloat16", gpu)):
        with tf32_where_asked(make_experiment(precision=precision), device):
            assert tf32_settings() == before


def test_weights_and_scores_stay_float32_under_bfloat16(tmp_path):
    losses(tmp_path, make_inputs(), precision="bfloat16")
    for name in ("best.safetensors", "scores.safetensors"):
        floats = [value for value in load_file(tmp_path / name).values() if value.is_floating_point()]
        assert {value.dtype for value in floats} == {torch.float32}


def test_the_memory_order_of_pictures_changes_the_last_digits_alone(tmp_path):
    inputs = make_inputs(pictures=True)
    found = {
        order: losses(
            tmp_path / str(order), inputs, trainable="all", channels_last=order, batch_size=SPLITS["train"], epochs=1
        )
        for order in (True, False)
    }
    assert found[True] == pytest.approx(found[False], rel=1e-3)  # of one step
    for order, memory_format in ((True, torch.channels_last), (False, torch.contiguous_format)):
        model = build_recogniser(make_experiment(trainable="all", channels_last=order), 3, inputs.dictionary)
        kernel = model.trunks["body"].trunk[0][0].weight
        assert kernel.is_contiguous(memory_format=memory_format)
        assert kernel.is_contiguous() != order


def test_each_augmentation_shows_other_pictures(tmp_path):
    inputs = make_inputs(pictures=True)
    kinds = ("none", "flip", "flip_colour")
    found = {kind: losses(tmp_path / kind, inputs, trainable="all", augmentation=kind, epochs=1) for kind in kinds}
    assert len({tuple(of_kind) for of_kind in found.values()}) == 3


def test_random_trunks_start_anew_with_every_seed(tmp_path):
    inputs = make_inputs(pictures=True)
    first, again, other = (
        losses(tmp_path / name, inputs, trainable="all", epochs=1, seed=seed)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux")
def test_a_compiled_model_trains_alike_and_saves_the_same_names(tmp_path):
    inputs = make_inputs()
    plain, compiled = (
        losses(tmp_path / str(flag), inputs, compile=flag, deconfounder="none") for flag in (False, True)
    )
    assert compiled[0] == pytest.approx(plain[0], rel=0.2)  # dropout draws from another generator
    assert compiled[-1] < compiled[0]
    names = [load_file(tmp_path / str(flag) / "best.safetensors").keys() for flag in (False, True)]
    assert names[0] == names[1]


class TwoModalities(nn.Module):
    """Adds up two streams, each of which predicts by itself."""

    joint_dim = 8

    def __init__(self):
        super().__init__()
        self.streams = nn.ModuleDict({name: nn.Linear(512, 8) for name in ("context", "body")})
        self.predictions = nn.ModuleDict({name: nn.Linear(8, 3) for name in ("context", "body")})

    def forward(self, features):
        streams = {name: torch.relu(layer(features[name])) for name, layer in self.streams.items()}
        by_modality = [self.predictions[name](stream) for name, stream in streams.items()]
        return streams["context"] + streams["body"], torch.stack(by_modality, 1)


def two_modalities():
    items = [Input(view, "pooled", ("thin_resnet", "random")) for view in ("context", "body")]
    return Recogniser(TwoModalities(), items, len(CATEGORIES))


def test_the_modalities_own_loss_is_added_by_its_weight(tmp_path):
    inputs = make_inputs()

    def first_loss(weight):
        folder = tmp_path / str(weight)
        one_step = {"epochs": 1, "batch_size": SPLITS["train"], "deconfounder": "none"}
        return losses(folder, inputs, two_modalities, modality_weight=weight, **one_step)[0]

    without, once, twice = (first_loss(weight) for weight in (0.0, 1.0, 2.0))
    assert once - without > 0.1
    assert twice - once == pytest.approx(once - without, rel=1e-4)


def test_without_weight_the_modalities_learn_nothing_and_with_it_they_do(tmp_path):
    inputs = make_inputs()
    plain = {"deconfounder": "none", "weight_decay": 0.0, "optimiser": "adam", "epochs": 30}
    with_weight = losses(tmp_path / "1", inputs, two_modalities, modality_weight=1.0, **plain)
    losses(tmp_path / "0", inputs, two_modalities, modality_weight=0.0, **plain)
    assert with_weight[-1] < 0.5 * with_weight[0]
    errors = {}
    for weight in ("0", "1"):
        model = two_modalities()
        model.load_state_dict(torch.load(tmp_path / weight / "checkpoint.pt", weights_only=True)["model"])
        rows = inputs.rows("train")
        views = {name: torch.from_numpy(view.take(rows)) for name, view in inputs.views.items()}
        with torch.no_grad():
            predicted_BM = model(views).modality_logits_BMK.argmax(2)
        truth_B1 = torch.from_numpy(inputs.index.targets[rows]).argmax(1)[:, None]
        errors[weight] = float((predicted_BM != truth_B1).float().mean())
    assert errors["1"] < 0.3 < errors["0"]
