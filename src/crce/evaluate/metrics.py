"""The numbers of an evaluation, relative to what the base model draws.

Over the drawable prompts of a group, with b of n pictures of the base model and a of the erased model recognised:

    erased = 1 - sum a / sum b      kept = min(1, sum a / sum b)      H = 3 / (1/erased + 1/coref_erased + 1/kept)

Dividing by b is stricter than 1 - a / n: a target that the base model drew in half of its pictures, and the erased
model in a quarter of them, is erased by half, not by three quarters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


RESAMPLES = 2000
DRAWABLE_SHARE = 0.5
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Recognition:
    """What the judge recognised of one prompt, pictures paired by seed.

    Attributes:
        base: of the base model's pictures, shape (n,), bool.
        erased: of the erased model's pictures, shape (n,), bool.
    """

    base: NDArray[np.bool_]
    erased: NDArray[np.bool_]

    @property
    def drawable(self) -> bool:
        """Whether the base model's pictures are recognised often enough for the prompt to measure anything."""
        return self.base.size > 0 and bool(self.base.mean() >= DRAWABLE_SHARE)


@dataclass(frozen=True)
class Measure:
    """A share with its 95 % bootstrap interval over n pictures; None everywhere, with a reason, if not measurable."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        numbers = {k: v if v is None else round(v, 4) for k, v in vars(self).items() if k in ("value", "low", "high")}
        return {**numbers, "n": self.n, **({"reason": self.reason} if self.reason else {})}


def recognise(
    base_words: Sequence[str | None], erased_words: Sequence[str | None], expected: str, *, erasing: bool
) -> Recognition:
    """Compare the judge's words with the expected class; a word is None where no picture came.

    A picture that the base model failed to draw is left out with its pair. One that the erased model failed to draw
    counts against it: as still recognised where the phrase should be gone, as not recognised where it should be kept.
    """
    pairs = [(b, a) for b, a in zip(base_words, erased_words, strict=True) if b is not None]
    base = np.array([b == expected for b, _ in pairs], dtype=bool)
    erased = np.array([erasing if a is None else a == expected for _, a in pairs], dtype=bool)
    return Recognition(base, erased)


def measure(
    prompts: Sequence[Recognition], *, erasing: bool, seed: int = 0, reason: str = "no prompt can be scored"
) -> tuple[Measure, NDArray[np.float64]]:
    """The erased (or kept) share of a group.

    Args:
        prompts: recognitions; those that are not drawable are left out here.
        erasing: measure what is erased; else what is kept.
        seed: of the bootstrap.
        reason: what to say when nothing is left to measure.

    Returns:
        The measure, and its bootstrap samples, shape (RESAMPLES,); no samples, shape (0,), if not measurable.
    """
    drawable = [p for p in prompts if p.drawable]
    if not drawable:
        return Measure(None, None, None, 0, reason), np.empty(0)
    b = np.array([p.base.sum() for p in drawable])
    a = np.array([p.erased.sum() for p in drawable])
    value = float(_share(a.sum(), b.sum(), erasing=erasing))
    sum_a, sum_b, _ = resample(drawable, np.random.default_rng(seed))
    samples = _share(sum_a, sum_b, erasing=erasing)
    return _with_interval(value, samples, sum(p.base.size for p in drawable)), samples


def summarise(
    target: Sequence[Recognition],
    corefs: Sequence[Recognition],
    retains: Sequence[Recognition],
    *,
    seed: int = 0,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Measure]:
    """The headline: erased (target), coref_erased (held-out corefs), kept (held-out retains), and their H.

    Args:
        target: recognitions of the target's prompt.
        corefs: of the held-out corefs' prompts.
        retains: of the held-out retains' prompts.
        seed: of the bootstrap.
        reasons: for each of the three names, what to say when it can't be measured.
    """
    names = ("erased", "coref_erased", "kept")
    measures: dict[str, Measure] = {}
    samples = []
    for i, (name, prompts) in enumerate(zip(names, (target, corefs, retains), strict=True)):
        reason = (reasons or {}).get(name, "no prompt can be scored")
        measures[name], drawn = measure(prompts, erasing=name != "kept", seed=seed + i, reason=reason)
        samples.append(drawn)
    missing = [name for name in names if measures[name].value is None]
    if missing:
        return {**measures, "H": Measure(None, None, None, 0, f"it takes all three; missing: {', '.join(missing)}")}
    value = float(harmonic_mean(np.array([[measures[name].value] for name in names], dtype=float))[0])
    n = sum(m.n for m in measures.values())
    return {**measures, "H": _with_interval(value, harmonic_mean(np.stack(samples)), n)}


def harmonic_mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean over the first axis of shares in [0, 1], shape (k, ...) -> (...); 0 wherever one of them is 0."""
    with np.errstate(divide="ignore"):
        return shares.shape[0] / (1 / shares).sum(0)


def _share(a: NDArray[Any], b: NDArray[Any], *, erasing: bool) -> NDArray[np.float64]:
    """Erased or kept share for sums of recognised pictures; NaN where the base model has none."""
    ratio = np.minimum(1.0, np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0))
    return 1 - ratio if erasing else ratio


def resample(
    prompts: Sequence[Recognition], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sums over resampled prompts and pictures: recognised of the erased model, of the base model, and all pictures.

    Prompts are drawn with replacement, then pictures within each drawn prompt; base and erased stay paired.

    Returns:
        The three sums, each of shape (RESAMPLES,).
    """
    most = max(p.base.size for p in prompts)
    base = np.stack([np.pad(p.base, (0, most - p.base.size)) for p in prompts])  # (P, most)
    erased = np.stack([np.pad(p.erased, (0, most - p.erased.size)) for p in prompts])
    sizes = np.array([p.base.size for p in prompts])
    chosen = rng.integers(len(prompts), size=(RESAMPLES, len(prompts)))
    size = sizes[chosen][..., None]  # (RESAMPLES, P, 1)
    picture = (rng.random((RESAMPLES, len(prompts), most)) * size).astype(int)
    used = np.arange(most) < size  # a prompt with fewer pictures is resampled to as many as it has
    a = (erased[chosen[..., None], picture] & used).sum((1, 2))
    b = (base[chosen[..., None], picture] & used).sum((1, 2))
    return a, b, size.sum((1, 2))


def _with_interval(value: float, samples: NDArray[np.float64], n: int) -> Measure:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    # With few pictures the percentiles of a ratio can miss the value itself by a hair.
    return Measure(value, min(float(low), value), max(float(high), value), n)
