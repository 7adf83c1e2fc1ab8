"""Recognition before and after an erasure: shares, intervals and tests.

Relative to what the base model draws. Over the drawable prompts of a group, with b of n images of the base model and a
of the erased model recognised:

    erased = 1 - min(1, sum a / sum b)      kept = sum min(a, b) / sum b
    H = 4 / (1/erased + 1/coref_erased + 1/kept + 1/unrelated)

Dividing by b is stricter than 1 - a / n: a target that the base model drew in half of its images, and the erased model
in a quarter of them, is erased by half, not by three quarters. What is kept counts prompt by prompt, so that the gain
of one doesn't hide the loss of another. `unrelated` is kept of unrelated prompts; `H3` is the mean without it.

Which prompts are drawable is decided on images of other seeds, where there are some: the luck that lets a prompt in
would else be part of b and not of a, and a model with nothing erased would seem to lose some.

As rates. A rate is k / n of all images. The difference of two rates is taken image by image, on the same seeds; its
p-value is that of McNemar's exact test (1947), a binomial test over the images that changed. A difference counts as
significant when both its interval and the test say so. Intervals are in `crce.evaluate.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crce.evaluate.intervals import ALPHA, Measure, independent, interval, rounded, sample_shares


DRAWABLE_SHARE = 0.5
MEASURES = ("erased", "coref_erased", "kept", "unrelated")


@dataclass(frozen=True)
class Recognition:
    """Which images of a prompt the judge recognised, paired by seed, shape (n,); `probe` (m,) from other seeds."""

    base: NDArray[np.bool_]
    erased: NDArray[np.bool_]
    probe: NDArray[np.bool_] | None = None
    alpha: float = ALPHA  # the probability outside intervals, smaller at each of several looks

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The images of the base model that say whether the prompt is drawable."""
        return self.base if self.probe is None else self.probe

    @property
    def drawable(self) -> bool:
        """Whether the base model's images are recognised often enough for the prompt to measure anything."""
        return self.base.size > 0 and self.seen.size > 0 and bool(self.seen.mean() >= DRAWABLE_SHARE)


@dataclass(frozen=True)
class Rate:
    """k of n images recognised, with the 95 % interval of their share."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, **rounded(self, "value", "low", "high")}


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
        numbers = rounded(self, "value", "low", "high", "p")
        return {**numbers, "lost": self.lost, "gained": self.gained, "significant": self.significant}


@dataclass(frozen=True)
class RateComparison:
    """The rates of a group before and after, and their difference."""

    base: Rate
    erased: Rate
    difference: RateDifference
    testable: bool  # whether any outcome could have been significant: with few images not even the loss of all is

    def as_json(self) -> dict[str, Any]:
        sides = {"base": self.base.as_json(), "erased": self.erased.as_json()}
        return {**sides, "difference": self.difference.as_json(), "testable": self.testable}

    @property
    def complement(self) -> RateComparison:
        """The comparison of the images that are not recognised."""
        d = self.difference
        base, erased = (Rate(r.n - r.k, r.n, 1 - r.value, 1 - r.high, 1 - r.low) for r in (self.base, self.erased))
        change = RateDifference(-d.value, -d.high, -d.low, d.p, d.gained, d.lost)
        return RateComparison(base, erased, change, self.testable)


def recognise(
    base_words: Sequence[str | None],
    erased_words: Sequence[str | None],
    expected: str,
    *,
    erasing: bool,
    probe_words: Sequence[str | None] = (),
) -> Recognition:
    """Compare the judge's words with the expected class; a word is None where there is no image.

    An image that the base model failed to generate is left out with its pair. One that the erased model failed to
    generate counts against it: as still recognised where the phrase should be gone, as not recognised where it should
    be kept.
    """
    pairs = [(b, a) for b, a in zip(base_words, erased_words, strict=True) if b is not None]
    base = np.array([b == expected for b, _ in pairs], dtype=bool)
    erased = np.array([erasing if a is None else a == expected for _, a in pairs], dtype=bool)
    probe = np.array([word == expected for word in probe_words if word is not None], dtype=bool)
    return Recognition(base, erased, probe if probe_words else None)


def measure(
    prompts: Sequence[Recognition], *, erasing: bool, reason: str = "no prompt can be scored"
) -> tuple[Measure, NDArray[np.float64]]:
    """The erased (or kept) share of the drawable prompts of a group; if there are none, there is a `reason` instead.

    Returns:
        The measure, over the images that the base model draws recognisably, and samples of the distribution of its
        interval, shape (SAMPLES,); no samples, shape (0,), if not measurable.
    """
    drawable = [p for p in prompts if p.drawable]
    base, erased = (int(sum(getattr(p, side).sum() for p in drawable)) for side in ("base", "erased"))
    if not base:
        return Measure(None, None, None, 0, "the base model draws none of it" if drawable else reason), np.empty(0)
    kept = [np.arange(p.base.sum()) < p.erased.sum() for p in drawable if p.base.any()]
    ratio = min(1.0, erased / base) if erasing else float(np.concatenate(kept).mean())
    value = 1 - ratio if erasing else ratio
    alpha = drawable[0].alpha
    samples = sample_shares([value, 1 - value], independent(kept, alpha))[:, 0]
    return Measure(value, *interval(value, samples, alpha), base), samples


def summarise(
    groups: Sequence[Sequence[Recognition]], *, reasons: Mapping[str, str] | None = None
) -> dict[str, Measure]:
    """`MEASURES` of the target, held-out corefs, held-out retains and unrelated prompts, with their H and H3.

    `reasons` says of each of `MEASURES` why it can't be measured, if it can't.
    """
    from scipy.stats import hmean

    measures: dict[str, Measure] = {}
    samples = []
    for i, (name, prompts) in enumerate(zip(MEASURES, groups, strict=True)):
        reason = (reasons or {}).get(name, "no prompt can be scored")
        measures[name], drawn = measure(prompts, erasing="erased" in name, reason=reason)
        samples.append(np.random.default_rng(i).permutation(drawn))  # the groups are independent
    found = {}
    for name, count in (("H", 4), ("H3", 3)):
        values = [(own, measures[own].value) for own in MEASURES[:count]]
        if missing := [own for own, value in values if value is None]:
            found[name] = Measure(None, None, None, 0, f"it takes all of them; missing: {', '.join(missing)}")
            continue
        mean = float(hmean(np.array([value for _, value in values], dtype=float)))
        n = sum(measures[own].n for own, _ in values)
        found[name] = Measure(mean, *interval(mean, hmean(np.stack(samples[:count])), groups[0][0].alpha), n)
    return {**measures, **found}


def rate_of(groups: Sequence[NDArray[np.bool_]], alpha: float = ALPHA) -> Rate:
    """The rate of the images of all prompts, those of each of shape (n_i,); there is at least one image."""
    values = np.concatenate(groups)
    value = float(values.mean())
    samples = sample_shares([value, 1 - value], independent(groups, alpha))[:, 0]
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
    base, erased = [p.base for p in prompts], [p.erased for p in prompts]
    changes = [after.astype(int) - before for before, after in zip(base, erased, strict=True)]
    every = np.concatenate(changes)
    lost, gained = int((every < 0).sum()), int((every > 0).sum())
    shares = [lost / every.size, gained / every.size, 1 - (lost + gained) / every.size]
    value, alpha = float(every.mean()), prompts[0].alpha
    samples = sample_shares(shares, independent(changes, alpha))
    low, high = interval(value, samples[:, 1] - samples[:, 0], alpha)
    p = min(1.0, mcnemar(lost, gained) * ALPHA / alpha)
    difference = RateDifference(value, low, high, p, lost, gained)
    before = rate_of(base, alpha)
    testable = mcnemar(max(before.k, before.n - before.k), 0) < alpha
    return RateComparison(before, rate_of(erased, alpha), difference, testable)
