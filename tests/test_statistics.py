"""Statistics over seeds against numpy, hand examples and their defining properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.statistics import PairedDelta, Summary, bootstrap_ci, holm, mcnemar_exact, paired_delta, summarise

metrics = st.lists(st.integers(0, 1000).map(lambda thousandths: thousandths / 1000), min_size=2, max_size=12)
p_values = st.lists(st.none() | st.floats(0, 1), max_size=12)


@given(metrics)
def test_summary_agrees_with_numpy(values):
    summary = summarise(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert (summary.ci_low + summary.ci_high) / 2 == pytest.approx(summary.mean)


def test_summary_interval_by_hand():
    # t(0.975, 2 degrees of freedom) = 4.302653
    summary = summarise([0.70, 0.72, 0.77])
    assert summary.sd == pytest.approx(0.0360555, rel=1e-5)
    half_width = 4.302653 * 0.0360555 / math.sqrt(3)
    assert summary.ci_low == pytest.approx(0.73 - half_width, rel=1e-5)
    assert summary.ci_high == pytest.approx(0.73 + half_width, rel=1e-5)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    summaries = [summarise(rng.normal(0.5, 0.1, 4)) for _ in range(2000)]
    covered = np.mean([summary.ci_low <= 0.5 <= summary.ci_high for summary in summaries])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_one_seed_has_no_spread():
    assert summarise([0.5]) == Summary(1, 0.5, None, None, None)
    assert paired_delta([0.5], [0.4]) == PairedDelta(pytest.approx(0.1), None, None, None)


def test_paired_delta_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3) = 3.4641 on 2 degrees of freedom.
    delta = paired_delta([11, 22, 33], [10, 20, 30])
    assert delta.delta == pytest.approx(2)
    assert delta.p == pytest.approx(0.0741799, rel=1e-4)
    assert delta.ci_low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-5)
    assert delta.ci_high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-5)


def test_pairing_is_by_position():
    reference = [0.1, 0.5, 0.9]
    steady = paired_delta([0.12, 0.53, 0.91], reference)
    shuffled = paired_delta([0.53, 0.91, 0.12], reference)
    assert steady.delta == pytest.approx(shuffled.delta)
    assert steady.p < 0.1 < 0.5 < shuffled.p


@pytest.mark.parametrize(
    ("values", "reference"),
    [([0.5, 0.6], [0.5, 0.6]), ([0.3, 0.5, 0.7], [0.2, 0.4, 0.6]), ([11, 12], [1, 2])],
)
def test_equal_differences_have_no_p(values, reference):
    delta = paired_delta(values, reference)
    assert delta.p is None
    assert delta.ci_low == pytest.approx(delta.delta)


@given(metrics, st.randoms(use_true_random=False))
def test_the_interval_excludes_zero_exactly_when_p_is_small(values, random):
    delta = paired_delta(values, [random.random() for _ in values])
    if delta.p is not None:
        assert 0 <= delta.p <= 1
        assert (delta.p < 0.05) == (not delta.ci_low <= 0 <= delta.ci_high)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_refuses_values_that_are_no_measurements(values):
    for function in (summarise, bootstrap_ci, lambda v: paired_delta(v, v)):
        with pytest.raises(ValueError, match=r"non-empty|finite"):
            function(values)


def test_refuses_lists_that_do_not_pair():
    with pytest.raises(ValueError, match="cannot pair 2 values with 3"):
        paired_delta([1, 2], [1, 2, 3])


def test_bootstrap_of_many_values_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).binomial(1, 0.7, 2000)
    low, high = bootstrap_ci(values, resamples=2000)
    half_width = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half_width, abs=0.003)
    assert high == pytest.approx(values.mean() + half_width, abs=0.003)
    assert (low, high) == bootstrap_ci(values, resamples=2000)
    assert (low, high) != bootstrap_ci(values, seed=1, resamples=2000)


@settings(deadline=None, max_examples=25)
@given(metrics)
def test_bootstrap_interval_lies_within_the_values(values):
    low, high = bootstrap_ci(values, resamples=199)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_bootstrap_of_degenerate_samples():
    assert bootstrap_ci([0.4]) is None
    assert bootstrap_ci([0.4, 0.4, 0.4]) == (0.4, 0.4)


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 (raised to the one before it).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


@given(p_values)
def test_holm_never_lowers_a_p_and_keeps_their_order(raw):
    adjusted = holm(raw)
    assert [p is None for p in adjusted] == [p is None for p in raw]
    pairs = sorted((p, q) for p, q in zip(raw, adjusted, strict=True) if p is not None)
    assert all(p <= q <= 1 for p, q in pairs)
    assert all(before[1] <= after[1] for before, after in itertools.pairwise(pairs))


@given(p_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_procedure_rejects(raw, alpha):
    made = sorted(p for p in raw if p is not None)
    rejected = 0
    while rejected < len(made) and (len(made) - rejected) * made[rejected] <= alpha:
        rejected += 1
    assert sum(p is not None and p <= alpha for p in holm(raw)) == rejected


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="must be in"):
        holm([0.5, p])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_sign_test_of_what_differs(first_only, second_only):
    from scipy.stats import binomtest

    different = first_only + second_only
    if different == 0:
        assert mcnemar_exact(first_only, second_only) is None
        return
    p = mcnemar_exact(first_only, second_only)
    tail = sum(math.comb(different, k) for k in range(min(first_only, second_only) + 1)) / 2**different
    assert p == pytest.approx(min(1.0, 2 * tail))
    assert p == pytest.approx(binomtest(first_only, different).pvalue)
    assert p == pytest.approx(mcnemar_exact(second_only, first_only))


def test_mcnemar_refuses_what_is_no_count():
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 3)
