"""Locality: how much of what should be kept is damaged, against how near it is in meaning to what was erased.

    damage = 1 - min(1, recognised after / recognised before)      distance = 1 - cos(e(phrase), e(target))

e is the sentence embedding of the bundled MiniLM. A precise erasure damages nothing at any distance; a blunt one
damages most what is near.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crce.evaluate.prompts import KEEPING
from crce.evaluate.scores import ScoredGroup


BINS = 5  # of the line; each holds as many phrases as the others
FEWEST = 3  # phrases for a curve


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
    alike = np.ptp(values, axis=0).min() == 0
    correlation = None if alike else round(float(spearmanr(*values.T).statistic), 4)
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
