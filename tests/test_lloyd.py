"""Lloyd's iterations in blocks, against scikit-learn's KMeans from the same first centres."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from ccim_ray.lloyd import added_up, assigned, farthest, lloyd, nearest, shares_of


def cloud(rows=1500, width=6, clusters=9):
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 4, (clusters, width))
    return (centres[rng.integers(0, clusters, rows)] + rng.normal(0, 1, (rows, width))).astype(np.float32)


def run(blocks, first, tolerance):
    return lloyd(
        first,
        tolerance,
        lambda centres: (assigned(block, centres) for block in blocks),
        lambda centres, wanted: (farthest(block, centres, wanted) for block in blocks),
    )


def by_scikit_learn(rows, first):
    return KMeans(len(first), init=first, n_init=1, algorithm="lloyd", tol=1e-4).fit(rows)


@pytest.mark.parametrize("ends", [[], [1, 2, 700]])
def test_ends_where_scikit_learn_ends_in_as_many_iterations(ends):
    rows = cloud()
    first = {size: rows[:size].copy() for size in (5, 20)}
    ended = run(np.split(rows, ends), dict(first), 1e-4 * float(rows.var(0).mean()))
    for size, clusters in ended.items():
        expected = by_scikit_learn(rows, first[size])
        assert clusters.iterations == expected.n_iter_
        np.testing.assert_array_equal(nearest(rows, clusters.centres_NW), expected.labels_)
        np.testing.assert_allclose(clusters.centres_NW, expected.cluster_centers_, rtol=1e-4, atol=1e-5)
    assert first[5].tolist() == rows[:5].tolist()


def test_sizes_do_not_meet():
    rows = cloud()
    blocks = np.split(rows, [400])
    together = run(blocks, {size: rows[:size] for size in (4, 30)}, 1e-4)
    for size in (4, 30):
        alone = run(blocks, {size: rows[:size]}, 1e-4)[size]
        assert alone.iterations == together[size].iterations
        np.testing.assert_array_equal(alone.centres_NW, together[size].centres_NW)


def test_an_empty_cluster_starts_again_at_the_farthest_row():
    rows = np.array([[0, 0], [0, 1], [1, 0], [50, 50], [1, 1], [-60, 0]], np.float32)
    first = np.array([[0, 0], [1, 1], [900, 900], [901, 901]], np.float32)
    ended = run([rows[:2], rows[2:]], {4: first}, 0.0)[4]
    expected = by_scikit_learn(rows, first)
    np.testing.assert_allclose(sorted(ended.centres_NW.tolist()), sorted(expected.cluster_centers_.tolist()), rtol=1e-5)
    assert [-60, 0] in ended.centres_NW.tolist()


def test_shares_are_the_sums_of_each_label():
    rows = cloud(5000)
    labels = np.random.default_rng(1).integers(0, 7, len(rows))
    labels[labels == 3] = 4
    parts = [{8: shares_of(part, of, 8)} for part, of in zip(np.split(rows, [7]), np.split(labels, [7]), strict=True)]
    total = added_up(parts)[8]
    for label in range(8):
        np.testing.assert_allclose(total.sums_NW[label], rows[labels == label].sum(0, dtype=np.float64), rtol=1e-12)
    assert total.count_N.tolist() == np.bincount(labels, minlength=8).tolist()
