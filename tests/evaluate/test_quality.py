"""Drift, FID, KID, CLIP score and locality, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourJudge, stripes
from PIL import Image
from scipy.linalg import sqrtm

from crce.evaluate import evaluate
from crce.evaluate.quality import (
    Pairs,
    draw_locality,
    embedding_distances,
    fid,
    kid,
    make_pairs,
    measure_locality,
    measure_quality,
    rmse,
    ssim,
)


RNG = np.random.default_rng(0)


def noise(size: int = 32, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def plain(value: int, size: int = 32) -> Image.Image:
    return Image.new("RGB", (size, size), (value, value, value))


class SeeingJudge(ColourJudge):
    """Sees the mean colour, and reads a prompt as the colour that it means."""

    def features(self, images):
        return torch.from_numpy(np.array([np.asarray(i, dtype=float).mean((0, 1)) / 255 for i in images]))

    def alignment(self, images, texts):
        colours = torch.tensor([COLOURS[self.class_of(text) or "tree"] for text in texts], dtype=torch.float64)
        return torch.nn.functional.cosine_similarity(self.features(images), colours)


def test_rmse():
    assert rmse(plain(0), plain(255)) == 1
    assert rmse(plain(10), plain(61)) == pytest.approx(51 / 255)
    assert rmse(noise(), noise()) == 0


def test_ssim_of_flat_pictures_is_its_luminance_term():
    a, b, c1 = 60 / 255, 120 / 255, 0.01**2
    assert ssim(plain(60), plain(120)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


def test_ssim_against_the_formula_at_one_pixel():
    """An 11-pixel picture has one window that fits: its middle."""
    x, y = (np.asarray(noise(11, seed)) @ np.array([0.299, 0.587, 0.114]) / 255 for seed in (1, 2))
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
    cov = (window * x * y).sum() - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(noise(11, 1), noise(11, 2)) == pytest.approx(expected, abs=1e-9)


def test_ssim_falls_with_what_is_changed():
    picture = noise()
    assert ssim(picture, picture) == pytest.approx(1)
    half = picture.copy()
    half.paste(noise(seed=5).crop((0, 0, 16, 32)), (0, 0))
    assert 0 < ssim(picture, noise(seed=5)) < ssim(picture, half) < 1
    assert ssim(plain(10, 4), plain(10, 4)) == pytest.approx(1)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 5), (8, 6, 12)])
def test_fid_against_the_matrix_square_root(n, m, d):
    x, y = RNG.normal(size=(n, d)), RNG.normal(0.5, 2, size=(m, d))
    cx, cy = np.cov(x.T), np.cov(y.T)
    root = sqrtm(cx @ cy + (1e-12 * np.eye(d) if d > n else 0)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)
    assert fid(x, y) == pytest.approx(expected, rel=1e-4)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_kid_against_the_sums():
    x, y = RNG.normal(size=(5, 3)), RNG.normal(1, 1, size=(5, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs) / 20
    assert kid(x, y) == pytest.approx(expected)
    assert kid(x, x) == pytest.approx(0, abs=1e-12)


def test_kid_of_pairs_that_are_alike_is_zero_on_average():
    """Pictures of one seed resemble each other also where the distribution is the same."""
    values = []
    for _ in range(200):
        shared = RNG.normal(size=(20, 4))
        values.append(kid(shared + RNG.normal(0, 0.3, (20, 4)), shared + RNG.normal(0, 0.3, (20, 4))))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_kid_of_one_distribution_is_zero_on_average():
    values = [kid(RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_failed_pictures_are_left_out_in_pairs():
    (pair,) = make_pairs([("retain", "dog")], [[plain(1), None, plain(3)]], [[plain(4), plain(5), None]])
    assert (pair.group, pair.text, len(pair.before), len(pair.after)) == ("retain", "dog", 1, 1)
    assert measure_quality([Pairs("target", "cat", [], [])], None)["groups"]["target"]["rmse"] is None


def test_quality_of_groups_and_of_what_is_kept():
    red, green = stripes(COLOURS["cat"]), stripes(COLOURS["dog"])
    pairs = [
        Pairs("target", "cat", [red] * 3, [green] * 3),
        Pairs("retain", "dog", [green] * 3, [green] * 3),
        Pairs("unrelated", "cat", [red] * 3, [red] * 3),
    ]
    found = measure_quality(pairs, SeeingJudge())
    target, retain = found["groups"]["target"], found["groups"]["retain"]
    assert target["rmse"]["value"] == pytest.approx(rmse(red, green), abs=1e-4)
    assert target["perceptual"]["value"] == pytest.approx(1 - ssim(red, green), abs=1e-4)
    assert target["features"]["value"] > 0.1
    assert target["clip_score"]["erased"] < target["clip_score"]["base"] < 100.01
    for name in ("rmse", "perceptual", "features"):
        assert retain[name] == {"value": 0, "low": None, "high": None, "n": 3}
    assert found["kept"] == {"fid": 0, "kid": pytest.approx(0, abs=1e-9), "n": 6, "d": 3}


def test_judge_without_features_leaves_the_pairs(judge):
    found = measure_quality([Pairs("retain", "dog", [noise()] * 2, [noise(seed=1)] * 2)], judge)
    assert found["kept"] is None
    assert found["groups"]["retain"]["features"] is None
    assert found["groups"]["retain"]["clip_score"] is None
    assert found["groups"]["retain"]["rmse"]["value"] > 0.2


def test_locality_is_damage_against_distance(scored):
    groups = scored(
        retain=[("dog", 6, 3), ("wolf", 6, 6)],
        retain_held_out=[("tiger", 4, 0), ("undrawable", 1, 0)],
        unrelated=[("ship", 6, 6)],
        target=[("cat", 6, 0)],
    )
    away = {"dog": 0.4, "wolf": 0.5, "tiger": 0.3, "ship": 0.9}
    found = measure_locality("cat", groups, lambda phrase, others: [away[text] for text in others])
    assert [(p["text"], p["group"], p["distance"], p["damage"]) for p in found["points"]] == [
        ("tiger", "retain_held_out", 0.3, 1.0),
        ("dog", "retain", 0.4, 0.5),
        ("wolf", "retain", 0.5, 0.0),
        ("ship", "unrelated", 0.9, 0.0),
    ]
    assert found["line"] == [[0.35, 0.75], [0.7, 0.0]]
    assert found["correlation"] == pytest.approx(-0.9487, abs=1e-4)  # ranks 1 2 3 4 against 4 3 1.5 1.5


def test_locality_without_damage_has_no_correlation_and_without_phrases_no_curve(scored):
    whole = scored(retain=[("dog", 6, 6), ("wolf", 6, 6), ("fox", 6, 6)])
    found = measure_locality("cat", whole, lambda phrase, others: [0.1, 0.2, 0.3])
    assert found["correlation"] is None
    assert {p["damage"] for p in found["points"]} == {0}
    assert measure_locality("cat", scored(retain=[("dog", 6, 6)]), lambda *_: [0.1]) is None
    assert draw_locality(None) is None


def test_curve_of_locality_lies_in_its_square(scored):
    groups = scored(retain=[("dog", 6, 3), ("wolf", 6, 6), ("fox", 6, 0)])
    drawn = draw_locality(measure_locality("cat", groups, lambda *_: [0.31, 0.55, 0.78]))
    assert (drawn["first"], drawn["last"]) == (0.3, 0.8)
    assert [(d["x"], d["y"]) for d in drawn["dots"]] == [(2.0, 50.0), (50.0, 100.0), (96.0, 0.0)]
    assert drawn["dots"][0]["title"] == "dog: distance 0.31, damage 50 %"


def test_bundled_embedding_puts_kinds_nearer_than_strangers():
    kitten, dog, bridge = embedding_distances("cat", ["kitten", "dog", "a stone bridge"])
    assert 0 < kitten < dog < bridge < 1.2


def test_report_shows_quality_when_asked(erasure, backbone, model):
    model.erased = {"cat": ["dog"], "kitty": ["dog"], "puppy": ["fox"]}
    plain_report = evaluate(erasure, judge=SeeingJudge(), backbone=backbone, images_per_prompt=2)
    assert plain_report.data["quality"] is None
    assert "Drift and quality" not in plain_report.path_html.read_text(encoding="utf-8")
    report = evaluate(erasure, judge=SeeingJudge(), backbone=backbone, images_per_prompt=2, quality=True)
    page = report.path_html.read_text(encoding="utf-8")
    assert "Drift and quality" in page
    assert "FID" in page
    assert page.count('<path class="dot-') == 5 + 3  # dog, puppy, vixen, ship, tree, and the legend
    damage = {p["text"]: p["damage"] for p in report.data["locality"]["points"]}
    assert damage == {"dog": 0, "puppy": 1, "vixen": 0, "ship": 0, "tree": 0}
    assert report.data["summary"] == plain_report.data["summary"]
    assert "--quality" in page
