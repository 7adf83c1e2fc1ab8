"""Groups before and after an erasure: their comparison, and in sentences which differences are significant."""

from __future__ import annotations

from collections.abc import Mapping

from crce.evaluate.prompts import TITLES
from crce.evaluate.scores import ScoredGroup
from crce.evaluate.stats import RateComparison, compare
from crce.evaluate.verdict import percent


def compare_groups(groups: Mapping[str, ScoredGroup], *, seed: int = 0) -> dict[str, RateComparison | None]:
    """Every group before and after; None for one that can't be measured."""
    return {name: compare(g.recognitions, seed=seed + i) for i, (name, g) in enumerate(groups.items())}


def say_significance(compared: Mapping[str, RateComparison | None]) -> list[str]:
    """In sentences which differences are significant, which are not, and what could not be compared."""
    clear = [_say(name, c) for name, c in compared.items() if c and c.difference.significant]
    unclear = [_say(name, c) for name, c in compared.items() if c and not c.difference.significant]
    missing = [TITLES[name] for name, c in compared.items() if c is None]
    sentences = {
        f"Significant, so hardly chance: {'; '.join(clear)}.": clear,
        f"Not significant, so it may be chance or nothing at all: {'; '.join(unclear)}.": unclear,
        f"Not compared, as nothing of it can be measured: {', '.join(missing)}.": missing,
    }
    return [sentence for sentence, named in sentences.items() if named]


def _say(name: str, c: RateComparison) -> str:
    d = c.difference
    chance = f"p {'< 0.001' if d.p < 0.001 else f'= {d.p:.3f}'}"
    shares = f"{TITLES[name]} {percent(c.base.value)} → {percent(c.erased.value)}"
    return f"{shares} ({points(d.value)} points, {points(d.low)} to {points(d.high)}, {chance})"


def points(share: float) -> str:
    """A difference of shares in percentage points: "+5", "-12", "0"."""
    rounded = round(100 * share)
    return f"{rounded:+d}" if rounded else "0"
