"""The choice of what is trained and what is held out."""

from __future__ import annotations

import pytest

from crce.demo.embedding import Embedder, load_embedder
from crce.suggest.candidates import Candidate
from crce.suggest.mmr import NEAR_DUPLICATE, select
from crce.suggest.phrases import head, same_head
from crce.suggest.record import SuggestionSettings


COREFS = "kitty, house cat, tabby, moggy, kitten, tomcat, pussycat, feline, Siamese, Persian, Manx, mouser".split(", ")
RETAINS = "dog, fox, tiger, wolf, rabbit, lion, lynx, hamster, horse, owl".split(", ")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


def candidates(texts: list[str], side: str, certainties: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4)) -> list[Candidate]:
    """One candidate for each text, the certainties in turn."""
    return [Candidate(t, side, certainties[i % len(certainties)], "s", "r") for i, t in enumerate(texts)]


def texts(chosen, side: str, held_out: bool) -> list[str]:
    return [c.text for c in chosen if c.side == side and (c.outcome == "held-out") == held_out]


def test_counts_of_each_side_are_as_asked_and_nothing_is_lost(embedder):
    given = candidates(COREFS, "coref") + candidates(RETAINS, "retain")
    chosen, left_over = select(given, embedder, corefs=5, retains=4, held_out=3)
    counts = {(side, h): len(texts(chosen, side, h)) for side in ("coref", "retain") for h in (False, True)}
    assert counts == {("coref", False): 5, ("coref", True): 3, ("retain", False): 4, ("retain", True): 3}
    assert sorted([*(c.text for c in chosen), *(c.text for c in left_over)]) == sorted(COREFS + RETAINS)


def test_without_diversity_the_most_certain_are_trained(embedder):
    given = candidates(COREFS, "coref")
    chosen, _ = select(given, embedder, corefs=3, held_out=0, diversity=0)
    assert [c.certainty for c in chosen] == [1.0, 1.0, 1.0]


def test_diversity_prefers_what_says_something_new(embedder):
    given = candidates(["Siamese cat", "Siamese kitten", "Siamese cats at home", "tomcat", "moggy"], "coref", (0.8,))
    plain, _ = select(given, embedder, corefs=3, held_out=0, diversity=0)
    diverse, _ = select(given, embedder, corefs=3, held_out=0, diversity=0.5)
    assert sum("Siamese" in c.text for c in plain) == 3
    assert sum("Siamese" in c.text for c in diverse) == 1


def test_what_rewords_the_target_or_a_training_phrase_is_not_held_out(embedder):
    given = candidates(
        ["domestic cat", "tabby", "old tabby", "mouser", "Siamese cat", "tomcat", "big tomcat"], "coref", (0.8,)
    )
    chosen, _ = select(given, embedder, corefs=4, held_out=3, target="cat")
    trained, measured = texts(chosen, "coref", False), texts(chosen, "coref", True)
    assert measured
    assert not [m for m in measured for t in ("cat", *trained) if same_head(m, t)]
    assert {head(text) for text in ("picture of a tabby on a sofa", "old tabby", "tabby art")} == {"tabby"}


def test_held_out_phrases_are_spread_over_the_certainties(embedder):
    given = candidates(COREFS, "coref", (1.0, 1.0, 0.6, 0.4))
    chosen, _ = select(given, embedder, corefs=4, held_out=3)
    assert [c.certainty for c in chosen if c.outcome == "held-out"] == [1.0, 0.6, 0.4]


def test_what_is_very_doubtful_is_not_held_out(embedder):
    given = candidates(COREFS, "coref", (1.0, 0.2))
    chosen, _ = select(given, embedder, corefs=3, held_out=8)
    held_out = [c.certainty for c in chosen if c.outcome == "held-out"]
    assert held_out == [1.0] * 3


@pytest.mark.parametrize(
    ("certainties", "corefs", "held_out", "measured"),
    [
        ((0.8, 0.4, 0.33, 0.29), 8, 4, 1),
        ((0.8, 0.3, 0.3, 0.3), 8, 4, 0),
        ((0.8, 0.8, 0.4, 0.2, 0.2, 0.2), 8, 1, 1),
        ((0.8,) * 6 + (0.2,) * 6, 500, 250, 2),
        ((0.8,) * 6 + (0.2,) * 6, 8, 4, 2),
    ],
)
def test_a_share_of_what_can_be_held_out_is_held_out_however_many_are_trained(
    embedder, certainties, corefs, held_out, measured
):
    given = candidates(COREFS[: len(certainties)], "coref", certainties)
    chosen, _ = select(given, embedder, corefs=corefs, held_out=held_out)
    assert len(texts(chosen, "coref", True)) == measured
    assert len(texts(chosen, "coref", False)) == min(corefs, len(given) - measured)
    assert chosen[0].certainty == 0.8, "the best is trained"


def test_preferences_decide_what_is_trained_and_held_out_and_others_fill_up(embedder):
    trained, held_out, either = COREFS[:3], COREFS[3:5], COREFS[5:]
    given = [Candidate(text, "coref", 0.6, "atlas", "r", held_out=False) for text in trained]
    given += [Candidate(text, "coref", 0.8, "atlas", "r", held_out=True) for text in held_out]
    given += [Candidate(text, "coref", 1.0, "wordnet", "r") for text in either]
    few, _ = select(given, embedder, corefs=2, held_out=1)
    assert set(texts(few, "coref", False)) < set(trained)
    assert set(texts(few, "coref", True)) < set(held_out)
    many, _ = select(given, embedder, corefs=5, held_out=4)
    assert set(trained) < set(texts(many, "coref", False))
    assert set(held_out) < set(texts(many, "coref", True))
    assert set(texts(many, "coref", False) + texts(many, "coref", True)) - {*trained, *held_out} < set(either)
    alone, _ = select(given[:5], embedder, corefs=8, held_out=4)
    assert set(texts(alone, "coref", True)) == set(held_out)


def test_no_held_out_phrase_is_nearly_a_training_phrase_or_another_one(embedder):
    pairs = [("house cat", "house-cat"), ("tabby cat", "tabby-cat"), ("tomcat", "tom-cat"), ("kitty", "kitty!")]
    given = candidates([text for pair in pairs for text in pair], "coref", (0.8,))
    chosen, _ = select(given, embedder, corefs=2, held_out=4)
    held_out = texts(chosen, "coref", True)
    assert held_out
    for text in held_out:
        others = [c.text for c in chosen if c.text != text]
        assert embedder.similarity([text], others).max() <= NEAR_DUPLICATE


@pytest.mark.parametrize(
    ("n", "train", "held_out"), [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (6, 4, 2), (9, 6, 3)]
)
def test_few_candidates_are_shared_out_in_proportion(embedder, n, train, held_out):
    chosen, left_over = select(candidates(COREFS[:n], "coref", (0.8,)), embedder, corefs=8, held_out=4)
    assert (len(texts(chosen, "coref", False)), len(texts(chosen, "coref", True))) == (train, held_out)
    assert left_over == []


def test_what_cannot_be_held_out_is_trained_instead(embedder):
    chosen, _ = select(candidates(COREFS[:6], "coref", (0.2,)), embedder, corefs=8, held_out=4)
    assert len(texts(chosen, "coref", False)) == 6


def test_a_score_wins_over_the_certainty(embedder):
    given = candidates(RETAINS, "retain")
    chosen, _ = select(
        given, embedder, retains=2, held_out=0, diversity=0, score=lambda c: float(c.text in ("horse", "owl"))
    )
    assert texts(chosen, "retain", False) == ["horse", "owl"]


def test_sides_that_are_not_wanted_stay_empty(embedder):
    chosen, left_over = select(candidates(COREFS, "coref"), embedder, corefs=0, retains=0, held_out=0)
    assert chosen == []
    assert len(left_over) == len(COREFS)


def test_the_choice_is_the_same_every_time(embedder):
    given = candidates(COREFS, "coref") + candidates(RETAINS, "retain")
    assert select(given, embedder) == select(given, embedder)


@pytest.mark.parametrize("wrong", [{"corefs": -1}, {"held_out": -2}, {"diversity": 1.5}, {"diversity": -0.1}])
def test_counts_and_diversity_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SuggestionSettings(**{"corefs": 1, "retains": 1, "held_out": 1, "diversity": 0.3, **wrong})
