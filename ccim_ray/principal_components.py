"""Principal components of features taken block by block, so that no second copy of all features is ever made.

Shape suffixes: M features, R rows of one block, D width of a feature, P principal components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]

BLOCK_VALUES = 2**23
"""Numbers in one block of features: 32 MiB."""


def rows_of_a_block(width: int) -> int:
    """Rows of features of this width that make one block."""
    return max(1, BLOCK_VALUES // width)


@dataclass(frozen=True)
class Spread:
    """What one block adds to the covariance: products of its centred features, and their sum, which is rounding."""

    products_DD: Floats
    residual_D: Sums
    rows: int


@dataclass(frozen=True)
class PrincipalComponents:
    """Where features are projected.

    Attributes:
        mean_D: float32, subtracted from a feature before anything else.
        residual_D: float32, the mean of what is left then, which rounding the mean to float32 leaves.
        components_DP: float32, orthonormal columns, the largest entry of each positive.
        variances_P: float32, variance along each.
        explained: their share of the variance of all.
    """

    mean_D: Floats
    residual_D: Floats
    components_DP: Floats
    variances_P: Floats
    explained: float

    def project(self, block_RD: Floats) -> Floats:
        """The block (R, P) in C order."""
        centred_RD: Floats = block_RD - self.mean_D
        projected_RP: Floats = centred_RD @ self.components_DP
        projected_RP -= self.residual_D[None] @ self.components_DP
        return projected_RP


def spread_of(block_RD: Floats, mean_D: Floats) -> Spread:
    """Products of a block's features, centred first: squares of a large mean would drown a small spread."""
    centred_RD: Floats = block_RD - mean_D
    residual_D = centred_RD.mean(0).astype(np.float64) * len(centred_RD)
    products_DD: Floats = centred_RD.T @ centred_RD
    return Spread(products_DD, residual_D, len(centred_RD))


def components_from(spreads: Iterable[Spread], mean_D: Floats, components: int) -> PrincipalComponents:
    """The first principal components, from the spread of every block, added in the order they come in.

    Sums over blocks are in float64. Of features in one block these are the bits of scikit-learn's PCA with the solver
    ``covariance_eigh`` on centred features.
    """
    width = len(mean_D)
    products_DD, residual_D, rows = np.zeros((width, width)), np.zeros(width), 0
    for spread in spreads:
        products_DD += spread.products_DD
        residual_D += spread.residual_D
        rows += spread.rows
    left_D = (residual_D / rows).astype(np.float32)
    covariance_DD = products_DD.astype(np.float32)
    del products_DD
    covariance_DD -= rows * left_D[:, None] * left_D[None]
    covariance_DD /= rows - 1
    variances_D, vectors_DD = np.linalg.eigh(covariance_DD)
    variances_D = np.maximum(variances_D[::-1], 0)
    components_DP = vectors_DD[:, ::-1][:, :components].copy()
    largest_P = np.abs(components_DP).argmax(0)
    components_DP *= np.sign(components_DP[largest_P, np.arange(components)])
    explained = float(np.sum(variances_D[:components] / variances_D.sum()))
    return PrincipalComponents(mean_D, left_D, components_DP, variances_D[:components].copy(), explained)
