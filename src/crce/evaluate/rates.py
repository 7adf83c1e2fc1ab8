"""How often the judge recognises a group before and after, how sure that is, and whether the change may be chance.

A rate has the interval of Wilson (1927). The difference of two rates is taken picture by picture, on the same seeds;
its interval is a bootstrap over prompts and the pictures within them, and its p-value that of McNemar's exact test
(1947), a binomial test over the pictures that changed. A difference counts as significant when both say so: with few
pictures that all agree, the bootstrap alone would be too sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crce.evaluate.metrics import CONFIDENCE, Recognition, resample
from crce.evaluate.scores import ScoredGroup
from crce.evaluate.verdict import percent


ALPHA = 1 - CONFIDENCE
TITLES = {
    "target": "the target",
    "coref": "training corefs",
    "coref_held_out": "held-out corefs",
    "retain": "training retains",
    "retain_held_out": "held-out retains",
    "unrelated": "unrelated prompts",
}


@dataclass(frozen=True)
class Rate:
    """k of n pictures recognised, with the 95 % Wilson interval of their share."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, **_rounded(value=self.value, low=self.low, high=self.high)}


@dataclass(frozen=True)
class Difference:
    """The rate after less the rate before, on the same seeds.

    Attributes:
        value: in [-1, 1]; negative where less is recognised.
        low: of the 95 % bootstrap interval.
        high: of the same.
        p: of McNemar's exact test.
        lost: pictures recognised before and not after.
        gained: pictures recognised after and not before.
    """

    value: float
    low: float
    high: float
    p: float
    lost: int
    gained: int

    @property
    def significant(self) -> bool:
        """Whether chance is no likely reason for the difference."""
        return self.p < ALPHA and not self.low <= 0 <= self.high

    def as_json(self) -> dict[str, Any]:
        numbers = _rounded(value=self.value, low=self.low, high=self.high, p=self.p)
        return {**numbers, "lost": self.lost, "gained": self.gained, "significant": self.significant}


@dataclass(frozen=True)
class Comparison:
    """A group before and after."""

    base: Rate
    erased: Rate
    difference: Difference

    def as_json(self) -> dict[str, Any]:
        return {name: part.as_json() for name, part in vars(self).items()}


def wilson(k: int, n: int) -> Rate:
    """k of n, with the Wilson interval of the share; n is at least 1."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(k, n, k / n, float(interval.low), float(interval.high))


def compare(prompts: Sequence[Recognition], *, seed: int = 0) -> Comparison | None:
    """Compare a group before and after; None if it has no pictures.

    Args:
        prompts: recognitions of the prompts that count.
        seed: of the bootstrap.
    """
    from scipy.stats import binomtest

    prompts = [p for p in prompts if p.base.size]
    if not prompts:
        return None
    base = np.concatenate([p.base for p in prompts])
    erased = np.concatenate([p.erased for p in prompts])
    lost, gained = int((base & ~erased).sum()), int((erased & ~base).sum())
    after, before, n = resample(prompts, np.random.default_rng(seed))
    low, high = np.percentile((after - before) / n, [50 * ALPHA, 100 - 50 * ALPHA])
    value = float(erased.mean() - base.mean())
    p = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    difference = Difference(value, min(float(low), value), max(float(high), value), float(p), lost, gained)
    return Comparison(wilson(int(base.sum()), base.size), wilson(int(erased.sum()), erased.size), difference)


def compare_groups(groups: Mapping[str, ScoredGroup], *, seed: int = 0) -> dict[str, Comparison | None]:
    """Every group before and after; None for one that can't be measured."""
    return {name: compare(g.recognitions, seed=seed + i) for i, (name, g) in enumerate(groups.items())}


def comparisons_json(compared: Mapping[str, Comparison | None]) -> dict[str, Any]:
    """Every group before and after, as report.json holds it."""
    return {name: comparison.as_json() if comparison else None for name, comparison in compared.items()}


def say_significance(compared: Mapping[str, Comparison | None]) -> list[str]:
    """In sentences which differences are significant, which are not, and what could not be compared."""
    clear = [_say(name, c) for name, c in compared.items() if c and c.difference.significant]
    unclear = [_say(name, c) for name, c in compared.items() if c and not c.difference.significant]
    missing = [TITLES[name] for name, c in compared.items() if c is None]
    sentences = []
    if clear:
        sentences.append(f"Significant, so hardly chance: {'; '.join(clear)}.")
    if unclear:
        sentences.append(f"Not significant, so it may be chance or nothing at all: {'; '.join(unclear)}.")
    if missing:
        sentences.append(f"Not compared, as nothing of it can be measured: {', '.join(missing)}.")
    return sentences


def _say(name: str, c: Comparison) -> str:
    d = c.difference
    return (
        f"{TITLES[name]} {percent(c.base.value)} → {percent(c.erased.value)} "
        f"({points(d.value)} points, {points(d.low)} to {points(d.high)}, p {_p(d.p)})"
    )


def points(share: float) -> str:
    """A difference of shares in percentage points: "+5", "-12", "0"."""
    rounded = round(100 * share)
    return f"{rounded:+d}" if rounded else "0"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _rounded(**numbers: float) -> dict[str, float]:
    return {name: round(number, 4) for name, number in numbers.items()}
