"""GCN-CNN: its graph against numpy, and what its regions see."""

import numpy as np
import torch
from baseline_inputs import make_inputs, seeded
from torchvision.ops import roi_align

from ccim_ray.baselines.gcn_cnn import Affinity, GcnCnn, region_features
from ccim_ray.baselines.graphs import GraphConvolution, mean_over_present, normalise_adjacency

DIMS = {"context": 9, "body": 7}


def array(tensor):
    return tensor.detach().double().numpy()


def small(seed=0):
    return seeded(lambda: GcnCnn(DIMS, 5, stream_dim=16), seed).eval()


def normalised(adjacency_NN):
    root = np.diag(1 / np.sqrt(adjacency_NN.sum(1)))
    return root @ adjacency_NN @ root


def test_normalisation_is_that_of_kipf_and_welling():
    adjacency_NN = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    adjacency_NN = (adjacency_NN + adjacency_NN.T) / 2 + torch.eye(6)
    found = normalise_adjacency(adjacency_NN, torch.ones(2, 6, dtype=torch.bool))
    for subject in range(2):
        np.testing.assert_allclose(array(found[subject]), normalised(array(adjacency_NN)), rtol=1e-5)


def test_absent_nodes_are_as_if_they_were_not_in_the_graph():
    adjacency_BNN = torch.rand(1, 5, 5) + torch.eye(5)
    adjacency_BNN = adjacency_BNN + adjacency_BNN.mT
    present_BN = torch.tensor([[True, False, True, True, False]])
    kept = [0, 2, 3]
    found = array(normalise_adjacency(adjacency_BNN, present_BN)[0])
    np.testing.assert_allclose(found[np.ix_(kept, kept)], normalised(array(adjacency_BNN[0])[np.ix_(kept, kept)]), 1e-5)
    assert (found[[1, 4]] == 0).all()
    assert (found[:, [1, 4]] == 0).all()


def test_mean_over_present_nodes():
    nodes = torch.arange(12.0).view(2, 3, 2)
    present = torch.tensor([[True, False, True], [False, False, False]])
    assert mean_over_present(nodes, present).tolist() == [[2, 3], [0, 0]]


def test_graph_convolution_in_numpy():
    layer = seeded(lambda: GraphConvolution(4, 3))
    torch.nn.init.normal_(layer.linear.bias)
    nodes_BNC, adjacency_BNN = torch.randn(2, 5, 4), torch.rand(2, 5, 5)
    hidden = array(nodes_BNC) @ array(layer.linear.weight).T + array(layer.linear.bias)
    expected = np.maximum(np.einsum("bij,bjc->bic", array(adjacency_BNN), hidden), 0)
    np.testing.assert_allclose(array(layer(nodes_BNC, adjacency_BNN)), expected, rtol=1e-4, atol=1e-6)


def test_affinity_in_numpy():
    affinity = seeded(lambda: Affinity(4, 16))
    nodes_BND = 3 * torch.randn(1, 6, 4)
    scores = (array(nodes_BND[0]) @ array(affinity.query.weight).T) @ (
        array(nodes_BND[0]) @ array(affinity.key.weight).T
    ).T
    powers = np.exp(scores / 4)
    share = powers / powers.sum(1, keepdims=True)
    found = array(affinity(nodes_BND, torch.ones(1, 6, dtype=torch.bool))[0])
    np.testing.assert_allclose(found, (share + share.T) / 2 + np.eye(6), rtol=1e-4)
    assert np.ptp(found.sum(1)) > 0.01  # equal degrees would make the normalisation idle


def test_six_layers_keep_the_size_of_what_they_pass_on():
    net = seeded(lambda: GcnCnn({"context": 64, "body": 7}, 5)).eval()
    context = torch.randn(4, 64, 7, 7).relu()
    joint_BH = net({**make_inputs(4), "context": context})
    graph, body = joint_BH[:, :512], joint_BH[:, 512:]
    assert 0.1 < graph.std() / body.std() < 10


def test_region_features_are_the_mean_of_the_cells_they_cover():
    context_map = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 3, 8, 8) * torch.tensor([1.0, -2, 5]).view(1, 3, 1, 1)
    regions = torch.tensor([[[0.25, 0.25, 0.75, 0.5], [0, 0, 1, 1]], [[0.5, 0.25, 1, 1], [0.5, 0.25, 1, 1]]])
    found = region_features(context_map, regions)
    assert found.shape == (2, 2, 3)
    # The map is linear in the position, so a region's mean is the value at its centre.
    torch.testing.assert_close(found[0, 0], context_map[0, :, 2:4, 2:6].mean((1, 2)))
    assert found[1, 0].tolist() == found[1, 1].tolist()
    torch.testing.assert_close(found[1, 0], context_map[1, :, 2:, 4:].mean((1, 2)), rtol=0.02, atol=0)


def test_region_features_are_the_means_of_torchvisions_roi_align():
    generator = torch.Generator().manual_seed(0)
    context_map = torch.randn(3, 5, 6, 4, generator=generator)
    regions_BN4 = torch.cat([make_inputs(3)["regions"], torch.tensor([[[0, 0, 1, 1], [0.9, 0, 1, 0.02]]] * 3)], dim=1)
    in_cells_BN4 = regions_BN4 * torch.tensor([4, 6, 4, 6])
    patches = roi_align(context_map, list(in_cells_BN4), (7, 7), sampling_ratio=2, aligned=True)
    found = region_features(context_map, regions_BN4)
    torch.testing.assert_close(found, patches.mean((2, 3)).view(3, -1, 5), rtol=1e-5, atol=1e-6)


def test_order_of_the_regions_does_not_matter():
    net, inputs = small(), make_inputs(2)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net(inputs | {"regions": inputs["regions"][:, order]}), net(inputs))


def test_moving_a_region_changes_only_the_graphs_half():
    net, inputs = small(), make_inputs(2)
    moved = inputs["regions"].clone()
    moved[:, 0] = torch.tensor([0.0, 0.0, 0.2, 0.2])
    before, after = net(inputs), net(inputs | {"regions": moved})
    assert not torch.allclose(before[:, :16], after[:, :16])
    assert torch.equal(before[:, 16:], after[:, 16:])


def test_regions_without_area_are_no_nodes():
    net, inputs = small(), make_inputs(2)
    few = inputs["regions"].clone()
    few[:, 6:] = 0
    torch.testing.assert_close(
        net(inputs | {"regions": few}), net(inputs | {"regions": inputs["regions"][:, :6]}), rtol=1e-4, atol=1e-6
    )


def test_without_regions_the_body_is_left():
    net, inputs = small(), make_inputs(2)
    joint_BH = net(inputs | {"regions": torch.zeros(2, 10, 4)})
    assert (joint_BH[:, :16] == 0).all()
    assert torch.equal(joint_BH[:, 16:], net(inputs)[:, 16:])


def test_number_of_parameters():
    affinity = 2 * 512 * 512
    graph, body = 6 * (512 * 512 + 512), 512 * 512 + 512
    net = GcnCnn({"context": 512, "body": 512}, 26)
    assert sum(parameter.numel() for parameter in net.parameters()) == affinity + graph + body == 2_362_880


def test_boxes_keep_their_precision_beside_half_precision_maps():
    context_map = torch.arange(64.0).view(1, 1, 8, 8)
    regions = torch.tensor([[[0.5013, 0.2513, 0.9013, 0.6513]]])
    expected = region_features(context_map, regions)
    torch.testing.assert_close(region_features(context_map.bfloat16(), regions), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(region_features(context_map, regions), expected)
