"""95 % intervals of shares, of their differences, and of means.

Intervals of shares and rates are those of Jeffreys, a beta distribution with k + 1/2 and n - k + 1/2; of a difference,
a Dirichlet distribution of lost, gained and unchanged images in the same way. So they have a width also where all
images agree. n is divided by the design effect 1 + (m - 1) rho (Kish 1965), as m images of one prompt say less than
those of m prompts: rho is estimated by the analysis of variance and drawn towards `CORRELATION`, since a handful of
prompts can't tell it, and n is reduced once more by Student's t for their number (Korn and Graubard 1998). Where the
numbers decide whether there are more images, the 5 % outside are split over the looks at them (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


SAMPLES = 5000
ENOUGH = 5  # groups for the interval of a mean
CORRELATION = 0.2  # of the images of a prompt, as far as a group's own prompts do not tell it
OWN_WEIGHT = 4  # prompts that this counts as
ALPHA = 0.05  # of an interval of 95 %


@dataclass(frozen=True)
class Measure:
    """A number of n values with its 95 % interval, None if that can't be told; None everywhere, with a reason, if
    not measurable."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        own = {**rounded(self, "value", "low", "high"), "n": self.n}
        return {**own, "reason": self.reason} if self.reason else own


def mean_of(groups: Sequence[Sequence[float]], *, shares: bool = True) -> Measure:
    """The mean over the values of groups (the images of each prompt, the seeds of each concept), of equal weight.

    Its interval is Student's t over the means of the groups, or over the values where there is one group alone. With
    fewer than `ENOUGH` of them, or where all agree, it would say nothing and there is none. That of `shares`, if
    all lie in [0, 1], does not leave this range.
    """
    from scipy.stats import t

    lists = [np.asarray(group, dtype=float) for group in groups if len(group)]
    values = np.concatenate(lists) if lists else np.empty(0)
    if not values.size:
        return Measure(None, None, None, 0)
    value, means = float(values.mean()), values if len(lists) == 1 else np.array([own.mean() for own in lists])
    if means.size < ENOUGH or np.ptp(means) == 0:
        return Measure(value, None, None, values.size)
    half = float(t.ppf(1 - ALPHA / 2, means.size - 1) * means.std(ddof=1) / np.sqrt(means.size))
    least, most = (0.0, 1.0) if shares and 0 <= values.min() and values.max() <= 1 else (-np.inf, np.inf)
    return Measure(value, max(value - half, least), min(value + half, most), values.size)


def independent(groups: Sequence[NDArray[Any]], alpha: float = ALPHA) -> float:
    """How many independent values say as much as those of several groups, each of shape (n_i,)."""
    from scipy.stats import norm, t

    sizes = np.array([group.size for group in groups], dtype=float)
    total, count = sizes.sum(), len(groups)
    if count == 1:
        return float(total)
    values, means = np.concatenate(groups).astype(float), np.array([group.mean() for group in groups])
    between = (sizes * (means - values.mean()) ** 2).sum() / (count - 1)
    within = ((values - np.repeat(means, sizes.astype(int))) ** 2).sum() / max(1.0, total - count)
    size = (total - (sizes**2).sum() / total) / (count - 1)  # of a group, on average
    spread = between + (size - 1) * within
    own = (between - within) / spread if spread > 0 else 0.0
    rho = np.clip(((count - 1) * own + OWN_WEIGHT * CORRELATION) / (count - 1 + OWN_WEIGHT), 0, 1)
    wider = t.ppf(1 - alpha / 2, count - 1 + OWN_WEIGHT) / norm.ppf(1 - alpha / 2)
    return float(total / (1 + (size - 1) * rho) / wider**2)


def interval(value: float, samples: NDArray[np.float64], alpha: float = ALPHA) -> tuple[float, float]:
    """The interval of samples, `alpha` outside; it holds the value, which percentiles can miss by a hair."""
    low, high = np.nanpercentile(samples, [50 * alpha, 100 - 50 * alpha])
    return min(float(low), value), max(float(high), value)


def sample_shares(shares: Sequence[float], n: float) -> NDArray[np.float64]:
    """Shares that could be behind those of n values, shape (SAMPLES, k), the same each time."""
    return np.random.default_rng(0).dirichlet(np.array(shares) * n + 0.5, SAMPLES)


def rounded(numbers: object, *names: str) -> dict[str, float | None]:
    """Attributes of an object by name, to the four digits that report.json has."""
    values = {name: getattr(numbers, name) for name in names}
    return {name: None if value is None else round(value, 4) for name, value in values.items()}
