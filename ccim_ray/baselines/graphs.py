"""Graph convolution, for the regions of GCN-CNN and for the skeleton and the agents of EmotiCon.

Shape suffixes: B subjects, N nodes, I and O a layer's input and output channels, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normalise_adjacency(adjacency_BNN: Tensor, present_BN: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 over the nodes that are present (Kipf and Welling 2017, Eq. 2); A holds the self loops.

    Args:
        adjacency_BNN: symmetric, not negative, 1 or more on the diagonal; float, (N, N) for all subjects alike.
        present_BN: bool; rows and columns of absent nodes become zero.

    Returns:
        (B, N, N) float.
    """
    kept_BNN = adjacency_BNN * (present_BN[:, :, None] & present_BN[:, None, :])
    scale_BN = kept_BNN.sum(2).clamp(min=1).rsqrt()  # an absent node's degree is 0, every other's at least 1
    return scale_BN[:, :, None] * kept_BNN * scale_BN[:, None, :]


def mean_over_present(nodes_BNC: Tensor, present_BN: Tensor) -> Tensor:
    """Mean (B, C) of the nodes that are present; zero where none is."""
    weights_BN = present_BN.to(nodes_BNC.dtype)
    sum_BC = torch.einsum("bnc,bn->bc", nodes_BNC, weights_BN)
    return sum_BC / weights_BN.sum(1, keepdim=True).clamp(min=1)


class GraphConvolution(nn.Module):
    """One layer: ReLU(A (H W + b)), A normalised. Nodes that A leaves out come out as zero."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out)
        # The default initialisation shrinks what passes a ReLU to 0.4 of its size: 0.005 after six layers.
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, nodes_BNI: Tensor, adjacency_BNN: Tensor) -> Tensor:
        """Nodes (B, N, O) float from nodes (B, N, I) and a normalised adjacency (B, N, N)."""
        return torch.relu(adjacency_BNN @ self.linear(nodes_BNI))
