"""Rates before and after, against the formulas they are named after."""

from __future__ import annotations

import re
from math import comb, sqrt

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta

from crce.evaluate import evaluate
from crce.evaluate.intervals import independent
from crce.evaluate.stats import Recognition, compare, rate_of
from crce.evaluate.verdict import percent, points


def outcome(base: int, erased: int, n: int) -> Recognition:
    return Recognition(np.arange(n) < base, np.arange(n) < erased)


@pytest.mark.parametrize(("k", "n"), [(0, 8), (8, 8), (3, 8), (1, 1), (0, 1), (57, 200)])
def test_interval_of_one_prompt_is_that_of_jeffreys(k, n):
    """Percentiles of a beta distribution with k + 1/2 and n - k + 1/2; with none or all it ends at 0 or 1."""
    rate = rate_of([np.arange(n) < k])
    assert (rate.k, rate.n, rate.value) == (k, n, k / n)
    low, high = beta.ppf([0.025, 0.975], k + 0.5, n - k + 0.5)
    assert rate.low == pytest.approx(low if k else 0, abs=0.01)
    assert rate.high == pytest.approx(high if k < n else 1, abs=0.01)


def test_images_of_one_prompt_say_less_than_those_of_many():
    apart, together = [np.arange(8) < 4] * 5, [np.arange(8) < 8 * (i % 2) for i in range(5)]
    alike, mixed = independent([np.ones(8)] * 5), independent(apart)
    assert independent([np.arange(40) < 20]) == 40
    assert 5 < independent(together) + 2 < alike < mixed < 40  # prompts that disagree count hardly more than once


def test_difference_is_that_of_the_rates_and_its_p_is_mcnemars():
    """10 pictures lost and 2 gained: twice the tail of a fair coin thrown 12 times."""
    base = np.array([1] * 15 + [0] * 5, dtype=bool)
    erased = np.array([1] * 5 + [0] * 10 + [1] * 2 + [0] * 3, dtype=bool)
    found = compare([Recognition(base, erased)])
    assert (found.base.k, found.erased.k, found.base.n) == (15, 7, 20)
    assert found.difference.value == pytest.approx(-8 / 20)
    assert (found.difference.lost, found.difference.gained) == (10, 2)
    assert found.difference.p == pytest.approx(2 * sum(comb(12, i) for i in range(3)) / 2**12)
    assert found.difference.significant


def test_interval_of_the_difference_is_paired():
    """One prompt of 200 pictures: the mean of -1 and 0, so nearly normal with the spread of a share."""
    found = compare([outcome(200, 140, 200)])
    spread = sqrt(0.3 * 0.7 / 200)
    assert found.difference.low == pytest.approx(-0.3 - 1.96 * spread, abs=0.015)
    assert found.difference.high == pytest.approx(-0.3 + 1.96 * spread, abs=0.015)
    assert compare([outcome(200, 140, 200)]) == found


def test_pairs_that_agree_differ_in_nothing():
    found = compare([outcome(5, 5, 8), outcome(8, 8, 8)])
    assert (found.difference.value, found.difference.p, found.difference.significant) == (0, 1, False)


@pytest.mark.parametrize(("n", "significant"), [(1, False), (5, False), (6, True)])
def test_few_pictures_are_not_significant_however_much_they_agree(n, significant):
    """All pictures lost: five fair coins fall alike once in 16 times."""
    found = compare([outcome(n, 0, n)])
    assert found.difference.low == -1
    assert (found.difference.high < 0) is (n > 1)
    assert found.difference.p == pytest.approx(2 * 0.5**n if n > 1 else 1)
    assert found.difference.significant is significant


def test_one_prompt_of_many_is_not_significant_by_its_pictures_alone():
    """A single broken prompt beside an unharmed one: two prompts, so the interval reaches zero."""
    found = compare([outcome(20, 0, 20), outcome(20, 20, 20)])
    assert found.difference.p < 0.001
    assert found.difference.high > 0
    assert not found.difference.significant


def test_nothing_to_compare():
    assert compare([]) is None


@pytest.mark.parametrize(("n", "recognised", "testable"), [(5, 5, False), (8, 5, False), (8, 4, False), (8, 6, True)])
def test_what_no_outcome_could_show_is_not_tested(scored, n, recognised, testable):
    """Of eight pictures five may count: were all of them lost, p would be 0.0625."""
    found = compare([outcome(recognised, 0, n)])
    assert found.testable is testable
    assert (found.difference.p < 0.05) is testable


def test_the_target_of_a_standard_evaluation_is_tested_if_it_counts_at_all():
    """It is drawn 16 times, and counts where the base model draws it in half of them."""
    assert compare([outcome(8, 0, 16)]).difference.significant


@pytest.mark.parametrize("share", [0.025, -0.025, 0.125, 0.005])
def test_a_number_is_rounded_alike_by_whoever_says_it(share):
    """A report holds four digits of what its verdict was made of, which may be a hair more or less."""
    for hair in (1e-9, -1e-9):
        assert points(share + hair) == points(round(share + hair, 4))
        assert percent(abs(share) + hair) == percent(round(abs(share) + hair, 4))


def test_report_holds_the_comparisons_and_says_them(erasure, backbone, judge, model):
    model.erased = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=8)
    found = report.data["comparisons"]
    assert found["target"]["base"] == {"k": 16, "n": 16, "value": 1.0, "low": 0.8594, "high": 1.0}
    assert found["target"]["erased"]["high"] == pytest.approx(1 - 0.8594, abs=0.02)
    assert found["coref"]["base"]["n"] == 8
    (target,) = report.data["groups"]["target"]["prompts"]
    (other,) = (p for p in report.data["groups"]["coref"]["prompts"] if p["text"] == "kitty")
    sizes = [Image.open(report.folder / prompt["image"]).size for prompt in (target, other)]
    assert sizes[0] == sizes[1]  # a strip has a column for each of the seeds that all prompts share
    assert found["target"]["difference"]["significant"]
    assert not found["retain"]["difference"]["significant"]
    page = report.path_html.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert "What is significant" in page
    rows = [" ".join(re.sub("<.*?>", " ", row).split()) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    (target,) = (row for row in rows if row.startswith("the target 16 100 % "))
    assert " 0 % 0 % to 14 % -100 " in target
    assert target.endswith(" yes, hardly chance")
    (retain,) = (row for row in rows if row.startswith("training retains 8 100 % "))
    assert retain.endswith(" no, it may be chance")


def test_without_a_judge_nothing_is_compared(erasure, backbone, model):
    erasure.info["model"] = backbone.model = "somebody/some-model"
    report = evaluate(erasure, backbone=backbone, images_per_prompt=1)
    assert report.data["comparisons"] is None
