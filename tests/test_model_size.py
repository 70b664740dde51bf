"""Sizes of models against torchvision's own networks and figures, and what --plan says of them."""

import pytest
import torch
import torchvision
from job_runs import run_job
from torch.utils.flop_counter import FlopCounterMode

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.model_size import ModelSize, _undrawn_backbone, model_size, one_subject, size_lines
from ccim_ray.perception.backbones import build_backbone, build_network
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage
from ccim_ray.trial import assemble_recogniser, blank_dictionary
from search_spaces.baselines import baselines_space

EMOT_NET_HEAD = (1024 * 256 + 256) + 2 * 256  # a linear layer and its batch norm
BASELINES = ("emot_net", "gcn_cnn", "caer_net", "emoticon")


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def experiment(baseline="emot_net", trainable=None, world=True, **changes):
    name, settings = ("confounded_scenes", WorldSettings(images=600)) if world else ("caer_s", None)
    return default_experiment(name, "paper", settings, baseline, trainable).with_changes(**changes)


def test_two_resnets_end_to_end_against_torchvision():
    network = torchvision.models.resnet18()
    trunks = 2 * (parameters(network) - parameters(network.fc))
    size = model_size(experiment(world=False, trainable="all", deconfounder="none"), 7)
    assert size.trained == trunks + EMOT_NET_HEAD + (256 * 7 + 7)
    assert size.frozen == 0
    published_gflops = 2 * torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["_ops"]  # which counts products
    head = 2 * 1024 * 256 + 2 * 256 * 7 - 2 * (2 * 512 * 1000)
    assert size.flops == pytest.approx(2 * published_gflops * 1e9 + head, rel=1e-3)


def test_a_head_reads_frozen_trunks():
    thin = build_network("thin_resnet", 1)
    size = model_size(experiment(deconfounder="none"), 7)
    assert size.frozen == 2 * (parameters(thin) - parameters(thin.fc))
    assert size.trained == EMOT_NET_HEAD + (256 * 7 + 7)


@pytest.mark.parametrize("baseline", BASELINES)
def test_floating_point_operations_of_the_classifier(baseline):
    seven, eight = (model_size(experiment(baseline, deconfounder="projection"), categories) for categories in (7, 8))
    modalities = {"emoticon": 2 * 2 * 26 + 4 * 4 * 2 * (512 + 9) + 2 * (8 * 8 - 7 * 7)}  # that predict by themselves
    assert eight.flops - seven.flops == 2 * 128 + modalities.get(baseline, 0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_operations_are_those_that_torchs_own_counter_finds(baseline):
    asked = experiment(baseline, deconfounder="ccim", dictionary__size=64)
    trunks = {view: build_backbone(trunk.arch) for view, trunk in asked.trunks.items()}
    model = assemble_recogniser(asked, 7, blank_dictionary(asked), trunks).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(one_subject(asked))
    assert model_size(asked, 7).flops == counter.get_total_flops() > 0


def test_what_ccim_adds():
    """W_h, and for one query: W_g, W_q, W_k, of which the prototypes' side is computed once a batch."""
    projection, ccim = (
        model_size(experiment(deconfounder=name, dictionary__size=64), 7) for name in ("projection", "ccim")
    )
    assert ccim.trained - projection.trained == 512 * 128 + 256 * 256 + 512 * 256
    assert ccim.flops > projection.flops
    assert ccim.frozen == projection.frozen


def test_a_line_for_each_model(tmp_path):
    space = baselines_space()
    settings = [pair for name in BASELINES for pair in space.settings(experiment(name)).items()]
    lines = size_lines(make_plan(settings, (0, 1), Storage(tmp_path / "runs"), None))
    assert len(lines) == len(BASELINES) * 3
    assert lines[0].startswith("emot_net, vanilla: 264.7 k parameters trained, ")
    assert lines[3].startswith("gcn_cnn (approximate), vanilla: ")
    assert str(ModelSize(1_250_000, 0, 7_540_000_000)) == "1.2 M parameters trained, 7.5 GFLOPs a subject"


def test_the_models_of_a_plan_share_their_trunks(tmp_path):
    settings = [pair for name in BASELINES for pair in baselines_space().settings(experiment(name)).items()]
    plan = make_plan(settings, (0, 1), Storage(tmp_path / "runs"), None)
    trunks = {(of.arch, view) for one in plan.trials for view, of in one.trial.experiment.trunks.items()}
    _undrawn_backbone.cache_clear()
    size_lines(plan)
    assert _undrawn_backbone.cache_info().misses == len(trunks)
    assert _undrawn_backbone.cache_info().hits > len(trunks)


def test_the_plan_of_one_experiment_ends_with_its_size(tmp_path):
    ended = run_job("train", "--plan", "--storage", str(tmp_path), "--dictionary-size", "16")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1].startswith("emot_net, CCIM N=16: ")


def test_the_plan_of_a_sweep_over_one_model_needs_no_torch(tmp_path):
    ended = run_job("sweep_dict_size", "--plan", "--storage", str(tmp_path))
    assert ended.status == 0, ended.err
    assert "FLOPs" not in ended.out
