"""The losses against their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccim_ray.baselines.losses import LOSSES, category_weights, make_loss
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
