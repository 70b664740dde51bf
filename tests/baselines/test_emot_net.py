"""EMOT-Net's fusion block."""

import pytest
import torch
from torch.nn import functional as F

from ccim_ray.baselines.emot_net import EmotNet
from ccim_ray.baselines.registry import build_baseline

DIMS = {"context": 5, "body": 3}


def features(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {view: torch.randn(batch, dim, generator=generator) for view, dim in DIMS.items()}


def test_joint_feature_is_linear_batchnorm_relu_of_context_then_body():
    torch.manual_seed(0)
    net = EmotNet(DIMS, 7, joint_dim=4, dropout=0.0)
    inputs = features(6)
    linear, batch_norm = net.fusion[0], net.fusion[1]
    weight_context, weight_body = linear.weight.split([5, 3], dim=1)
    z = inputs["context"] @ weight_context.T + inputs["body"] @ weight_body.T + linear.bias
    expected = F.relu((z - z.mean(0)) / (z.var(0, unbiased=False) + batch_norm.eps).sqrt())
    torch.testing.assert_close(net(inputs), expected)


def test_values_for_a_fixed_seed():
    torch.manual_seed(7)
    net = EmotNet(DIMS, 7, joint_dim=4).eval()
    found = net({"context": torch.arange(5.0)[None], "body": torch.ones(1, 3)})
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.0441854, 2.0505755]]))


def test_order_of_the_mapping_does_not_matter():
    net = EmotNet(DIMS, 7).eval()
    inputs = features(2)
    torch.testing.assert_close(net(inputs), net(dict(reversed(inputs.items()))), rtol=0, atol=0)


def test_equal_seeds_give_equal_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build_baseline("emot_net", DIMS, 7).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fusion.0.weight"], other["fusion.0.weight"])


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    net = EmotNet(DIMS, 7)
    net(features(32)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_drops_half_in_training_and_nothing_in_eval():
    torch.manual_seed(0)
    net = EmotNet(DIMS, 7)
    inputs = features(400)
    zeros_in_training = (net(inputs) == 0).float().mean()
    zeros_in_eval = (net.eval()(inputs) == 0).float().mean()
    assert zeros_in_eval == pytest.approx(0.5, abs=0.05)
    assert zeros_in_training == pytest.approx(0.75, abs=0.05)


def test_a_batch_of_one_works_in_eval():
    assert EmotNet(DIMS, 7).eval()(features(1)).shape == (1, 256)


def test_a_missing_view_is_named():
    with pytest.raises(ValueError, match="body"):
        EmotNet({"context": 5}, 7)
