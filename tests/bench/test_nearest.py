"""The baseline of benchmarks/suggest/nearest.py."""

from __future__ import annotations

import pytest
import scripts

from crce.demo.embedding import load_embedder
from crce.suggest.candidates import Candidate, Request


nearest = scripts.load("benchmarks/suggest/nearest.py")
NearestSuggester = nearest.NearestSuggester


@pytest.fixture(scope="module")
def church() -> list[Candidate]:
    return NearestSuggester().propose(Request("church", "object", corefs=8, retains=6))


def test_corefs_lie_nearest_and_retains_in_the_ring_around(church):
    corefs = [c for c in church if c.side == "coref"]
    retains = [c for c in church if c.side == "retain"]
    assert (len(corefs), len(retains)) == (16, 12)
    near = load_embedder().similarity(["church"], [c.text for c in church])[0].tolist()
    assert near == sorted(near, reverse=True)
    assert min(c.certainty for c in corefs) >= max(c.certainty for c in retains)


def test_the_target_is_not_proposed_and_nothing_twice(church):
    texts = [c.text.lower() for c in church]
    assert "church" not in texts
    assert len(set(texts)) == len(texts)
    assert {c.source for c in church} == {"nearest"}
    assert all(c.reason.startswith("similarity 0.") for c in church)


def test_the_sense_moves_the_neighbourhood():
    found = {
        sense: {c.text for c in NearestSuggester().propose(Request("bat", "object", sense, corefs=8, retains=2))}
        for sense in ("animal", "sports equipment")
    }
    assert "baseball bat" in found["sports equipment"]
    assert found["animal"] != found["sports equipment"]


def test_rejected_pairs_are_left_out(church):
    first = church[0]
    again = NearestSuggester().propose(
        Request("church", "object", corefs=8, retains=6, avoid=frozenset({("coref", first.text.upper())}))
    )
    assert [(c.text, c.side) for c in again] == [(c.text, c.side) for c in church[1:]]


@pytest.mark.parametrize("target", ["🦄", "a very long phrase " * 30])
def test_every_target_has_neighbours(target, monkeypatch):
    monkeypatch.setattr(nearest, "_SHORTLIST", 50)
    found = NearestSuggester().propose(Request(target, "other", corefs=2, retains=2))
    assert len(found) == 8


def test_few_of_all_the_nouns_are_embedded_and_none_twice(monkeypatch):
    """That takes most of the time: the others are told apart by their words alone."""
    embedder, passed = load_embedder(), []
    own = embedder._forward
    monkeypatch.setattr(embedder, "_forward", lambda ids: passed.append(len(ids)) or own(ids))
    monkeypatch.setattr(nearest, "_SHORTLIST", 100)
    NearestSuggester().propose(Request("lighthouse", "object"))
    assert sum(passed) <= 1 + 100  # the target and the shortlist; what is frequent is known from the tests before
    passed.clear()
    NearestSuggester().propose(Request("lighthouse", "object", corefs=4))
    assert not passed


def test_word_similarity_finds_shared_and_related_words():
    texts = ["tabby cat", "helicopter", "cat", ""]
    near = nearest.word_similarity("cat", nearest.bags(texts)).tolist()
    assert near[2] == pytest.approx(1)
    assert near[2] > near[0] > near[1]
    assert near[3] == 0
