"""Compiled by torch.compile, a baseline with CCIM behind it starts at the same loss."""

import shutil
import sys

import pytest
import torch
from baseline_inputs import CATEGORIES, DIMS, MAPS, make_inputs
from torch import nn

from ccim_ray.baselines.registry import build_baseline, inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.experiment import Experiment
from ccim_ray.intervention import CCIM
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import make_optimiser, train_epoch

BASELINES = {
    "emot_net": ("emot_net", {}),
    "gcn_cnn": ("gcn_cnn", {}),
    "caer_net": ("caer_net", {}),
    "emoticon with depth": ("emoticon", {"sociodynamic": "depth"}),
    "emoticon with agents": ("emoticon", {"sociodynamic": "agents"}),
}
SUBJECTS = 8


def losses_of_two_steps(name, *, compiled):
    """From the same start, without dropout, whose draws differ."""
    baseline, options = BASELINES[name]
    items = inputs_of(baseline, options)
    rows = make_inputs(SUBJECTS)
    views = {item.view: rows[item.view] for item in items}
    views |= {item.view: rows[item.view].mean((2, 3)) for item in items if item.form == "pooled" and item.view in MAPS}
    trunk = {"arch": "thin_resnet", "weights": "random"}
    modalities = {"modality_weight": 1.0} if baseline == "emoticon" else {}
    steady = {"optimiser": "sgd", "schedule": "constant", "learning_rate": 1e-3}
    experiment = Experiment.parse({"dataset": "caer_s", "trunks": {}, "backbone": trunk} | steady | modalities)
    torch.manual_seed(0)
    block = build_baseline(baseline, DIMS, CATEGORIES, options)
    ccim = CCIM(block.joint_dim, ConfounderDictionary.random(6, 12, seed=1))
    recogniser = Recogniser(block, items, CATEGORIES, ccim)
    for module in recogniser.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    targets_BK = torch.eye(CATEGORIES)[torch.arange(SUBJECTS) % CATEGORIES]
    model = torch.compile(recogniser) if compiled else recogniser
    optimiser = make_optimiser(experiment, recogniser)
    return train_epoch(model, None, optimiser, experiment, [(views, targets_BK)] * 2, 0, 2, False).tolist()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux")
@pytest.mark.parametrize("name", BASELINES)
def test_the_first_loss_is_the_same_and_the_second_follows(name):
    plain, compiled = (losses_of_two_steps(name, compiled=flag) for flag in (False, True))
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert compiled[1] == pytest.approx(plain[1], rel=0.02)  # what an update makes of the last digits
    assert plain[1] != plain[0]
