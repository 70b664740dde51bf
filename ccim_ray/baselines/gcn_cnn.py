"""GCN-CNN: a graph of the context's regions, beside the subject's body. Approximate.

Zhang, Liang and Ma, "Context-Aware Affective Graph Reasoning for Emotion Recognition", ICME 2019, of which there is no
public code. Fixed by the literature: proposed regions are the nodes of a graph convolutional network of 6 layers, a
CNN sees the body, and h has 1024 dimensions. Chosen here:

- regions are no proposals of a network, but other people and overlapping windows (``perception.geometry``);
- a node is the mean of its RoI-aligned 7 x 7 patch of the context's last feature map;
- the affinity is a softmax over nodes of learned, scaled dot products, computed once from the nodes and shared by the
  layers. It is made symmetric, (S + S^T) / 2: with rows that sum to one, S + I has the same degree everywhere, and its
  symmetric normalisation would only halve it;
- layers of 512 channels, the mean over nodes as the graph's feature, and a linear layer with ReLU for the body: 512
  dimensions each. No dropout.

Shape suffixes: B subjects, N regions, D feature dimensions of a view, A affinity, G channels of the graph, H joint,
P cells of the map, Q samples of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ccim_ray.baselines.graphs import GraphConvolution, mean_over_present, normalise_adjacency
from ccim_ray.baselines.interface import require_views

SAMPLES_PER_AXIS = 7 * 2
"""Of a patch of 7 x 7 bins with 2 x 2 samples each."""


class GcnCnn(nn.Module):
    """Map of the context, its regions, pooled body features -> joint feature h of two halves: graph, body.

    Args:
        feature_dims: D of each view in ``views``.
        num_categories: K; the classifier is not part of this block, so it changes nothing.
        stream_dim: channels of the graph, and of the body's half; H is twice this, 1024 in the paper (d_h).
        graph_layers: 6, as the literature says.

    Raises:
        ValueError: a view has no feature dimension.
    """

    views: ClassVar[tuple[str, ...]] = ("context", "body")

    def __init__(
        self, feature_dims: Mapping[str, int], num_categories: int, *, stream_dim: int = 512, graph_layers: int = 6
    ) -> None:
        super().__init__()
        require_views("GCN-CNN", self.views, feature_dims)
        self.joint_dim = 2 * stream_dim
        self.affinity = Affinity(feature_dims["context"], stream_dim)
        channels = [feature_dims["context"], *[stream_dim] * graph_layers]
        self.graph = nn.ModuleList(GraphConvolution(channels[k], channels[k + 1]) for k in range(graph_layers))
        self.body = nn.Sequential(nn.Linear(feature_dims["body"], stream_dim), nn.ReLU())

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Joint feature h (B, H) float.

        ``features`` holds ``context`` (B, D, height, width), ``body`` (B, D) and ``regions`` (B, N, 4): x1, y1, x2, y2
        relative to the framed context, 0 to 1. A region without area is no node.
        """
        regions_BN4 = features["regions"]
        present_BN = (regions_BN4[..., 2:] > regions_BN4[..., :2]).all(2)
        nodes = region_features(features["context"], regions_BN4)
        adjacency_BNN = normalise_adjacency(self.affinity(nodes, present_BN), present_BN)
        for layer in self.graph:
            nodes = layer(nodes, adjacency_BNN)
        graph_BG = mean_over_present(nodes, present_BN)
        return torch.cat([graph_BG, self.body(features["body"])], dim=1)


class Affinity(nn.Module):
    """How much each pair of nodes belongs together.

    Args:
        channels: D of a node.
        affinity_dim: dimensions in which nodes are compared.
    """

    def __init__(self, channels: int, affinity_dim: int) -> None:
        super().__init__()
        # Without biases: one on the keys would change no row of the softmax, and never be trained.
        self.query = nn.Linear(channels, affinity_dim, bias=False)
        self.key = nn.Linear(channels, affinity_dim, bias=False)

    def forward(self, nodes_BND: Tensor, present_BN: Tensor) -> Tensor:
        """Symmetric adjacency (B, N, N) float with self loops, in which nodes share among those present alone."""
        query_BNA, key_BNA = self.query(nodes_BND), self.key(nodes_BND)
        scores_BNN = query_BNA @ key_BNA.mT / math.sqrt(query_BNA.shape[2])
        scores_BNN = scores_BNN.masked_fill(~present_BN[:, None, :], torch.finfo(scores_BNN.dtype).min)
        share_BNN = torch.softmax(scores_BNN, dim=2)
        return (share_BNN + share_BNN.mT) / 2 + torch.eye(share_BNN.shape[1], device=share_BNN.device)


def region_features(context_map: Tensor, regions_BN4: Tensor) -> Tensor:
    """Mean features (B, N, D) float of each region of a map (B, D, height, width): those of its RoI-aligned patch.

    RoI align (He et al., ICCV 2017) interpolates, and a mean of interpolations is a weighted mean of the map's cells,
    with a weight for the row times one for the column. So no patch is made, which took two thirds of a step's time.
    """
    height, width = context_map.shape[2:]
    x_weights_BNW = _cell_weights(regions_BN4[..., 0], regions_BN4[..., 2], width)
    y_weights_BNH = _cell_weights(regions_BN4[..., 1], regions_BN4[..., 3], height)
    weights_BNP = (y_weights_BNH[..., :, None] * x_weights_BNW[..., None, :]).flatten(2)
    # In full precision under autocast too: rounded to bfloat16, boxes would move by cells' hundredths.
    with torch.autocast(context_map.device.type, enabled=False):
        return weights_BNP @ context_map.float().flatten(2).mT


def _cell_weights(start_BN: Tensor, end_BN: Tensor, cells: int) -> Tensor:
    """Share (B, N, cells) of each cell of an axis in the mean of equally spaced samples from start to end (0 to 1)."""
    between_Q = (torch.arange(SAMPLES_PER_AXIS, device=start_BN.device) + 0.5) / SAMPLES_PER_AXIS
    samples_BNQ = start_BN[..., None] + (end_BN - start_BN)[..., None] * between_Q
    positions_BNQ = (samples_BNQ * cells - 0.5).clamp(0, cells - 1)  # a cell's value stands at its centre
    cells_C1 = torch.arange(cells, device=start_BN.device)[:, None]
    return (1 - (positions_BNQ[:, :, None] - cells_C1).abs()).clamp(min=0).mean(3)
