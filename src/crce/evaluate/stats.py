"""Recognition before and after an erasure: shares, intervals and tests.

Relative to what the base model draws. Over the drawable prompts of a group, with b of n images of the base model and a
of the erased model recognised:

    erased = 1 - sum a / sum b      kept = min(1, sum a / sum b)      H = 3 / (1/erased + 1/coref_erased + 1/kept)

Dividing by b is stricter than 1 - a / n: a target that the base model drew in half of its images, and the erased model
in a quarter of them, is erased by half, not by three quarters.

As rates. A rate is k / n of all images. The difference of two rates is taken image by image, on the same seeds; its
p-value is that of McNemar's exact test (1947), a binomial test over the images that changed. A difference counts as
significant when both its interval and the test say so.

Intervals of shares and rates are those of Jeffreys, a beta distribution with k + 1/2 and n - k + 1/2; of a difference,
a Dirichlet distribution of lost, gained and unchanged images in the same way. So they have a width also where all
images agree. n is divided by the design effect 1 + (m - 1) rho (Kish 1965), as m images of one prompt say less than
those of m prompts: rho is estimated by the analysis of variance and drawn towards `CORRELATION`, since a handful of
prompts can't tell it, and n is reduced once more by Student's t for their number (Korn and Graubard 1998). Where the
numbers decide whether there are more images, the 5 % outside are split over the looks at them (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


SAMPLES = 5000
ENOUGH = 5  # groups for the interval of a mean
CORRELATION = 0.2  # of the images of a prompt, as far as a group's own prompts do not tell it
OWN_WEIGHT = 4  # prompts that this counts as
DRAWABLE_SHARE = 0.5
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
MEASURES = ("erased", "coref_erased", "kept")


@dataclass(frozen=True)
class Recognition:
    """Which images of a prompt the judge recognised, those of both models paired by seed: shape (n,), bool."""

    base: NDArray[np.bool_]
    erased: NDArray[np.bool_]
    alpha: float = ALPHA  # the probability outside intervals, smaller at each of several looks

    @property
    def drawable(self) -> bool:
        """Whether the base model's images are recognised often enough for the prompt to measure anything."""
        return self.base.size > 0 and bool(self.base.mean() >= DRAWABLE_SHARE)


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
        own = {**_rounded(self, "value", "low", "high"), "n": self.n}
        return {**own, "reason": self.reason} if self.reason else own


@dataclass(frozen=True)
class Rate:
    """k of n images recognised, with the 95 % interval of their share."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, **_rounded(self, "value", "low", "high")}


@dataclass(frozen=True)
class RateDifference:
    """The rate after less the rate before, on the same seeds, with its 95 % interval.

    `p` is that of McNemar's exact test; `lost` are images recognised before alone, `gained` those after alone.
    """

    value: float
    low: float
    high: float
    p: float
    lost: int
    gained: int

    @property
    def significant(self) -> bool:
        """Whether chance is an unlikely reason for the difference."""
        return self.p < ALPHA and not self.low <= 0 <= self.high

    def as_json(self) -> dict[str, Any]:
        numbers = _rounded(self, "value", "low", "high", "p")
        return {**numbers, "lost": self.lost, "gained": self.gained, "significant": self.significant}


@dataclass(frozen=True)
class RateComparison:
    """The rates of a group before and after, and their difference."""

    base: Rate
    erased: Rate
    difference: RateDifference

    def as_json(self) -> dict[str, Any]:
        return {**{name: part.as_json() for name, part in vars(self).items()}, "testable": self.testable}

    @property
    def testable(self) -> bool:
        """Whether any outcome could have been significant: with few images not even the loss of all of them is."""
        return mcnemar(max(self.base.k, self.base.n - self.base.k), 0) < ALPHA

    @property
    def complement(self) -> RateComparison:
        """The comparison of the images that are not recognised."""
        d = self.difference
        base, erased = (Rate(r.n - r.k, r.n, 1 - r.value, 1 - r.high, 1 - r.low) for r in (self.base, self.erased))
        return RateComparison(base, erased, RateDifference(-d.value, -d.high, -d.low, d.p, d.gained, d.lost))


def recognise(
    base_words: Sequence[str | None], erased_words: Sequence[str | None], expected: str, *, erasing: bool
) -> Recognition:
    """Compare the judge's words with the expected class; a word is None where there is no image.

    An image that the base model failed to generate is left out with its pair. One that the erased model failed to
    generate counts against it: as still recognised where the phrase should be gone, as not recognised where it should
    be kept.
    """
    pairs = [(b, a) for b, a in zip(base_words, erased_words, strict=True) if b is not None]
    base = np.array([b == expected for b, _ in pairs], dtype=bool)
    erased = np.array([erasing if a is None else a == expected for _, a in pairs], dtype=bool)
    return Recognition(base, erased)


def measure(
    prompts: Sequence[Recognition], *, erasing: bool, reason: str = "no prompt can be scored"
) -> tuple[Measure, NDArray[np.float64]]:
    """The erased (or kept) share of the drawable prompts of a group; if there are none, there is a `reason` instead.

    Returns:
        The measure, over the images that the base model draws recognisably, and samples of the distribution of its
        interval, shape (SAMPLES,); no samples, shape (0,), if not measurable.
    """
    drawable = [p for p in prompts if p.drawable]
    if not drawable:
        return Measure(None, None, None, 0, reason), np.empty(0)
    base, erased = (sum(int(values.sum()) for values in column) for column in _columns(drawable))
    ratio = min(1.0, erased / base)
    kept = [np.arange(p.base.sum()) < p.erased.sum() for p in drawable]
    value = 1 - ratio if erasing else ratio
    alpha = drawable[0].alpha
    samples = _samples([value, 1 - value], independent(kept, alpha))[:, 0]
    return with_interval(value, samples, base, alpha), samples


def summarise(
    target: Sequence[Recognition],
    corefs: Sequence[Recognition],
    retains: Sequence[Recognition],
    *,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Measure]:
    """The headline: erased (target), coref_erased (held-out corefs), kept (held-out retains), and their H.

    `reasons` says of each of `MEASURES` why it can't be measured, if it can't.
    """
    measures: dict[str, Measure] = {}
    samples = []
    for i, (name, prompts) in enumerate(zip(MEASURES, (target, corefs, retains), strict=True)):
        reason = (reasons or {}).get(name, "no prompt can be scored")
        measures[name], drawn = measure(prompts, erasing=name != "kept", reason=reason)
        samples.append(np.random.default_rng(i).permutation(drawn))  # the three are independent
    missing = [name for name in MEASURES if measures[name].value is None]
    if missing:
        return {**measures, "H": Measure(None, None, None, 0, f"it takes all three; missing: {', '.join(missing)}")}
    value = float(harmonic_mean(np.array([[measures[name].value] for name in MEASURES], dtype=float))[0])
    n = sum(m.n for m in measures.values())
    return {**measures, "H": with_interval(value, harmonic_mean(np.stack(samples)), n, target[0].alpha)}


def harmonic_mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean over the first axis of shares in [0, 1], shape (k, ...) -> (...); 0 wherever one of them is 0."""
    with np.errstate(divide="ignore"):
        return shares.shape[0] / (1 / shares).sum(0)


def rate_of(groups: Sequence[NDArray[np.bool_]], alpha: float = ALPHA) -> Rate:
    """The rate of the images of all prompts, those of each of shape (n_i,); there is at least one image."""
    values = np.concatenate(groups)
    value = float(values.mean())
    samples = _samples([value, 1 - value], independent(groups, alpha))[:, 0]
    return Rate(int(values.sum()), values.size, value, *interval(value, samples, alpha))


def mcnemar(lost: int, gained: int, alternative: Literal["two-sided", "less", "greater"] = "two-sided") -> float:
    """P-value of McNemar's exact test: were there no effect, half of the pairs that differ would be lost ones.

    The alternative is about the number of lost pairs: "less" asks whether more was gained than lost.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, alternative=alternative).pvalue) if lost + gained else 1.0


def compare(prompts: Sequence[Recognition]) -> RateComparison | None:
    """Compare a group of prompts before and after; None if it has no images."""
    prompts = [p for p in prompts if p.base.size]
    if not prompts:
        return None
    base, erased = _columns(prompts)
    changes = [after.astype(int) - before for before, after in zip(base, erased, strict=True)]
    every = np.concatenate(changes)
    lost, gained = int((every < 0).sum()), int((every > 0).sum())
    shares = [lost / every.size, gained / every.size, 1 - (lost + gained) / every.size]
    value, alpha = float(every.mean()), prompts[0].alpha
    samples = _samples(shares, independent(changes, alpha))
    low, high = interval(value, samples[:, 1] - samples[:, 0], alpha)
    p = min(1.0, mcnemar(lost, gained) * ALPHA / alpha)
    difference = RateDifference(value, low, high, p, lost, gained)
    return RateComparison(rate_of(base, alpha), rate_of(erased, alpha), difference)


def mean_of(groups: Sequence[Sequence[float]]) -> Measure:
    """The mean over the values of groups (the images of each prompt, the seeds of each concept), of equal weight.

    Its interval is Student's t over the means of the groups, or over the values where there is one group alone. With
    fewer than `ENOUGH` of them, or where all agree, it would say nothing and there is none. Shares, which lie in
    [0, 1], have an interval of shares.
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
    least, most = (0.0, 1.0) if 0 <= values.min() and values.max() <= 1 else (-np.inf, np.inf)
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


def with_interval(value: float, samples: NDArray[np.float64], n: int, alpha: float = ALPHA) -> Measure:
    """A value over n images with the interval of its samples."""
    return Measure(value, *interval(value, samples, alpha), n)


def interval(value: float, samples: NDArray[np.float64], alpha: float = ALPHA) -> tuple[float, float]:
    """The interval of samples, `alpha` outside; it holds the value, which percentiles can miss by a hair."""
    low, high = np.nanpercentile(samples, [50 * alpha, 100 - 50 * alpha])
    return min(float(low), value), max(float(high), value)


def _samples(shares: Sequence[float], n: float) -> NDArray[np.float64]:
    """Shares that could be behind those of n values, shape (SAMPLES, k), the same each time."""
    return np.random.default_rng(0).dirichlet(np.array(shares) * n + 0.5, SAMPLES)


def _columns(prompts: Sequence[Recognition]) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
    return [p.base for p in prompts], [p.erased for p in prompts]


def _rounded(numbers: object, *names: str) -> dict[str, float | None]:
    values = {name: getattr(numbers, name) for name in names}
    return {name: None if value is None else round(value, 4) for name, value in values.items()}
