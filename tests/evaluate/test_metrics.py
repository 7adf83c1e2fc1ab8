from __future__ import annotations

import numpy as np
import pytest

from crce.evaluate.stats import Recognition, measure, recognise, summarise


def counts(base: int, erased: int, n: int = 6) -> Recognition:
    """A prompt whose first `base` and `erased` of n pictures are recognised."""
    return Recognition(np.arange(n) < base, np.arange(n) < erased)


def test_erased_is_relative_to_the_base_model():
    value, _ = measure([counts(4, 1), counts(6, 2)], erasing=True)
    assert value.value == pytest.approx(1 - 3 / 10)
    assert value.n == 10  # what it is a share of


def test_kept_is_relative_to_the_base_model():
    value, _ = measure([counts(4, 3), counts(6, 2)], erasing=False)
    assert value.value == pytest.approx(5 / 10)


@pytest.mark.parametrize(("erasing", "expected"), [(True, 0.0), (False, 1.0)])
def test_more_recognised_than_before_is_clipped(erasing, expected):
    value, _ = measure([counts(3, 6)], erasing=erasing)
    assert value.value == expected
    assert 0 <= value.low <= expected <= value.high <= 1
    assert value.high - value.low > 0.5  # three images can't tell more


def test_failed_picture_of_the_erased_model_counts_against_it():
    base = ["cat", "cat", "cat", "cat"]
    erased = [None, "dog", "dog", None]
    assert recognise(base, erased, "cat", erasing=True).erased.tolist() == [True, False, False, True]
    assert recognise(base, ["cat", None, "cat", None], "cat", erasing=False).erased.tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_all_pictures_failed_is_no_success():
    nothing = [None] * 4
    gone, _ = measure([recognise(["cat"] * 4, nothing, "cat", erasing=True)], erasing=True)
    kept, _ = measure([recognise(["dog"] * 4, nothing, "dog", erasing=False)], erasing=False)
    assert gone.value == 0
    assert kept.value == 0


def test_failed_picture_of_the_base_model_is_left_out_with_its_pair():
    recognition = recognise(["cat", None, "dog"], ["dog", "cat", "cat"], "cat", erasing=True)
    assert recognition.base.tolist() == [True, False]
    assert recognition.erased.tolist() == [False, True]


@pytest.mark.parametrize(("base", "n", "drawable"), [(3, 6, True), (2, 6, False), (1, 1, True), (0, 0, False)])
def test_drawable_in_at_least_half_of_the_pictures(base, n, drawable):
    assert counts(base, 0, n).drawable is drawable


def test_undrawable_prompts_change_no_number():
    drawable = [counts(6, 1), counts(5, 0)]
    with_more, _ = measure([*drawable, counts(2, 2), counts(0, 6)], erasing=True)
    without, _ = measure(drawable, erasing=True)
    assert with_more == without


def test_nothing_drawable_is_not_measured():
    value, samples = measure([counts(1, 0)], erasing=True, reason="too few cats")
    assert (value.value, value.low, value.high, value.n, value.reason) == (None, None, None, 0, "too few cats")
    assert value.as_json() == {"value": None, "low": None, "high": None, "n": 0, "reason": "too few cats"}
    assert samples.size == 0


def test_interval_holds_the_value_and_is_the_same_every_time():
    rng = np.random.default_rng(3)
    for erasing in (True, False):
        for _ in range(20):
            prompts = [Recognition(rng.random(6) < 0.8, rng.random(6) < 0.4) for _ in range(5)]
            if not any(p.drawable for p in prompts):
                continue
            value, samples = measure(prompts, erasing=erasing)
            assert 0 <= value.low <= value.value <= value.high <= 1
            again, same = measure(prompts, erasing=erasing)
            assert again == value
            assert np.array_equal(samples, same)


def test_interval_of_one_prompt_is_that_of_its_pictures():
    value, samples = measure([counts(100, 30, 100)], erasing=True)
    assert samples.std() == pytest.approx((0.7 * 0.3 / 100) ** 0.5, rel=0.05)
    assert value.low == pytest.approx(0.7 - 1.96 * 0.0458, abs=0.02)
    assert value.high == pytest.approx(0.7 + 1.96 * 0.0458, abs=0.02)


def test_prompts_that_disagree_leave_a_wide_interval():
    value, _ = measure([counts(50, 50, 50), counts(50, 0, 50)], erasing=True)
    assert value.low < 0.1
    assert value.high > 0.9


def test_h_is_zero_where_one_of_its_shares_is():
    summary = summarise([[counts(6, 6)], [counts(6, 3)], [counts(6, 6), counts(4, 4)], [counts(6, 1)]])
    assert (summary["erased"].value, summary["H"].value, summary["H"].low, summary["H3"].value) == (0, 0, 0, 0)


def test_summary_is_the_harmonic_mean_of_the_four_and_beside_it_of_the_first_three():
    summary = summarise([[counts(6, 0)], [counts(6, 3)], [counts(6, 6), counts(4, 4)], [counts(6, 1)]])
    assert [summary[name].value for name in ("erased", "coref_erased", "kept")] == [1.0, 0.5, 1.0]
    assert summary["unrelated"].value == pytest.approx(1 / 6)
    assert summary["H"].value == pytest.approx(4 / (1 + 2 + 1 + 6))  # a model that lost everything else has no high H
    assert summary["H3"].value == pytest.approx(3 / (1 + 2 + 1))
    assert summary["H"].low <= summary["H"].value <= summary["H"].high
    assert (summary["H"].n, summary["H3"].n) == (6 + 6 + 10 + 6, 6 + 6 + 10)
    assert set(summary["H"].as_json()) == {"value", "low", "high", "n"}


def test_h_is_zero_when_nothing_is_kept():
    assert summarise([[counts(6, 0)], [counts(6, 0)], [counts(6, 0)], [counts(6, 6)]])["H"].value == 0


def test_h_is_not_measured_when_one_of_the_four_is_missing():
    groups = [[counts(1, 0)], [counts(6, 0)], [counts(6, 6)], [counts(6, 6)]]
    summary = summarise(groups, reasons={"erased": "never drawn"})
    assert summary["erased"].reason == "never drawn"
    assert summary["coref_erased"].value == 1
    assert summary["H"].value is summary["H3"].value is None
    assert "erased" in summary["H"].reason
    summary = summarise([[counts(6, 0)], [counts(6, 0)], [counts(6, 6)], []])
    assert (summary["H"].value, summary["H3"].value) == (None, 1)


def test_a_gain_does_not_hide_a_loss():
    value, _ = measure([counts(8, 4, 8), counts(4, 8, 8)], erasing=False)
    assert value.value == pytest.approx((4 + 4) / 12)


def test_what_counts_is_decided_on_other_pictures_so_that_an_unchanged_model_has_lost_nothing():
    rng = np.random.default_rng(0)
    rows = rng.random((3, 4000, 4)) < 0.5  # base, erased and probe: the same model, other noise
    blind, _ = measure([Recognition(b, a) for b, a, _ in zip(*rows, strict=True)], erasing=True)
    value, _ = measure([Recognition(b, a, probe) for b, a, probe in zip(*rows, strict=True)], erasing=True)
    assert blind.value > 0.15
    assert value.value == pytest.approx(0, abs=0.03)
    unseen = recognise(["cat"] * 4, ["dog"] * 4, "cat", erasing=True, probe_words=["dog", None, "cat", "dog"])
    assert not unseen.drawable
    lucky = recognise(["dog"] * 4, ["dog"] * 4, "cat", erasing=True, probe_words=["cat"])
    assert measure([lucky], erasing=True)[0].value is None  # a share of nothing
