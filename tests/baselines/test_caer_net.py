"""CAER-Net-S against its equations, in numpy."""

import numpy as np
import pytest
import torch
from baseline_inputs import make_inputs, seeded
from scipy.signal import correlate2d

from ccim_ray.baselines.caer_net import AdaptiveFusion, CaerNet, ContextAttention

DIMS = {"face": 256, "face_hidden_context": 256}


def array(tensor):
    return tensor.detach().double().numpy()


def convolve(maps_CHW, weight_OCKK):
    """3 x 3 convolution with a zero border."""
    return np.stack(
        [sum(correlate2d(m, k, mode="same") for m, k in zip(maps_CHW, kernels, strict=True)) for kernels in weight_OCKK]
    )


def batch_norm(maps_CHW, layer):
    mean, var = array(layer.running_mean), array(layer.running_var)
    scaled = (maps_CHW - mean[:, None, None]) / np.sqrt(var + layer.eps)[:, None, None]
    return scaled * array(layer.weight)[:, None, None] + array(layer.bias)[:, None, None]


def trained_attention(channels, second_relu):
    """Attention whose batch norms have statistics and weights of their own."""
    attention = seeded(lambda: ContextAttention(channels, second_relu=second_relu))
    with torch.no_grad():
        for layer in (attention.layers[1], attention.layers[4]):
            layer.weight.copy_(1 + torch.rand_like(layer.weight))
            layer.bias.normal_()
    for _ in range(20):
        attention(torch.randn(4, channels, 5, 6))
    return attention.eval()


@pytest.mark.parametrize("second_relu", [True, False])
def test_attention_is_two_convolutions_and_a_softmax_over_positions(second_relu):
    attention = trained_attention(3, second_relu)
    context_map = torch.randn(2, 3, 5, 6)
    found = attention(context_map)
    assert found.shape == (2, 5, 6)
    for subject in range(2):
        conv1, norm1, _, conv2, norm2, _ = attention.layers
        hidden = np.maximum(batch_norm(convolve(array(context_map[subject]), array(conv1.weight)), norm1), 0)
        logits = batch_norm(convolve(hidden, array(conv2.weight)), norm2)[0]
        logits = np.maximum(logits, 0) if second_relu else logits
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(array(found[subject]), expected, rtol=1e-4)


def score(features_D, layers):
    hidden = np.maximum(array(layers[0].weight) @ features_D + array(layers[0].bias), 0)
    return (array(layers[2].weight) @ hidden + array(layers[2].bias))[0]


def test_fusion_scales_each_stream_by_its_share():
    fusion = seeded(lambda: AdaptiveFusion(4, 6))
    face_BD, context_BD = 9 * torch.randn(3, 4), 9 * torch.randn(3, 6)
    found = array(fusion(face_BD, context_BD))
    for row, (face_D, context_D) in enumerate(zip(array(face_BD), array(context_BD), strict=True)):
        powers = np.exp([score(face_D, fusion.face_score), score(context_D, fusion.context_score)])
        shares = powers / powers.sum()
        np.testing.assert_allclose(found[row], np.r_[shares[0] * face_D, shares[1] * context_D], rtol=1e-4)
        assert abs(shares[0] - 0.5) > 1e-3


def test_joint_feature_is_the_rectified_linear_map_of_the_fused_streams():
    net = seeded(lambda: CaerNet({"face": 12, "face_hidden_context": 10}, 7)).eval()
    inputs = make_inputs(2)
    attention = array(net.attention(inputs["face_hidden_context"]))
    context_BD = np.einsum("bhw,bdhw->bd", attention, array(inputs["face_hidden_context"]))
    fused = array(net.fusion(inputs["face"], torch.from_numpy(context_BD).float()))
    expected = np.maximum(fused @ array(net.joint[0].weight).T + array(net.joint[0].bias), 0)
    np.testing.assert_allclose(array(net(inputs)), expected, rtol=1e-4, atol=1e-6)


def test_mean_pooling_is_the_sum_over_the_number_of_positions():
    inputs = make_inputs(2)
    dims = {"face": 12, "face_hidden_context": 10}
    by_sum = seeded(lambda: CaerNet(dims, 7)).eval()
    by_mean = seeded(lambda: CaerNet(dims, 7, context_pooling="mean")).eval()
    attended = (by_sum.attention(inputs["face_hidden_context"])[:, None] * inputs["face_hidden_context"]).sum((2, 3))
    expected = by_mean.joint(by_mean.fusion(inputs["face"], attended / 49))
    torch.testing.assert_close(by_mean(inputs), expected)
    assert not torch.allclose(by_mean(inputs), by_sum(inputs))


def test_batch_norm_makes_the_streams_scales_equal():
    dims = {"face": 12, "face_hidden_context": 10}
    net = seeded(lambda: CaerNet(dims, 7, stream_batch_norm=True, dropout=0.0)).train()
    inputs = make_inputs(8)
    scaled = inputs | {"face": 100 * inputs["face"]}
    torch.testing.assert_close(net(scaled), net(inputs), rtol=1e-3, atol=1e-3)
    plain = seeded(lambda: CaerNet(dims, 7, dropout=0.0)).train()
    assert not torch.allclose(plain(scaled), plain(inputs), rtol=1e-1, atol=1e-1)


def test_half_of_the_joint_feature_is_dropped_in_training_alone():
    net = seeded(lambda: CaerNet({"face": 12, "face_hidden_context": 10}, 7))
    inputs = make_inputs(200)
    zeros_in_eval = (net.eval()(inputs) == 0).float().mean().item()
    zeros_in_training = (net.train()(inputs) == 0).float().mean().item()
    assert zeros_in_training == pytest.approx(zeros_in_eval + (1 - zeros_in_eval) / 2, abs=0.03)


def test_number_of_parameters():
    attention = 256 * 128 * 9 + 2 * 128 + 128 * 9 + 2
    fusion = 2 * (256 * 128 + 128 + 128 + 1)
    joint = 512 * 128 + 128
    net = CaerNet(DIMS, 7)
    assert sum(parameter.numel() for parameter in net.parameters()) == attention + fusion + joint == 428_036
