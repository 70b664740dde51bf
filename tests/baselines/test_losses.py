"""The losses against their formulas."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccim_ray.baselines.losses import LOSSES, category_weights, make_loss, multiplicative
from ccim_ray.errors import RequestError


def test_category_weights_at_both_ends():
    weights_K = category_weights(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert weights_K.tolist() == pytest.approx([5.485, 1.268], abs=5e-4)


def test_weighted_mse_of_a_hand_example():
    logits = torch.tensor([[0.5, 1.0], [2.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    first = ((0.5 - 1) ** 2 + (2 - 1) ** 2) / math.log(1.2 + 1.0)
    second = ((1.0 - 0) ** 2 + (-1.0 - 1) ** 2) / math.log(1.2 + 0.5)
    assert make_loss("weighted_mse")(logits, targets).item() == pytest.approx((first + second) / 2)


@settings(max_examples=50, deadline=None)
@given(
    logits=arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32)),
    rows=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_cross_entropy_is_the_mean_log_loss(logits, rows):
    targets = np.eye(3, dtype=np.float32)[rows]
    z = logits.astype(np.float64)
    log_probability = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(targets * log_probability).sum(1).mean()
    found = make_loss("cross_entropy")(torch.from_numpy(logits), torch.from_numpy(targets))
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_soft_margin_is_the_mean_binary_log_loss_of_every_category():
    logits = torch.tensor([[0.0, 2.0, -1.5], [3.0, -0.5, 40.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    losses = []
    for z, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-z))
        losses.append(-math.log(probability if y else 1 - probability))
    assert make_loss("soft_margin")(logits, targets).item() == pytest.approx(sum(losses) / 6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_float32_for_half_precision_logits(name):
    logits = torch.randn(4, 3).bfloat16().requires_grad_()
    loss = make_loss(name)(logits, torch.eye(3)[[0, 1, 2, 0]])
    assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad.abs().sum() > 0


def test_weighted_mse_is_zero_only_at_the_targets():
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = make_loss("weighted_mse")
    assert loss(targets.clone(), targets).item() == 0
    assert loss(targets + 0.1, targets).item() > 0


def test_unknown_loss_is_a_request_error():
    with pytest.raises(RequestError, match=r"unknown loss 'mse'.*cross_entropy, weighted_mse, soft_margin"):
        make_loss("mse")


def multiplicative_in_numpy(logits_BMK, targets_BK, single_label, beta):
    losses = []
    for logits_MK, targets_K in zip(logits_BMK.astype(np.float64), targets_BK, strict=True):
        if single_label:
            powers = np.exp(logits_MK - logits_MK.max(1, keepdims=True))
            truth = (powers / powers.sum(1, keepdims=True))[:, [int(targets_K.argmax())]]
        else:
            truth = 1 / (1 + np.exp(-logits_MK))
            truth = np.where(targets_K, truth, 1 - truth)
        losses.append(-(truth ** (beta / (len(truth) - 1)) * np.log(truth)).sum(0))
    return np.mean(losses)


@settings(max_examples=50, deadline=None)
@given(
    logits=arrays(np.float32, (4, 3, 5), elements=st.floats(-8, 8, width=32)),
    targets=arrays(np.float32, (4, 5), elements=st.sampled_from([0.0, 1.0])),
    single_label=st.booleans(),
    beta=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_multiplicative_loss_is_its_formula(logits, targets, single_label, beta):
    targets = np.eye(5, dtype=np.float32)[targets.argmax(1)] if single_label else targets
    found = multiplicative(torch.from_numpy(logits), torch.from_numpy(targets), single_label=single_label, beta=beta)
    expected = multiplicative_in_numpy(logits, targets, single_label, beta)
    assert found.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("single_label", [True, False])
def test_multiplicative_loss_pulls_every_modality_towards_the_truth(single_label):
    """Even one that is far from it, where the derivative of the whole product would push it away."""
    targets = torch.tensor([[0.0, 1.0, 0.0]])
    logits = torch.tensor([[[3.0, -3.0, 2.0], [-2.0, 4.0, -2.0]]], requires_grad=True)
    multiplicative(logits, targets, single_label=single_label).backward()
    assert (logits.grad[0, :, 1] < 0).all()
    assert (logits.grad[0, :, [0, 2]] > 0).all()


def test_multiplicative_loss_trusts_the_modality_that_is_right():
    targets = torch.tensor([[0.0, 1.0]])
    gradients = []
    for beta in (0.0, 2.0):
        logits = torch.tensor([[[1.0, -1.0], [-0.5, 0.5]]], requires_grad=True)
        multiplicative(logits, targets, single_label=True, beta=beta).backward()
        gradients.append(logits.grad[0, :, 1].abs())
    wrong, right = gradients[1] / gradients[0]
    assert wrong == pytest.approx((1 / (1 + math.exp(2))) ** 2, rel=1e-4)
    assert right == pytest.approx((1 / (1 + math.exp(-1))) ** 2, rel=1e-4)


def test_multiplicative_loss_is_finite_for_sure_and_half_precision_predictions():
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]]).bfloat16().requires_grad_()
    for single_label in (True, False):
        loss = multiplicative(logits, torch.tensor([[0.0, 1.0]]), single_label=single_label)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_multiplicative_loss_needs_two_modalities():
    with pytest.raises(ValueError, match="given 1"):
        multiplicative(torch.zeros(2, 1, 3), torch.eye(3)[:2], single_label=True)


SHARE = """
import sys
import torch
import torch.distributed as dist
from ccim_ray.baselines.losses import weighted_mse

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 3))
features, targets = torch.randn(8, 4), (torch.rand(8, 3) < 0.3).float()
weighted_mse(model(features[rank::2]), targets[rank::2]).backward()
print(*model.module.weight.grad.flatten().tolist())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_their_own_shares_and_weights(tmp_path):
    command = [sys.executable, "-c", SHARE]
    ranks = [subprocess.Popen([*command, rank, tmp_path / "store"], stdout=subprocess.PIPE, text=True) for rank in "01"]
    printed = [torch.tensor([float(word) for word in rank.communicate(timeout=120)[0].split()]) for rank in ranks]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    features, targets = torch.randn(8, 4), (torch.rand(8, 3) < 0.3).float()

    def gradient(rows):
        model.zero_grad()
        make_loss("weighted_mse")(model(features[rows]), targets[rows]).backward()
        return model.weight.grad.flatten().clone()

    mean_of_shares = (gradient(slice(0, None, 2)) + gradient(slice(1, None, 2))) / 2
    for of_rank in printed:
        torch.testing.assert_close(of_rank, mean_of_shares, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mean_of_shares, gradient(slice(None)), rtol=1e-2)
