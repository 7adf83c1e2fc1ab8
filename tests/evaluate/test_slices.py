"""Evaluations whose number of images is open: slices, looks, minutes, and intervals that take account of them."""

from __future__ import annotations

import pytest

from crce.evaluate import Drawn, evaluate
from crce.evaluate.evaluation import decided


GONE = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}
NAMES = ("erased", "coref_erased", "kept")


def numbers(*bounds):
    return {
        name: {"value": None if low is None else (low + high) / 2, "low": low, "high": high}
        for name, (low, high) in zip(NAMES, bounds, strict=True)
    }


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([(0.91, 1.0), (0.76, 0.99), (0.3, 0.7)], True),  # each beyond its threshold
        ([(0.85, 1.0), (0.76, 0.99), (0.3, 0.7)], True),  # or precise
        ([(0.79, 1.0), (0.76, 0.99), (0.3, 0.7)], False),
        ([(0.91, 1.0), (0.76, 0.99), (0.5, 0.8)], False),
        ([(None, None), (0.76, 0.99), (0.3, 0.7)], True),  # more images can't measure what is not there
    ],
)
def test_decided_is_beyond_the_threshold_or_precise(bounds, expected):
    assert decided(numbers(*bounds)) is expected


def test_an_open_evaluation_goes_on_until_it_is_decided_and_generates_no_image_twice(
    erasure, backbone, judge, model, tmp_path
):
    model.erased = GONE
    events = []
    report = evaluate(erasure, judge=judge, backbone=backbone, eval_minutes=5, on_event=events.append)
    assert events[0] == Drawn(0, 40, "until the intervals decide, at most 392 images in 5 minutes")
    settings = report.data["settings"]
    assert (settings["images_per_prompt"], settings["eval_minutes"]) == (16, 5)
    assert len(model.calls) == len(set(model.calls)) == 392
    fixed = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=16)
    assert "eval_minutes" not in fixed.data["settings"]
    for name in (*NAMES, "H"):
        assert report.summary[name]["value"] == fixed.summary[name]["value"]
        assert report.summary[name]["low"] < fixed.summary[name]["low"]
    p, once = (each.data["comparisons"]["target"]["difference"]["p"] for each in (report, fixed))
    assert p == pytest.approx(3 * once, abs=2e-4)


def test_it_ends_within_its_minutes_and_at_the_first_look_where_nothing_can_be_measured(
    erasure, backbone, judge, model
):
    short = evaluate(erasure, judge=judge, backbone=backbone, eval_minutes=1e-6)
    assert short.data["settings"]["images_per_prompt"] == 1
    model.base = {text: ["tree"] for text in ("cat", "kitty", "kitten", "feline", "dog", "puppy", "vixen", "fox")}
    nothing = evaluate(erasure, judge=judge, backbone=backbone, eval_minutes=5, seed=50)
    assert nothing.summary["erased"]["value"] is None
    assert nothing.data["settings"]["images_per_prompt"] == 4


def test_a_number_of_images_beside_minutes_is_the_most(erasure, backbone, judge, model):
    model.erased = GONE
    report = evaluate(erasure, judge=judge, backbone=backbone, eval_minutes=5, images_per_prompt=3)
    assert report.data["settings"]["images_per_prompt"] == 3
    assert len(model.calls) == 90
