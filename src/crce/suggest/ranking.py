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

import numpy as np
from numpy.typing import NDArray

from crce.demo.embedding import Embedder, load_embedder
from crce.suggest.candidates import SIDES, Candidate
from crce.suggest.memory import Decision
from crce.suggest.record import Score


ENOUGH = 20
ENOUGH_OF_EACH = 5
PENALTY = 1.0  # lambda, on values of unit variance: a weight of 1 costs as much as half a nat of likelihood
FOLDS = 5

_MEASURES = ("certainty", *(f"{name}, {side}" for name in ("similarity", "closeness") for side in SIDES))


@dataclass(frozen=True)
class Ranker:
    """A fitted model of a person's answers."""

    n: int  # how many decisions it was fitted on
    bias: float  # log odds of a candidate at the averages
    weights: dict[str, float]  # by name, the change in the log odds as the value goes from 0 to 1
    averages: dict[str, float]  # by name, the value that counts as 0; an unmeasured value has it
    agreement: float = 0.0  # share of decisions predicted correctly by 5-fold cross-validation
    baseline: float = 0.0  # share of the more frequent answer

    @staticmethod
    def fit(decisions: Iterable[Decision]) -> Ranker | str:
        """Learn from decisions, or say in a sentence that there are too few, or that nothing can be learned from them.

        Phrases that the person added are left out: they say nothing about what a suggester proposes. Similarities that
        were not measured are measured if there is enough to learn from.
        """
        used = [d for d in decisions if d.source != "user"]
        accepted = sum(d.accepted for d in used)
        fewest = min(accepted, len(used) - accepted)
        if len(used) < ENOUGH or fewest < ENOUGH_OF_EACH:
            needed = max(ENOUGH, len(used) + max(0, ENOUGH_OF_EACH - fewest))
            answers = f"({accepted} accepted, {len(used) - accepted} rejected)"
            few = f"{len(used)} decisions about suggested phrases {answers} are too few to learn from"
            return f"{few}: {needed} are needed, {ENOUGH_OF_EACH} of each answer."
        used = with_similarity(used, load_embedder())
        hits = 0
        for k in range(FOLDS):
            # every fifth decision: those of one review are adjacent, and each fold should see them all
            fitted = _fit([d for i, d in enumerate(used) if i % FOLDS != k])
            hits += sum((fitted.log_odds(d) > 0) == d.accepted for d in used[k::FOLDS])
        most = max(accepted, len(used) - accepted)
        if hits <= most:
            tested = f"Learned from {len(used)} decisions, the rank predicts {hits} of them in cross-validation"
            return f"{tested}, and the more frequent answer alone {most}. So it is not used."
        return replace(_fit(used), agreement=hits / len(used), baseline=most / len(used))

    def log_odds(self, candidate: Candidate | Decision) -> float:
        """The logarithm of the odds that the person would accept the candidate."""
        values = _values(candidate)
        terms = ((weight, values.get(name), self.averages[name]) for name, weight in self.weights.items())
        return self.bias + sum(weight * (value - average) for weight, value, average in terms if value is not None)

    def scores(self, target: str, candidates: Sequence[Candidate]) -> list[Score]:
        """The scores of the candidates of a target, to 4 digits; their similarities are measured."""
        near = load_embedder().similarity([c.text for c in candidates], [target])[:, 0].tolist()
        measured = [replace(c, similarity=cosine) for c, cosine in zip(candidates, near, strict=True)]
        return [Score(text=c.text, side=c.side, score=round(self.score(c), 4)) for c in measured]

    def score(self, candidate: Candidate | Decision) -> float:
        """The probability that the person would accept the candidate."""
        return 1 / (1 + math.exp(-max(-500.0, self.log_odds(candidate))))


def with_similarity(decisions: Sequence[Decision], embedder: Embedder) -> list[Decision]:
    """The decisions, with the similarity of phrase and target computed where it is missing."""
    missing = [d for d in decisions if d.similarity is None]
    targets, texts = embedder.embed([d.target for d in missing]), embedder.embed([d.text for d in missing])
    cosines = iter((targets * texts).sum(1).tolist())
    return [replace(d, similarity=round(next(cosines), 6)) if d.similarity is None else d for d in decisions]


def _values(given: Candidate | Decision) -> dict[str, float | None]:
    """The features of a candidate by name; None if not measured, or of the other side."""
    values: dict[str, float | None] = {"retain": float(given.side == "retain"), "certainty": given.certainty}
    for name, value in (("similarity", given.similarity), ("closeness", given.closeness)):
        values |= {f"{name}, {side}": value if given.side == side else None for side in SIDES}
        values[f"{name} unknown"] = float(value is None)
    return {**values, f"source {given.source}": 1.0}


def _fit(given: Sequence[Decision]) -> Ranker:
    """The ranker that minimises the penalised loss of the given answers."""
    from scipy.optimize import minimize
    from scipy.special import expit

    rows = [_values(each) for each in given]
    names = np.array(list(dict.fromkeys(name for row in rows for name in row)))
    values = np.ma.masked_invalid(np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=float))
    average, spread = values.mean(0).filled(0), values.std(0).filled(0)
    varying = spread >= 1e-6  # a constant value distinguishes no candidates
    names, average, spread, values = names[varying], average[varying], spread[varying], values[:, varying]
    measured = np.isin(names, _MEASURES)
    average, spread = np.where(measured, average, 0.0), np.where(measured, spread, 1.0)
    x = np.column_stack([np.ones(len(rows)), ((values - average) / spread).filled(0)])  # (n, 1 + k)
    y = np.array([each.accepted for each in given], dtype=float)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 0.01  # the bias is almost free, yet finite where a fold has one answer only

    def loss_and_gradient(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = x @ w
        loss = np.logaddexp(0, z).sum() - y @ z + (penalty * w * w).sum() / 2
        return loss, x.T @ (expit(z) - y) + penalty * w

    w = minimize(loss_and_gradient, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    weights = dict(zip(names.tolist(), (w[1:] / spread).tolist(), strict=True))
    return Ranker(len(rows), float(w[0]), weights, dict(zip(names.tolist(), average.tolist(), strict=True)))
