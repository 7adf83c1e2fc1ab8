"""What a person would keep, learned from decisions."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import pytest
import torch

from crce.demo.embedding import load_embedder
from crce.suggest.candidates import Candidate
from crce.suggest.memory import Decision
from crce.suggest.ranking import Ranker, with_similarity


def decision(i: int, accepted: bool, **values) -> Decision:
    return Decision(
        **{
            **{"target": "cat", "kind": "object", "text": f"phrase {i}", "side": "coref", "accepted": accepted},
            **{"certainty": 0.6, "source": "wordnet", **values},
        }
    )


def person(n: int, seed: int = 0, noise: float = 0.1) -> list[Decision]:
    """Someone who accepts corefs that are similar and retains that are not close, whatever the certainty."""
    random.seed(seed)
    decisions = []
    for i in range(n):
        side = random.choice(["coref", "retain"])
        similarity, closeness = random.random(), random.random()
        wanted = similarity > 0.5 if side == "coref" else closeness < 0.5
        decisions.append(
            decision(
                i,
                wanted if random.random() > noise else not wanted,
                side=side,
                certainty=random.choice([0.2, 0.4, 0.6, 0.8, 1.0]),
                source=random.choice(["wordnet", "openai:m"]),
                similarity=similarity,
                closeness=closeness if random.random() > 0.2 else None,
            )
        )
    return decisions


@pytest.mark.parametrize(
    ("accepted", "rejected", "needed"), [(0, 0, 20), (10, 9, 20), (30, 4, 35), (2, 40, 45), (18, 1, 23)]
)
def test_too_few_decisions_say_how_many_are_needed(accepted, rejected, needed):
    decisions = [decision(i, i < accepted) for i in range(accepted + rejected)]
    few = Ranker.fit(decisions)
    assert f"({accepted} accepted, {rejected} rejected)" in few
    assert f"{needed} are needed" in few
    assert isinstance(Ranker.fit([decision(i, i < 15) for i in range(20)]), Ranker)


def test_phrases_that_the_person_brought_do_not_count():
    few = Ranker.fit([decision(i, i % 2 == 0, source="user") for i in range(100)])
    assert few.startswith("0 decisions about suggested phrases")
    own = [decision(i, True, source="user") for i in range(100)]
    assert Ranker.fit([*own, *person(60)]) == Ranker.fit(person(60))


def test_what_a_person_cares_about_is_learned_and_readable():
    ranker = Ranker.fit(person(200))
    assert isinstance(ranker, Ranker)
    w = ranker.weights
    assert w["similarity, coref"] > 2
    assert w["closeness, retain"] < -2
    assert all(abs(w[name]) < 1.5 for name in w if name not in ("similarity, coref", "closeness, retain"))
    assert ranker.agreement > ranker.baseline + 0.2
    # someone else's decisions of the same taste are foretold
    others = person(400, seed=1, noise=0.0)
    hits = sum((ranker.score(d) > 0.5) == d.accepted for d in others)
    assert hits / len(others) > 0.8


def test_nothing_is_learned_from_answers_at_random():
    random.seed(3)
    ranker = Ranker.fit([replace(d, accepted=random.random() < 0.5) for d in person(200)])
    assert isinstance(ranker, Ranker)
    assert ranker.agreement < ranker.baseline + 0.1


def test_a_rank_that_is_no_better_than_the_commoner_answer_is_not_used():
    same = [decision(i, i % 3 != 0, similarity=0.5) for i in range(60)]  # nothing tells them apart
    refused = Ranker.fit(same)
    assert isinstance(refused, str)
    assert "60 decisions" in refused
    assert "the more frequent answer alone 40. So it is not used" in refused
    used = Ranker.fit(person(200))
    assert used.agreement > used.baseline


def test_the_fit_is_the_minimum_of_its_loss():
    decisions = [d for d in person(80, seed=5) if d.side == "coref"]
    decisions = [replace(d, closeness=None, source="wordnet") for d in decisions]
    ranker = Ranker.fit(decisions)
    assert isinstance(ranker, Ranker)
    assert set(ranker.weights) == {"certainty", "similarity, coref"}  # the rest is the same everywhere
    x = torch.tensor([[d.certainty, d.similarity] for d in decisions], dtype=torch.float64)
    mean, sd = x.mean(0), x.std(0, correction=0)
    z = (x - mean) / sd
    y = torch.tensor([d.accepted for d in decisions], dtype=torch.float64)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(w[0] + z @ w[1:], y, reduction="sum")
        value = value + 0.5 * (w[1:] ** 2).sum() + 0.005 * w[0] ** 2
        value.backward()
        return value

    optimiser.step(loss)
    expected = torch.sigmoid(w[0] + z @ w[1:]).detach()
    scores = torch.tensor([ranker.score(d) for d in decisions], dtype=torch.float64)
    assert torch.allclose(scores, expected, atol=1e-6)
    assert ranker.weights["certainty"] == pytest.approx((w[1] / sd[0]).item(), abs=1e-5)


def test_answers_that_one_value_settles_stay_finite():
    ranker = Ranker.fit([decision(i, i % 2 == 0, certainty=float(i % 2 == 0)) for i in range(400)])
    assert isinstance(ranker, Ranker)
    assert ranker.agreement == 1.0
    low, high = (ranker.score(Candidate("x", "coref", c, "wordnet")) for c in (0.0, 1.0))
    assert 0 < low < 0.02
    assert 0.98 < high < 1
    assert all(math.isfinite(w) for w in ranker.weights.values())


def test_what_is_not_measured_or_unknown_counts_as_the_average():
    ranker = Ranker.fit([replace(d, closeness=d.closeness or 0.5) for d in person(100)])
    assert isinstance(ranker, Ranker)
    average = Candidate("x", "coref", 0.6, "wordnet", similarity=ranker.averages["similarity, coref"], closeness=0.5)
    assert ranker.score(replace(average, similarity=None)) == pytest.approx(ranker.score(average))
    assert 0 < ranker.score(Candidate("x", "retain", 0.6, "a source it never saw")) < 1


def test_the_same_decisions_give_the_same_ranker():
    assert Ranker.fit(person(50)) == Ranker.fit(person(50))


def test_the_work_grows_with_the_decisions_and_no_faster():
    """Ten times the decisions take about ten times the work, not a hundred times."""

    def work(n: int) -> float:
        times = []
        for _ in range(3):
            clock = time.process_time()
            Ranker.fit(person(n))
            times.append(time.process_time() - clock)
        return min(times)

    assert work(1000) < 40 * work(100)


def test_similarity_is_filled_in_where_it_is_missing():
    embedder = load_embedder()
    given = [decision(0, True, text="kitty"), decision(1, True, text="car"), decision(2, True, similarity=0.123)]
    kitty, car, kept = with_similarity(given, embedder)
    assert kitty.similarity == pytest.approx(embedder.similarity(["cat"], ["kitty"]).item(), abs=1e-5)
    assert kitty.similarity > car.similarity
    assert kept.similarity == 0.123
    assert with_similarity([], embedder) == []
