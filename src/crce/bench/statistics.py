"""Means over concepts and seeds with intervals, and tests of the difference between two rows of a table.

An interval is Student's t over the means of the concepts, as seeds of one concept are not independent. For the same
reason a comparison flips the signs of whole concepts: without a difference, the mean difference of each concept would
be as likely to be negative as positive.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crce.evaluate.intervals import Measure, mean_of


SIGNIFICANT = 0.05
EXACT = 12  # up to this number of concepts all signs are tried
FLIPS = 10_000  # random signs beyond it


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two rows, over the concepts and seeds that both have, and the number of concepts."""

    mean: Measure
    concepts: int
    p: float | None  # two-sided, of the sign-flip test over concepts; None without any

    @property
    def least_p(self) -> float:
        """The smallest p-value that this number of concepts can give."""
        return 2.0 ** (1 - self.concepts)

    def as_json(self) -> dict[str, Any]:
        return {**self.mean.as_json(), "concepts": self.concepts, "p": None if self.p is None else round(self.p, 5)}


def difference(base: Mapping[str, Mapping[int, float]], other: Mapping[str, Mapping[int, float]]) -> PairedDifference:
    """`other` minus `base`, both by concept and seed.

    A row without a random choice has one seed, which is compared with all of the other's.
    """
    both: dict[str, list[float]] = {}
    for concept in (name for name in other if name in base):
        x, y = base[concept], other[concept]
        single = 1 in (len(x), len(y))
        pairs = [(x[i], y[j]) for i, j in itertools.product(x, y) if single or i == j]
        both |= {concept: [b - a for a, b in pairs]} if pairs else {}
    means = np.array([np.mean(values) for values in both.values()])
    return PairedDifference(mean_of(list(both.values())), len(both), _sign_flip(means) if len(both) else None)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values of several comparisons, adjusted for their number by Holm's method (1979)."""
    order = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def _sign_flip(means: NDArray[np.float64]) -> float:
    """Two-sided p-value: the share of signs that give a mean at least as far from zero as the observed one."""
    n = len(means)
    if n <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
    else:  # the observed signs are one of the samples, so that p is never 0
        signs = np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, n))])
    return float((np.abs(signs @ means) >= abs(means.sum()) - 1e-9).mean())
