"""The loss curve of a run as points of an SVG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crce.files import read_json


TERMS = ("loss", "target", "coref", "retain")
POINTS = 160  # per line; more can't be seen
WINDOWS = 25  # the moving average is this fraction of the run wide


def read_trace(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, oldest first, without a last one that is being written; none without it."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    rows = ",".join(line for line in lines if line.endswith("\n") and line.strip())
    return read_json(path, list[dict[str, Any]], "Move it away: it holds the losses alone.", text=f"[{rows}]")


def draw_curve(trace: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Smoothed lines of the loss and its terms, in a square of 100 by 100 with the origin above left.

    The rows of `trace` have "step" and any of `TERMS`; what is not a finite number is skipped.

    Returns:
        "lines" (name and SVG points of each), "top" (the loss at the upper edge), "first" and "last" step;
        None if there are fewer than two rows to draw.
    """
    lines = {name: _smooth(values) for name in TERMS if len(values := _values(trace, name)) > 1}
    if not lines:
        return None
    top = _round_up(max(float(values[:, 1].max()) for values in lines.values()))
    first = min(float(values[0, 0]) for values in lines.values())
    last = max(float(values[-1, 0]) for values in lines.values())
    drawn = {}
    for name, values in lines.items():
        x = 100 * (values[:, 0] - first) / max(last - first, 1)
        y = 100 - 100 * np.clip(values[:, 1] / top, 0, 1)
        drawn[name] = " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x, y, strict=True))
    return {"lines": drawn, "top": top, "first": int(first), "last": int(last)}


def _values(trace: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """Steps and values of one line, shape (n, 2)."""
    rows = [(row["step"], row.get(name)) for row in trace]
    kept = [(step, value) for step, value in rows if isinstance(value, int | float) and math.isfinite(value)]
    return np.array(kept, dtype=float).reshape(-1, 2)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred moving average, narrower at the ends, thinned to at most `POINTS` rows."""
    n = len(values)
    window = np.ones(2 * (n // (2 * WINDOWS)) + 1)
    means = np.convolve(values[:, 1], window, "same") / np.convolve(np.ones(n), window, "same")
    place = np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))
    return np.stack([values[place, 0], means[place]], axis=1)


def _round_up(value: float) -> float:
    """The next round number, for the label of an axis."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(k * power for k in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= k * power * (1 + 1e-9))
