"""GCN-CNN: a graph of the context's regions, beside the subject's body. Approximate.

Zhang, Liang and Ma, "Context-Aware Affective Graph Reasoning for Emotion Recognition", ICME 2019, of which there is no
public code. Fixed by the literature: proposed regions are the nodes of a graph convolutional network of 6 layers, a
CNN sees the body, and h has 1024 dimensions. Chosen here:

- a node is the mean of its RoI-aligned 7 x 7 patch of the context's last feature map;
- the affinity is a softmax over nodes of learned, scaled dot products, computed once from the nodes and shared by the
  layers. It is made symmetric, (S + S^T) / 2: with rows that sum to one, S + I has the same degree everywhere, and its
  symmetric normalisation would only halve it;
- layers of 512 channels, the mean over nodes as the graph's feature, and a linear layer with ReLU for the body: 512
  dimensions each. No dropout.

Shape suffixes: B subjects, N regions, D feature dimensions of a view, A affinity, G channels of the graph, H joint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from ccim_ray.baselines.graphs import GraphConvolution, mean_over_present, normalise_adjacency
from ccim_ray.baselines.interface import require_views

ROI_SIZE = 7
SAMPLES_PER_BIN = 2


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
    """Mean features (B, N, D) of each region of a map (B, D, height, width), by RoI align."""
    batch, channels, height, width = context_map.shape
    scale_4 = regions_BN4.new_tensor([width, height, width, height])
    subject_of_region = torch.arange(batch, device=regions_BN4.device).repeat_interleave(regions_BN4.shape[1])
    rois = torch.cat([subject_of_region[:, None], (regions_BN4 * scale_4).flatten(0, 1)], dim=1)
    # In full precision under autocast too: rounded to bfloat16, boxes would move by cells' hundredths.
    patches: Tensor = roi_align(context_map.float(), rois, ROI_SIZE, sampling_ratio=SAMPLES_PER_BIN, aligned=True)
    return patches.mean((2, 3)).view(batch, -1, channels)
