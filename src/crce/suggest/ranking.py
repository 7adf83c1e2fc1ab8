"""Which candidates a person would accept, learned from earlier decisions.

A logistic regression with an L2 penalty (MAP under a normal prior):

    P(accept) = sigmoid(b + sum_k w_k x_k),    minimise  sum_i -log P(y_i) + lambda/2 * |w|^2

over certainty, source, similarity of the embeddings and closeness in the model. The last two have the opposite meaning
for a coref and for a retain, so each side has its own weight; a value that was not measured counts as the average, and
an indicator says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crce.suggest.candidates import SIDES, Candidate
from crce.suggest.memory import Decision


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crce.demo.embedding import Embedder

ENOUGH = 20
ENOUGH_OF_EACH = 5
PENALTY = 1.0  # lambda, on values of unit variance: a weight of 1 costs as much as half a nat of likelihood
FOLDS = 5

_MEASURES = ("certainty", *(f"{name}, {side}" for name in ("similarity", "closeness") for side in SIDES))


@dataclass(frozen=True)
class Ranker:
    """A fitted model of a person's answers.

    Attributes:
        n: how many decisions it was fitted on.
        bias: log odds of a candidate at the averages.
        weights: by name, the change in the log odds as the value goes from 0 to 1.
        averages: by name, the value that counts as 0; an unmeasured value has it.
        agreement: share of decisions predicted correctly by 5-fold cross-validation.
        baseline: share of the more frequent answer.
    """

    n: int
    bias: float
    weights: dict[str, float]
    averages: dict[str, float]
    agreement: float
    baseline: float

    @staticmethod
    def fit(decisions: Iterable[Decision]) -> Ranker | str:
        """Learn from decisions, or say in a sentence that there are too few.

        Phrases that the person added are left out: they say nothing about what a suggester proposes. Similarities that
        were not measured are measured if there is enough to learn from.
        """
        used = [d for d in decisions if d.source != "user"]
        accepted = sum(d.accepted for d in used)
        fewest = min(accepted, len(used) - accepted)
        if len(used) < ENOUGH or fewest < ENOUGH_OF_EACH:
            needed = max(ENOUGH, len(used) + max(0, ENOUGH_OF_EACH - fewest))
            given = (
                f"{len(used)} decisions about suggested phrases ({accepted} accepted, {len(used) - accepted} rejected)"
            )
            return f"{given} are too few to learn from: {needed} are needed, {ENOUGH_OF_EACH} of each answer."
        import numpy as np

        from crce.demo.embedding import load_embedder

        used = with_similarity(used, load_embedder())
        y = np.array([d.accepted for d in used], dtype=float)
        hits = 0
        for k in range(FOLDS):
            # every fifth decision: those of one review are adjacent, and each fold should see them all
            rest = [i for i in range(len(used)) if i % FOLDS != k]
            fitted = _fit([used[i] for i in rest], y[rest])
            hits += sum((_log_odds(d, *fitted) > 0) == d.accepted for d in used[k::FOLDS])
        return Ranker(len(used), *_fit(used, y), hits / len(used), max(y.mean(), 1 - y.mean()).item())

    def score(self, candidate: Candidate | Decision) -> float:
        """The probability that the person would accept the candidate."""
        return 1 / (1 + math.exp(-max(-500.0, _log_odds(candidate, self.bias, self.weights, self.averages))))


def with_similarity(decisions: Sequence[Decision], embedder: Embedder) -> list[Decision]:
    """The decisions, with the similarity of phrase and target computed where it is missing."""
    missing = [d for d in decisions if d.similarity is None]
    embedder.embed([text for d in missing for text in (d.target, d.text)])  # all at once; each is then known

    def similarity(decision: Decision) -> float:
        return round(embedder.similarity([decision.target], [decision.text]).item(), 6)

    return [replace(d, similarity=similarity(d)) if d.similarity is None else d for d in decisions]


def _values(given: Candidate | Decision) -> dict[str, float | None]:
    """The features of a candidate by name; None if not measured, or of the other side."""
    values: dict[str, float | None] = {"retain": float(given.side == "retain"), "certainty": given.certainty}
    for name, value in (("similarity", given.similarity), ("closeness", given.closeness)):
        values |= {f"{name}, {side}": value if given.side == side else None for side in SIDES}
        values[f"{name} unknown"] = float(value is None)
    return {**values, f"source {given.source}": 1.0}


def _log_odds(
    given: Candidate | Decision, bias: float, weights: dict[str, float], averages: dict[str, float]
) -> float:
    values = _values(given)
    return bias + sum(
        weight * (value - averages.get(name, 0.0))
        for name, weight in weights.items()
        if (value := values.get(name)) is not None
    )


def _fit(given: Sequence[Decision], y: NDArray[np.float64]) -> tuple[float, dict[str, float], dict[str, float]]:
    """Bias, weights and averages that minimise the penalised loss for answers `y` in {0, 1}, shape (n,)."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    rows = [_values(each) for each in given]
    columns: dict[str, NDArray[np.float64]] = {}
    averages: dict[str, float] = {}
    spreads: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        column = np.array([np.nan if (v := row.get(name, 0.0)) is None else v for row in rows])
        known = column[~np.isnan(column)]
        if not known.size or known.std() < 1e-6:
            continue  # constant: it distinguishes no candidates
        averages[name], spreads[name] = (known.mean(), known.std()) if name in _MEASURES else (0.0, 1.0)
        columns[name] = np.nan_to_num((column - averages[name]) / spreads[name])
    x = np.column_stack([np.ones(len(rows)), *columns.values()])  # (n, 1 + k)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 0.01  # the bias is almost free, yet finite where a fold has one answer only

    def loss_and_gradient(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = x @ w
        loss = np.logaddexp(0, z).sum() - y @ z + (penalty * w * w).sum() / 2
        return loss, x.T @ (expit(z) - y) + penalty * w

    w = minimize(loss_and_gradient, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    weights = {name: float(w[i] / spreads[name]) for i, name in enumerate(columns, start=1)}
    return float(w[0]), weights, {name: float(averages[name]) for name in columns}
