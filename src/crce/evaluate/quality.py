"""Drift of images from the base model's, their quality, and locality.

Over pairs of images x, y generated from the same seed, with values in [0, 1]:

    rmse = sqrt(mean (x - y)^2)      perceptual = 1 - SSIM(x, y)      features = 1 - cos(f(x), f(y))

SSIM is that of Wang et al. (2004): luminance, a Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03. f is what the
judge sees before it decides. Between all kept images before and after, on the same features:

    FID = |mu_x - mu_y|^2 + Tr(C_x + C_y - 2 (C_x C_y)^(1/2))      (Heusel et al., 2017)
    KID = unbiased MMD^2 with the kernel (x.y / D + 1)^3           (Binkowski et al., 2018)

As images of one seed are alike whatever the distribution, KID leaves their pairs out (Gretton et al., 2012, lemma 6,
with i != j throughout); of two equal sets it is zero.

FID is biased upwards when there are few images, so it compares only with FID over as many; KID is not.
CLIP score = 100 max(cos(image, prompt), 0), where the judge can read (Hessel et al., 2021, without their factor).

Locality is how much of what should be kept is damaged, against how near it is in meaning to what was erased:

    damage = 1 - min(1, recognised after / recognised before)      distance = 1 - cos(e(phrase), e(target))

e is the sentence embedding of the bundled MiniLM. A precise erasure damages nothing at any distance; a blunt one
damages most what is near.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from crce.evaluate.intervals import mean_of
from crce.evaluate.prompts import KEEPING
from crce.evaluate.scores import ScoredGroup
from crce.judges import Judge
from crce.judges.judge import BATCH, FeatureJudge, TextJudge
from crce.sampling.pictures import Picture


Vector = NDArray[np.float64]

SIGMA, RADIUS = 1.5, 5  # of SSIM's window, in pixels
C1, C2 = 0.01**2, 0.03**2
LUMA = np.array([0.299, 0.587, 0.114])
BINS = 5  # of the line of locality; each holds as many phrases as the others
FEWEST = 3  # phrases for it


@dataclass(frozen=True)
class Pairs:
    """The images of a prompt that both models generated, paired by seed."""

    group: str
    text: str
    before: list[Image]
    after: list[Image]


def make_pairs(
    names: Sequence[tuple[str, str]], before: Sequence[Sequence[Picture]], after: Sequence[Sequence[Picture]]
) -> list[Pairs]:
    """The pairs of each prompt, named by group and text; one with an image that failed is left out."""
    pairs = []
    for (group, text), above, below in zip(names, before, after, strict=True):
        both = [(x, y) for x, y in zip(above, below, strict=True) if x is not None and y is not None]
        pairs.append(Pairs(group, text, [x for x, _ in both], [y for _, y in both]))
    return pairs


def measure_quality(pairs: Sequence[Pairs], judge: Judge | None) -> dict[str, Any]:
    """Drift of every group, and the quality of what should be kept; the judge brings features, and reads prompts.

    Returns:
        "groups": for each group the mean "rmse", "perceptual" and "features", each {"value", "low", "high", "n"}, and
        "clip_score" {"base", "erased"}; "kept": "fid", "kid", "n" and "d" of its features. What can't be measured is
        None.
    """
    groups: dict[str, Any] = {}
    kept: tuple[list[Vector], list[Vector]] = ([], [])
    for name in dict.fromkeys(pair.group for pair in pairs):
        own = [pair for pair in pairs if pair.group == name]
        before, after = [x for p in own for x in p.before], [y for p in own for y in p.after]
        couples = list(zip(before, after, strict=True))
        f_before, f_after = features(judge, before), features(judge, after)
        groups[name] = {
            "rmse": _mean((rmse(x, y) for x, y in couples), own),
            "perceptual": _mean((1 - ssim(x, y) for x, y in couples), own),
            "features": None,
            "clip_score": _clip_scores(judge, before, after, [p.text for p in own for _ in p.before]),
        }
        if f_before is not None and f_after is not None:
            norms = np.linalg.norm(f_before, axis=1) * np.linalg.norm(f_after, axis=1)
            groups[name]["features"] = _mean(1 - (f_before * f_after).sum(1) / np.maximum(norms, 1e-12), own)
            if name in KEEPING:
                kept[0].append(f_before)
                kept[1].append(f_after)
    x, y = (np.concatenate(part) if part else np.empty((0, 0)) for part in kept)
    distances = None
    if len(x) > 1:
        distances = {"fid": round(fid(x, y), 4), "kid": round(kid(x, y), 6), "n": len(x), "d": x.shape[1]}
    return {"groups": groups, "kept": distances}


def rmse(x: Image, y: Image) -> float:
    """Root mean squared difference of two images of one size, in [0, 1]."""
    return float(np.sqrt(((_array(x) - _array(y)) ** 2).mean()))


def ssim(x: Image, y: Image) -> float:
    """Structural similarity of two images of one size, at most 1; images smaller than its window count whole."""
    from scipy.ndimage import gaussian_filter

    a, b = _array(x) @ LUMA, _array(y) @ LUMA

    def blur(values: Vector) -> Vector:
        return gaussian_filter(values, SIGMA, truncate=RADIUS / SIGMA)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    similar = ((2 * mean_a * mean_b + C1) * (2 * cov + C2)) / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))
    inner = similar[RADIUS:-RADIUS, RADIUS:-RADIUS]
    return float((inner if inner.size else similar).mean())


def fid(x: Vector, y: Vector) -> float:
    """Fréchet distance of two sets of features, shapes (N, D) and (M, D), each of two images or more.

    With C = A^T A for the centred and scaled features A, the trace of (C_x C_y)^(1/2) is the sum of the singular
    values of A_x A_y^T, which also holds where there are fewer images than features.
    """
    a, b = (part - part.mean(0) for part in (x, y))
    a, b = a / np.sqrt(len(a) - 1), b / np.sqrt(len(b) - 1)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2 * shared
    return float(max(distance, 0.0))


def kid(x: Vector, y: Vector) -> float:
    """Kernel distance of two sets of features paired by seed, each of shape (N, D), of two images or more."""

    def mean(a: Vector, b: Vector) -> float:
        k = (a @ b.T / a.shape[1] + 1) ** 3
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def features(judge: Judge | None, images: Sequence[Image]) -> Vector | None:
    """The judge's features of images, shape (B, D); None if it has none, or there are no images."""
    if not isinstance(judge, FeatureJudge) or not images:
        return None
    starts = range(0, len(images), BATCH)
    return np.concatenate([judge.features(list(images[i : i + BATCH])).double().numpy() for i in starts])


def _mean(values: Iterable[float], prompts: Sequence[Pairs]) -> dict[str, Any] | None:
    """The mean of the values of all pairs with its interval over the prompts; None if there are none."""
    rest = iter(values)
    mean = mean_of([list(itertools.islice(rest, len(prompt.before))) for prompt in prompts])
    return mean.as_json() if mean.n else None


def _clip_scores(
    judge: Judge | None, before: Sequence[Image], after: Sequence[Image], texts: Sequence[str]
) -> dict[str, float] | None:
    if not isinstance(judge, TextJudge) or not before:
        return None

    def score(images: Sequence[Image]) -> float:
        starts = range(0, len(images), BATCH)
        parts = [judge.alignment(list(images[i : i + BATCH]), texts[i : i + BATCH]).numpy() for i in starts]
        return round(float(100 * np.maximum(np.concatenate(parts), 0).mean()), 2)

    return {"base": score(before), "erased": score(after)}


def _array(image: Image) -> Vector:
    return np.asarray(image.convert("RGB"), dtype=float) / 255


def measure_locality(
    target: str, groups: Mapping[str, ScoredGroup], distances: Callable[[str, Sequence[str]], Sequence[float]]
) -> dict[str, Any] | None:
    """The damage of every kept phrase that counts, with its distance from the target.

    Returns:
        "points" {"text", "group", "distance", "damage"} with the nearest first, "line" [[distance, damage], ...] of
        their means in up to five bins, and "correlation", Spearman's, None where all damage is alike. None with fewer
        than three phrases.
    """
    from scipy.stats import spearmanr

    found = [(name, prompt) for name in KEEPING for prompt in groups[name].scored if prompt.base]
    if len(found) < FEWEST:
        return None
    points: list[dict[str, Any]] = []
    for (name, p), away in zip(found, distances(target, [prompt.text for _, prompt in found]), strict=True):
        damage = round(1 - min(1.0, p.erased / p.base), 4)
        points.append({"text": p.text, "group": name, "distance": round(float(away), 4), "damage": damage})
    points.sort(key=lambda point: point["distance"])
    values = np.array([(p["distance"], p["damage"]) for p in points])
    line = [part.mean(0) for part in np.array_split(values, min(BINS, len(values) // 2))] if len(values) > 3 else []
    correlation = None if np.ptp(values, axis=0).min() == 0 else round(float(spearmanr(*values.T).statistic), 4)
    rounded = [[round(float(x), 4), round(float(y), 4)] for x, y in line]
    return {"points": points, "line": rounded, "correlation": correlation}


def embedding_distances(phrase: str, others: Sequence[str]) -> list[float]:
    """1 less the cosine of the bundled embedding, in [0, 2].

    Raises:
        ModelError: the package that carries the embedding is missing.
    """
    from crce.demo.embedding import load_embedder

    return [1 - float(cosine) for cosine in load_embedder().similarity([phrase], others)[0]]


def draw_locality(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The curve in a square of 100 by 100 with the origin above left; None if there is none.

    Returns:
        "dots" {"x", "y", "group", "title"}, "line" (SVG points), and "first" and "last" distance of the axis.
    """
    if found is None:
        return None
    away = [point["distance"] for point in found["points"]]
    first = math.floor(10 * min(away)) / 10
    last = max(math.ceil(10 * max(away)) / 10, first + 0.1)

    def place(distance: float, damage: float) -> tuple[float, float]:
        return round(100 * (distance - first) / (last - first), 2), round(100 - 100 * damage, 2)

    dots = []
    for point in found["points"]:
        x, y = place(point["distance"], point["damage"])
        title = f"{point['text']}: distance {point['distance']:.2f}, damage {100 * point['damage']:.0f} %"
        dots.append({"x": x, "y": y, "group": point["group"], "title": title})
    line = " ".join(f"{x:g},{y:g}" for x, y in (place(*pair) for pair in found["line"]))
    return {"dots": dots, "line": line, "first": first, "last": last, "correlation": found["correlation"]}
