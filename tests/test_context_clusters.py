"""The cluster of a subject: that of the nearest prototype, and on the train split the one that K-Means gave it."""

import numpy as np
import torch

import ccim_ray.context_clusters
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.context_clusters import nearest_prototypes


def test_it_is_the_prototype_at_the_smallest_distance(monkeypatch):
    monkeypatch.setattr(ccim_ray.context_clusters, "CHUNK_SUBJECTS", 7)
    rng = np.random.default_rng(0)
    # Far from the origin, where squares of features would drown their differences.
    features = (1000 + rng.normal(size=(40, 6))).astype(np.float32)
    prototypes = torch.from_numpy((1000 + rng.normal(size=(5, 6))).astype(np.float32))
    found = nearest_prototypes(features, ConfounderDictionary(prototypes, torch.full((5,), 0.2)))
    distances = np.linalg.norm(features[:, None].astype(float) - prototypes.numpy().astype(float), axis=2)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, distances.argmin(1))
    assert len(set(found.tolist())) > 2


def test_subjects_of_the_train_split_get_the_cluster_that_made_the_dictionary():
    rng = np.random.default_rng(1)
    centre = 4 * rng.normal(size=(6, 20))
    features = (centre[rng.integers(0, 6, 300)] + rng.normal(size=(300, 20))).astype(np.float32)
    dictionary = ConfounderDictionary.fit(features, size=6, seed=0, pca_components=5)
    found = nearest_prototypes(features, dictionary)
    np.testing.assert_allclose(np.bincount(found, minlength=6) / 300, dictionary.prior_N, atol=1e-6)
    for number, prototype in enumerate(dictionary.prototypes_ND.numpy()):
        np.testing.assert_allclose(features[found == number].mean(0), prototype, atol=1e-4)
