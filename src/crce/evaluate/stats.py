"""Recognition before and after an erasure: shares, intervals and tests.

Relative to what the base model draws. Over the drawable prompts of a group, with b of n images of the base model and a
of the erased model recognised:

    erased = 1 - sum a / sum b      kept = min(1, sum a / sum b)      H = 3 / (1/erased + 1/coref_erased + 1/kept)

Dividing by b is stricter than 1 - a / n: a target that the base model drew in half of its images, and the erased model
in a quarter of them, is erased by half, not by three quarters.

As rates. A rate k / n has the interval of Wilson (1927). The difference of two rates is taken image by image, on the
same seeds; its interval is a bootstrap over prompts and the images within them, and its p-value that of McNemar's
exact test (1947), a binomial test over the images that changed. A difference counts as significant when both say so:
with few images that all agree, the bootstrap alone would be too sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


RESAMPLES = 2000
DRAWABLE_SHARE = 0.5
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
MEASURES = ("erased", "coref_erased", "kept")


@dataclass(frozen=True)
class Recognition:
    """Which images of a prompt the judge recognised, those of both models paired by seed: shape (n,), bool."""

    base: NDArray[np.bool_]
    erased: NDArray[np.bool_]

    @property
    def drawable(self) -> bool:
        """Whether the base model's images are recognised often enough for the prompt to measure anything."""
        return self.base.size > 0 and bool(self.base.mean() >= DRAWABLE_SHARE)


@dataclass(frozen=True)
class Measure:
    """A share with its 95 % bootstrap interval over n images; None everywhere, with a reason, if not measurable."""

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
    """k of n images recognised, with the 95 % Wilson interval of their share."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, **_rounded(self, "value", "low", "high")}


@dataclass(frozen=True)
class RateDifference:
    """The rate after less the rate before, on the same seeds, with its 95 % bootstrap interval.

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
        return {name: part.as_json() for name, part in vars(self).items()}

    @property
    def complement(self) -> RateComparison:
        """The comparison of the images that are not recognised."""
        d = self.difference
        base, erased = (wilson(rate.n - rate.k, rate.n) for rate in (self.base, self.erased))
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
    prompts: Sequence[Recognition], *, erasing: bool, seed: int = 0, reason: str = "no prompt can be scored"
) -> tuple[Measure, NDArray[np.float64]]:
    """The erased (or kept) share of the drawable prompts of a group; if there are none, there is a `reason` instead.

    Returns:
        The measure, and its bootstrap samples, shape (RESAMPLES,); no samples, shape (0,), if not measurable.
    """
    drawable = [p for p in prompts if p.drawable]
    if not drawable:
        return Measure(None, None, None, 0, reason), np.empty(0)
    erased, base = (np.concatenate(column).sum() for column in _columns(drawable))
    value = float(_share(erased, base, erasing=erasing))
    sums, _ = resample(_columns(drawable), np.random.default_rng(seed))
    samples = _share(*sums, erasing=erasing)
    return with_interval(value, samples, sum(p.base.size for p in drawable)), samples


def summarise(
    target: Sequence[Recognition],
    corefs: Sequence[Recognition],
    retains: Sequence[Recognition],
    *,
    seed: int = 0,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Measure]:
    """The headline: erased (target), coref_erased (held-out corefs), kept (held-out retains), and their H.

    `reasons` says of each of `MEASURES` why it can't be measured, if it can't; `seed` is that of the bootstrap.
    """
    measures: dict[str, Measure] = {}
    samples = []
    for i, (name, prompts) in enumerate(zip(MEASURES, (target, corefs, retains), strict=True)):
        reason = (reasons or {}).get(name, "no prompt can be scored")
        measures[name], drawn = measure(prompts, erasing=name != "kept", seed=seed + i, reason=reason)
        samples.append(drawn)
    missing = [name for name in MEASURES if measures[name].value is None]
    if missing:
        return {**measures, "H": Measure(None, None, None, 0, f"it takes all three; missing: {', '.join(missing)}")}
    value = float(harmonic_mean(np.array([[measures[name].value] for name in MEASURES], dtype=float))[0])
    n = sum(m.n for m in measures.values())
    return {**measures, "H": with_interval(value, harmonic_mean(np.stack(samples)), n)}


def harmonic_mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean over the first axis of shares in [0, 1], shape (k, ...) -> (...); 0 wherever one of them is 0."""
    with np.errstate(divide="ignore"):
        return shares.shape[0] / (1 / shares).sum(0)


def wilson(k: int, n: int) -> Rate:
    """k of n, with the Wilson interval of the share; n is at least 1."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(k, n, k / n, float(interval.low), float(interval.high))


def mcnemar(lost: int, gained: int, alternative: Literal["two-sided", "less", "greater"] = "two-sided") -> float:
    """P-value of McNemar's exact test: were there no effect, half of the pairs that differ would be lost ones.

    The alternative is about the number of lost pairs: "less" asks whether more was gained than lost.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, alternative=alternative).pvalue) if lost + gained else 1.0


def compare(prompts: Sequence[Recognition], *, seed: int = 0) -> RateComparison | None:
    """Compare a group of prompts before and after, with a bootstrap from `seed`; None if it has no images."""
    prompts = [p for p in prompts if p.base.size]
    if not prompts:
        return None
    erased, base = (np.concatenate(column) for column in _columns(prompts))
    lost, gained = int((base & ~erased).sum()), int((erased & ~base).sum())
    (after, before), n = resample(_columns(prompts), np.random.default_rng(seed))
    value = float(erased.mean() - base.mean())
    low, high = interval(value, (after - before) / n)
    difference = RateDifference(value, low, high, mcnemar(lost, gained), lost, gained)
    return RateComparison(wilson(int(base.sum()), base.size), wilson(int(erased.sum()), erased.size), difference)


def resample(
    columns: Sequence[Sequence[NDArray[Any]]], rng: np.random.Generator
) -> tuple[list[NDArray[Any]], NDArray[np.int_]]:
    """Two-level bootstrap: groups (prompts, concepts) with replacement, then values (images, seeds) within each.

    Args:
        columns: quantities that stay paired, each with the values of every group, for group i of shape (n_i,).
        rng: random numbers.

    Returns:
        The sums of each column over the resampled values, and the numbers of these values, each of shape (RESAMPLES,).
    """
    sizes = np.array([values.size for values in columns[0]])
    most = sizes.max()
    chosen = rng.integers(len(sizes), size=(RESAMPLES, len(sizes)))
    size = sizes[chosen][..., None]  # (RESAMPLES, groups, 1)
    value = (rng.random((RESAMPLES, len(sizes), most)) * size).astype(int)
    used = np.arange(most) < size  # a group with fewer values is resampled to as many as it has
    sums = []
    for column in columns:
        padded = np.stack([np.pad(values, (0, most - values.size)) for values in column])  # (groups, most)
        sums.append((padded[chosen[..., None], value] * used).sum((1, 2)))
    return sums, size.sum((1, 2))


def _columns(prompts: Sequence[Recognition]) -> list[list[NDArray[np.bool_]]]:
    return [[p.erased for p in prompts], [p.base for p in prompts]]


def _share(a: NDArray[Any], b: NDArray[Any], *, erasing: bool) -> NDArray[np.float64]:
    """Erased or kept share for sums of recognised images; NaN where the base model has none."""
    ratio = np.minimum(1.0, np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0))
    return 1 - ratio if erasing else ratio


def with_interval(value: float, samples: NDArray[np.float64], n: int) -> Measure:
    """A value over n images with the interval of its bootstrap samples."""
    return Measure(value, *interval(value, samples), n)


def interval(value: float, samples: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of bootstrap samples; it holds the value, which percentiles can miss by a hair."""
    low, high = np.nanpercentile(samples, [50 * ALPHA, 100 - 50 * ALPHA])
    return min(float(low), value), max(float(high), value)


def _rounded(numbers: object, *names: str) -> dict[str, float | None]:
    values = {name: getattr(numbers, name) for name in names}
    return {name: None if value is None else round(value, 4) for name, value in values.items()}
