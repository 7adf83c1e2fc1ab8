"""Which candidates a person would keep, learned from what was decided before.

A logistic regression with an L2 penalty (MAP under a normal prior), fitted by Newton's method:

    P(accept) = sigmoid(b + sum_k w_k x_k),    minimise  sum_i -log P(y_i) + lambda/2 * |w|^2

over certainty, source, similarity of the embeddings and closeness in the model. The last two speak differently for a
coref and for a retain, so each side has its own weight; a value that nobody measured counts as the average, beside an
indicator that says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crce.suggest.candidates import SIDES, Side
from crce.suggest.feedback import Decision


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crce.suggest.embedding import Embedder

Fitted = tuple[float, dict[str, float], dict[str, float]]  # bias, weights, averages

ENOUGH = 20
ENOUGH_OF_EACH = 5
PENALTY = 1.0  # lambda, on values of unit variance: a weight of 1 costs as much as half a nat of likelihood
FOLDS = 5

_MEASURES = ("certainty", *(f"{name}, {side}" for name in ("similarity", "closeness") for side in SIDES))


@dataclass(frozen=True)
class Features:
    """What the ranking knows about a candidate.

    Attributes:
        side: the side it is proposed for.
        certainty: how sure its source is, in [0, 1].
        source: who proposed it.
        similarity: cosine of the embeddings of phrase and target; None where nobody measured it.
        closeness: how far the model draws the target for it, in [0, 1]; None where nobody measured it.
    """

    side: Side
    certainty: float
    source: str
    similarity: float | None = None
    closeness: float | None = None

    @classmethod
    def of(cls, decision: Decision) -> Features:
        """What was known about a phrase when it was decided about."""
        d = decision
        return cls(d.side, d.certainty, d.source, d.similarity, d.closeness)


@dataclass(frozen=True)
class TooFew:
    """There are too few decisions to learn from.

    Attributes:
        n: the decisions about phrases that a suggester proposed.
        needed: how many there must be.
        accepted: how many of them were accepted.
        rejected: how many were rejected.
    """

    n: int
    needed: int
    accepted: int
    rejected: int

    def __str__(self) -> str:
        return (
            f"{self.n} decisions about suggested phrases ({self.accepted} accepted, {self.rejected} rejected) are too "
            f"few to learn from: {self.needed} are needed, {ENOUGH_OF_EACH} of each answer."
        )


@dataclass(frozen=True)
class Ranker:
    """A fitted model of a person's answers.

    Attributes:
        n: how many decisions it was fitted on.
        bias: log odds of a candidate at the averages.
        weights: by name, the change in the log odds as the value goes from 0 to 1.
        averages: by name, the value that counts as 0; an unmeasured value has it.
        agreement: share of decisions it foretells when fitted without them (5 folds).
        baseline: share that the more frequent answer alone would foretell.
    """

    n: int
    bias: float
    weights: dict[str, float]
    averages: dict[str, float]
    agreement: float
    baseline: float

    @staticmethod
    def fit(decisions: Iterable[Decision]) -> Ranker | TooFew:
        """Learn from decisions, or say that there are too few.

        Phrases that the person brought are left out: they say nothing about what a suggester proposes.
        """
        used = _of_suggesters(decisions)
        if too_few := _too_few(used):
            return too_few
        import numpy as np

        features = [Features.of(d) for d in used]
        y = np.array([d.accepted for d in used], dtype=float)
        hits = 0
        for k in range(FOLDS):
            # every fifth decision: those of one review stand in a row, and each fold should see them all
            rest = [i for i in range(len(used)) if i % FOLDS != k]
            fitted = _fit([features[i] for i in rest], y[rest])
            hits += sum(
                (_log_odds(f, *fitted) > 0) == d.accepted
                for f, d in zip(features[k::FOLDS], used[k::FOLDS], strict=True)
            )
        bias, weights, averages = _fit(features, y)
        return Ranker(len(used), bias, weights, averages, hits / len(used), max(y.mean(), 1 - y.mean()).item())

    def score(self, features: Features) -> float:
        """The probability that the person would accept the candidate."""
        return 1 / (1 + math.exp(-max(-500.0, _log_odds(features, self.bias, self.weights, self.averages))))


def learned(decisions: Iterable[Decision]) -> Ranker | TooFew:
    """The ranking that decisions teach; where there is enough to learn from, missing similarities are measured."""
    decisions = list(decisions)
    if too_few := _too_few(_of_suggesters(decisions)):
        return too_few
    from crce.suggest.embedding import load_embedder

    return Ranker.fit(with_similarity(decisions, load_embedder()))


def _of_suggesters(decisions: Iterable[Decision]) -> list[Decision]:
    return [d for d in decisions if d.source != "user"]


def _too_few(used: list[Decision]) -> TooFew | None:
    accepted = sum(d.accepted for d in used)
    fewest = min(accepted, len(used) - accepted)
    if len(used) >= ENOUGH and fewest >= ENOUGH_OF_EACH:
        return None
    needed = max(ENOUGH, len(used) + max(0, ENOUGH_OF_EACH - fewest))
    return TooFew(len(used), needed, accepted, len(used) - accepted)


def with_similarity(decisions: Iterable[Decision], embedder: Embedder) -> list[Decision]:
    """The decisions, with the similarity of phrase and target where it was missing."""
    decisions = list(decisions)
    missing = [d for d in decisions if d.similarity is None]
    embedder.embed([text for d in missing for text in (d.target, d.text)])  # all at once; each is then known

    def similarity(decision: Decision) -> float:
        return round(embedder.similarity([decision.target], [decision.text]).item(), 6)

    return [replace(d, similarity=similarity(d)) if d.similarity is None else d for d in decisions]


def _values(features: Features) -> dict[str, float | None]:
    """The numbers behind a candidate by name; None where the value was not measured or is of the other side."""
    f = features
    values: dict[str, float | None] = {"retain": float(f.side == "retain"), "certainty": f.certainty}
    for name, value in (("similarity", f.similarity), ("closeness", f.closeness)):
        values |= {f"{name}, {side}": value if f.side == side else None for side in SIDES}
        values[f"{name} unknown"] = float(value is None)
    return {**values, f"source {f.source}": 1.0}


def _log_odds(features: Features, bias: float, weights: dict[str, float], averages: dict[str, float]) -> float:
    values = _values(features)
    return bias + sum(
        weight * (value - averages.get(name, 0.0))
        for name, weight in weights.items()
        if (value := values.get(name)) is not None
    )


def _fit(features: Sequence[Features], y: NDArray[np.float64]) -> Fitted:
    """The minimum of the penalised loss for answers `y` in {0, 1}, shape (n,)."""
    import numpy as np

    rows = [_values(f) for f in features]
    columns: dict[str, NDArray[np.float64]] = {}
    averages: dict[str, float] = {}
    spreads: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        measured = name in _MEASURES
        column = np.array([np.nan if (v := row.get(name, 0.0)) is None else v for row in rows])
        known = column[~np.isnan(column)]
        if not known.size or known.std() < 1e-6:
            continue  # the same everywhere: it tells no two candidates apart
        averages[name] = float(known.mean()) if measured else 0.0
        spreads[name] = float(known.std()) if measured else 1.0
        columns[name] = np.nan_to_num((column - averages[name]) / spreads[name])
    x = np.column_stack([np.ones(len(rows)), *columns.values()])  # (n, 1 + k)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 0.01  # the bias is all but free, yet finite where a fold holds one answer alone
    w = np.zeros(x.shape[1])

    def loss(w: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, x @ w).sum() - y @ (x @ w) + (penalty * w * w).sum() / 2)

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -500, 500)))
        gradient = x.T @ (p - y) + penalty * w
        if np.abs(gradient).max() < 1e-9:
            break
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + np.diag(penalty), gradient)
        size = 1.0
        while loss(w - size * step) > loss(w) and size > 1e-6:
            size /= 2  # a full Newton step may overshoot where the answers are far apart
        w = w - size * step
    weights = {name: float(w[i] / spreads[name]) for i, name in enumerate(columns, start=1)}
    return float(w[0]), weights, {name: averages[name] for name in columns}
