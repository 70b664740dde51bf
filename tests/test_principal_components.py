"""Principal components from blocks, against scikit-learn's PCA of all features at once."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ccim_ray.principal_components import components_from, spread_of


def rectified(rows, width, offset=0.3):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width)) * np.linspace(3, 0.5, width) + offset
    return np.maximum(features, 0).astype(np.float32)


def fit(blocks, components):
    rows = sum(len(block) for block in blocks)
    mean_D = (sum(block.sum(0, dtype=np.float64) for block in blocks) / rows).astype(np.float32)
    return components_from((spread_of(block, mean_D) for block in blocks), mean_D, components)


def test_one_block_gives_the_bits_of_scikit_learn():
    features = rectified(900, 40)
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    reference = PCA(12, svd_solver="covariance_eigh")
    expected = reference.fit_transform(centred)
    ours = fit([features], 12)
    np.testing.assert_array_equal(ours.project(features), expected)
    assert ours.explained == float(np.sum(reference.explained_variance_ratio_))


@pytest.mark.parametrize("offset", [0.3, 3000])
def test_blocks_give_the_components_of_all_features(offset):
    features = rectified(900, 40, offset)
    expected = PCA(12, svd_solver="full").fit(features.astype(np.float64))
    ours = fit([features[:100], features[100:101], features[101:]], 12)
    np.testing.assert_allclose(np.abs(ours.components_DP.T @ expected.components_.T), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(ours.variances_P, expected.explained_variance_, rtol=1e-3)
    assert ours.explained == pytest.approx(expected.explained_variance_ratio_.sum(), rel=1e-4)
    assert abs(ours.project(features).mean()) < 1e-3
