"""Rank correlations against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.statistics import rank_agreement


def ranks(values):
    """Mean ranks, by counting."""
    return np.array([sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values])


few = st.integers(0, 6)


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.tuples(few, few), min_size=4, max_size=12))
def test_equals_the_definitions(pairs):
    ours, theirs = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = rank_agreement(ours, theirs)
    if len(set(ours)) == 1 or len(set(theirs)) == 1:
        assert found is None
        return
    assert found.spearman == pytest.approx(np.corrcoef(ranks(ours), ranks(theirs))[0, 1])
    signs = [(np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in combinations(pairs, 2)]
    untied = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    assert found.kendall == pytest.approx(sum(a * b for a, b in signs) / np.sqrt(untied[0] * untied[1]))
    assert found.n == len(pairs)
    assert -1 <= found.ci_low <= found.spearman + 1e-9
    assert found.spearman <= found.ci_high + 1e-9 <= 1 + 1e-9


def test_interval_holds_the_true_value_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    true = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman's rho of a normal pair with correlation 0.7
    held = 0
    for _ in range(400):
        first, second = generator.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=30).T
        found = rank_agreement(first.tolist(), second.tolist())
        held += found.ci_low <= true <= found.ci_high
    assert 0.91 < held / 400 < 0.98


def test_fewer_than_three_cannot_be_ranked_and_lists_must_fit():
    assert rank_agreement([1.0, 2.0], [1.0, 2.0]) is None
    assert rank_agreement([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).ci_low is None
    with pytest.raises(ValueError, match="3 values cannot be ranked beside 2"):
        rank_agreement([1.0, 2.0, 3.0], [1.0, 2.0])
