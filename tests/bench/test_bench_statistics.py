"""Means, intervals and comparisons against plain computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from crce.bench.results import difference, holm
from crce.evaluate.intervals import mean_of


def test_the_mean_is_over_all_values_and_its_interval_over_groups():
    values = [[0.2, 0.4], [0.9], [0.5, 0.7], [0.1], [0.6, 0.6]]
    mean = mean_of(values)
    assert mean.value == pytest.approx(np.mean([0.2, 0.4, 0.9, 0.5, 0.7, 0.1, 0.6, 0.6]))
    assert mean.n == 8
    half = stats.t.ppf(0.975, 4) * np.std([0.3, 0.9, 0.6, 0.1, 0.6], ddof=1) / 5**0.5
    assert (mean.low, mean.high) == (pytest.approx(mean.value - half), pytest.approx(mean.value + half))


def test_a_share_has_an_interval_of_shares():
    mean = mean_of([[1.0], [1.0], [1.0], [1.0], [0.9]])
    assert mean.high == 1.0
    beyond = mean_of([[1.0], [1.0], [1.0], [1.0], [1.5]])
    assert beyond.high > 1.3


def test_an_interval_that_would_say_nothing_is_not_given():
    few, alike = mean_of([[0.1, 0.5], [0.2], [0.3], [0.4]]), mean_of([[1.0]] * 8)
    assert (few.low, few.high, alike.low, alike.high) == (None,) * 4
    one = mean_of([[0.1, 0.2, 0.3, 0.4, 0.5]])  # of one group, that of its values
    assert one.low == pytest.approx(0.3 - stats.t.ppf(0.975, 4) * np.std([0.1, 0.2, 0.3, 0.4, 0.5], ddof=1) / 5**0.5)


def test_nothing_and_one_value():
    assert mean_of([]).value is None
    assert (mean_of([[0.3]]).value, mean_of([[0.3]]).low) == (0.3, None)


def test_a_difference_is_paired_by_concept_and_seed():
    base = {"cat": {0: 0.5, 1: 0.9}, "dog": {0: 0.1}}
    other = {"cat": {0: 0.6, 2: 0.0}, "dog": {0: 0.4}, "fox": {0: 1.0}}
    made = difference(base, other)
    assert made.mean.value == pytest.approx((0.1 + 0.3) / 2)
    assert made.concepts == 2
    assert made.p == made.least_p == 0.5


def test_a_row_without_a_random_choice_is_compared_with_every_seed_of_the_other():
    solved, trained = (
        {"cat": {0: 0.5}, "dog": {0: 0.2}},
        {"cat": {0: 0.9, 1: 0.6, 2: 0.6}, "dog": {0: 0.2, 1: 0.5, 2: 0.5}},
    )
    made = difference(solved, trained)
    assert (made.mean.value, made.mean.n) == (pytest.approx(0.2), 6)
    assert difference(trained, solved).mean.value == pytest.approx(-0.2)


def test_p_is_that_of_all_sign_flips():
    rng = np.random.default_rng(0)
    d = rng.normal(0.1, 0.2, 8)
    made = difference({str(i): {0: 0.0} for i in range(8)}, {str(i): {0: v} for i, v in enumerate(d)})
    flipped = [abs(np.mean(np.array(s) * d)) for s in itertools.product((-1, 1), repeat=8)]
    assert made.p == pytest.approx(np.mean(np.array(flipped) >= abs(d.mean()) - 1e-12))
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert made.p == pytest.approx(exact.pvalue)


def test_p_of_many_concepts_is_near_the_exact_one_and_never_zero():
    d = np.random.default_rng(0).normal(0.1, 0.2, 16)
    names = [str(i) for i in range(16)]
    made = difference({n: {0: 0.0} for n in names}, {n: {0: v} for n, v in zip(names, d, strict=True)})
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert made.p == pytest.approx(exact.pvalue, abs=0.01)
    clear = difference({n: {0: 0.0} for n in names * 2}, {n: {0: 1.0} for n in names})
    assert 0 < clear.p < 0.001


def test_holm():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_interval_of_a_difference_holds_both_signs_where_all_differences_have_one():
    base = {str(i): {0: 0.5} for i in range(5)}
    made = difference(base, base | {"4": {0: 1.0}}).mean
    assert (made.value, made.low) == (pytest.approx(0.1), pytest.approx(0.1 - stats.t.ppf(0.975, 4) * 0.1))
