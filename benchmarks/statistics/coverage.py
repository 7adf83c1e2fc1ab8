"""How often the intervals that crce prints hold the truth, by simulation:

    python benchmarks/statistics/coverage.py

Writes coverage.json beside this file: {interval, groups, values, truth, correlation, coverage, runs}. Prompts
(concepts) differ: the share of each is drawn from a beta distribution around the truth, so that its images (seeds) are
correlated. The base model draws nine images of ten. An interval that is "open" is that of an evaluation that goes on
until its numbers are decided, at 4, 8 or 16 images of a prompt.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crce.evaluate.evaluation import decided
from crce.evaluate.intervals import Measure, mean_of
from crce.evaluate.settings import LOOKS, PROBES, ConceptSetSettings, target_images
from crce.evaluate.stats import Recognition, compare, summarise


DRAWN = 0.9  # share of the base model's images that are recognised
OPEN_RUNS = 500  # simulations of each row of an open evaluation, at most
Simulated = tuple[float, float | None, float | None]  # the truth and an interval


def shares(rng: np.random.Generator, truth: float, correlation: float, groups: int) -> NDArray[np.float64]:
    """The share of each group, whose values have this correlation."""
    if not correlation or groups == 1:  # the one target of an erasure is no sample of targets
        return np.full(groups, truth)
    size = 1 / correlation - 1
    return rng.beta(truth * size, (1 - truth) * size, groups)


def prompts(rng: np.random.Generator, kept: float, correlation: float, groups: int, images: int) -> list[Recognition]:
    """Prompts of which a share of the base model's recognised images is recognised after the erasure."""
    found = []
    for share in shares(rng, kept, correlation, groups):
        base, probe = rng.random(images) < DRAWN, rng.random(PROBES) < DRAWN
        found.append(Recognition(base, base & (rng.random(images) < share), probe))
    return found


def headline(name: str) -> Callable[..., Simulated]:
    """A number of a report: of one target with twice the images, of corefs, retains and unrelated prompts."""

    def simulate(rng, truth, correlation, groups, images) -> Simulated:
        target = prompts(rng, 1 - truth, 0, 1, 2 * images)
        corefs = prompts(rng, 1 - truth, correlation, groups, images)
        kept = (prompts(rng, truth, correlation, groups, images) for _ in range(2))
        found = summarise([target, corefs, *kept])[name]
        return truth, found.low, found.high

    return simulate


@functools.cache
def open_numbers(seed: int, truth: float, correlation: float, groups: int, images: int) -> dict[str, Measure]:
    """The numbers with which an open evaluation ends."""
    rng, alpha = np.random.default_rng(seed), ConceptSetSettings(eval_minutes=1).alpha
    target = prompts(rng, 1 - truth, 0, 1, target_images(images))
    corefs, retains, unrelated = (
        prompts(rng, kept, correlation, groups, images) for kept in (1 - truth, truth, truth)
    )

    def first(group: list[Recognition], n: int) -> list[Recognition]:
        return [replace(p, base=p.base[:n], erased=p.erased[:n], alpha=alpha) for p in group]

    for count in LOOKS:
        others = (first(group, count) for group in (corefs, retains, unrelated))
        found = summarise([first(target, target_images(count)), *others])
        if decided({name: measure.as_json() for name, measure in found.items()}):
            break
    return found


def open_headline(name: str) -> Callable[..., Simulated]:
    """A number of a report whose number of images was open."""

    def simulate(rng, truth, correlation, groups, images) -> Simulated:
        found = open_numbers(int(rng.integers(2**32)), truth, correlation, groups, images)[name]
        return truth, found.low, found.high

    return simulate


def difference(rng, truth, correlation, groups, images) -> Simulated:
    """The rate of a group after less its rate before."""
    found = compare(prompts(rng, truth, correlation, groups, images)).difference
    return DRAWN * (truth - 1), found.low, found.high


def rate(rng, truth, correlation, groups, images) -> Simulated:
    """The rate of a group after."""
    found = compare(prompts(rng, truth / DRAWN, correlation, groups, images)).erased
    return truth, found.low, found.high


def mean(rng, truth, correlation, groups, images) -> Simulated:
    """A mean of a benchmark, over concepts and seeds: a number of each is near that of its concept."""
    own = shares(rng, truth, correlation, groups)
    found = mean_of([list(np.clip(share + rng.normal(0, 0.03, images), 0, 1)) for share in own])
    return truth, found.low, found.high


INTERVALS: dict[str, tuple[Callable[..., Simulated], list[tuple[int, int]], list[float], list[float]]] = {
    # what, [(groups, values of each)], truths, correlations
    "erased": (headline("erased"), [(1, 8)], [0.6, 0.8, 0.95], [0.0]),
    "coref_erased": (headline("coref_erased"), [(5, 8), (10, 8)], [0.6, 0.8, 0.95], [0.1, 0.2, 0.3]),
    "kept": (headline("kept"), [(5, 8), (10, 8)], [0.6, 0.8, 0.95], [0.1, 0.2, 0.3]),
    "unrelated": (headline("unrelated"), [(6, 8)], [0.6, 0.95], [0.2]),
    "H": (headline("H"), [(5, 8), (10, 8)], [0.6, 0.8, 0.95], [0.2]),
    "H3": (headline("H3"), [(5, 8), (10, 8)], [0.6, 0.8, 0.95], [0.1, 0.2, 0.3]),
    "rate": (rate, [(1, 16), (5, 8), (10, 8)], [0.3, 0.6, 0.8], [0.1, 0.2, 0.3]),
    "difference": (difference, [(1, 16), (5, 8), (10, 8)], [0.1, 0.4, 0.8], [0.1, 0.2, 0.3]),
    **{
        f"{name}, open": (open_headline(name), [(5, LOOKS[-1])], [0.6, 0.8, 0.95], [0.1, 0.3])
        for name in ("erased", "coref_erased", "kept", "H")
    },
    "mean over concepts": (mean, [(6, 3), (10, 3), (20, 2)], [0.6, 0.8, 0.9], [0.05, 0.1]),
}


def simulate(name: str, runs: int, seed: int = 0) -> list[dict[str, float | int | str]]:
    """The coverage of an interval over its sizes, truths and correlations."""
    what, sizes, truths, correlations = INTERVALS[name]
    rows: list[dict[str, float | int | str]] = []
    for (groups, values), truth, correlation in itertools.product(sizes, truths, correlations):
        if groups == 1 and correlation != correlations[0]:
            continue
        rng = np.random.default_rng(seed)
        drawn = [what(rng, truth, correlation, groups, values) for _ in range(runs)]
        held = [low <= true <= high for true, low, high in drawn if low is not None and high is not None]
        sizes_of = {"groups": groups, "values": 2 * values if name.startswith("erased") else values}
        rows.append(
            {
                "interval": name,
                **sizes_of,
                "truth": truth,
                "correlation": correlation if groups > 1 else 0.0,
                "coverage": round(float(np.mean(held)), 3),
                "runs": runs,
            }
        )
    return rows


def main() -> None:
    from crce.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulations of each row")
    parser.add_argument("--only", nargs="+", default=list(INTERVALS), choices=INTERVALS, help="the others are kept")
    args = parser.parse_args()
    path = Path(__file__).with_name("coverage.json")
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = []
    for name in INTERVALS:
        kept = [row for row in known if row["interval"] == name]
        runs = min(args.runs, OPEN_RUNS) if "open" in name else args.runs
        rows += simulate(name, runs) if name in args.only or not kept else kept
    write_json(path, {"base_model_draws": DRAWN, "rows": rows})
    for name in INTERVALS:
        covered = [row["coverage"] for row in rows if row["interval"] == name]
        print(f"{name:20} {min(covered):.3f} to {max(covered):.3f}")


if __name__ == "__main__":
    main()
