"""Raw answers become phrases that can stand in a concept set, and every drop says why."""

from __future__ import annotations

import math

import pytest

from crce.concepts import atlas
from crce.suggest.candidates import Candidate, Request
from crce.suggest.phrases import clean, key, normalise, phrase_fault


CAT = Request("cat", "object")


def coref(text: str, certainty: float = 0.8, source: str = "openai:any") -> Candidate:
    return Candidate(text, "coref", certainty, source, "why")


def retain(text: str, certainty: float = 0.8, source: str = "openai:any") -> Candidate:
    return Candidate(text, "retain", certainty, source, "why")


def reasons(candidates: list[Candidate], request: Request = CAT) -> dict[str, str]:
    _, dropped = clean(candidates, request)
    return {d.text: d.reason for d in dropped}


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("  house \t cat\n", "house cat"),
        ("1. kitty", "kitty"),
        ("(2) kitty", "kitty"),
        ("- “kitty”,", "kitty"),
        ("**kitty**", "kitty"),
        ('"a kitty".', "kitty"),
        ("The kitty", "kitty"),
        ("the Rail Splitter", "Rail Splitter"),
        ("The Potato Eaters", "The Potato Eaters"),
        ("Robert Downey Jr.", "Robert Downey Jr."),
        ("E.T.", "E.T."),
        ("16th president", "16th president"),
        ("Campbell's Soup Cans", "Campbell's Soup Cans"),
        ("Yu-Gi-Oh!", "Yu-Gi-Oh!"),
        ("kit\u200bty\u202e", "kitty"),
        ("Cafe\u0301 Terrace", "Café Terrace"),
    ],
)
def test_phrases_lose_what_a_list_puts_around_them(raw, tidy):
    assert normalise(raw) == tidy
    assert normalise(tidy) == tidy


@pytest.mark.parametrize(
    "text", ["", " ", "?!", "a\x07b", "\ud800", "cat\ufffd", "one two three four five six seven eight nine", "x" * 61]
)
def test_texts_that_are_no_phrase_are_dropped(text):
    assert phrase_fault(normalise(text)) is not None
    kept, dropped = clean([coref(text), coref("kitty")], CAT)
    assert [c.text for c in kept] == ["kitty"]
    assert len(dropped) == 1


def test_megabytes_of_text_take_no_time():
    assert "longer" in reasons([coref("a.b " * 2_500_000)]).popitem()[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Kitty", "kitty"), ("kitties", "kitty"), ("the kitty", "kitty"), ("house-cat", "house cats"), ("mice", "mouse")],
)
def test_forms_of_one_phrase_are_the_same(one, other):
    assert key(one) == key(other)
    kept, dropped = clean([coref(one, 0.6), coref(other, 0.8)], CAT)
    assert [(c.text, c.certainty) for c in kept] == [(other, 0.8)]
    assert other in dropped[0].reason


@pytest.mark.parametrize(("one", "other"), [("A. Einstein", "Einstein"), ("glasses", "glass of water"), ("bus", "bu")])
def test_different_phrases_stay_apart(one, other):
    assert key(one) != key(other)


def test_nearly_identical_spellings_are_one_phrase_and_near_meanings_are_not():
    kept, dropped = clean([coref("grey tabby cat", 1.0), coref("gray tabby cat"), coref("tabby")], CAT)
    assert [c.text for c in kept] == ["grey tabby cat", "tabby"]
    assert [d.text for d in dropped] == ["gray tabby cat"]


def test_of_a_contradiction_the_more_certain_side_stays():
    kept, dropped = clean([coref("lynx", 0.4), retain("lynxes", 0.8), retain("lynx", 0.6)], CAT)
    assert [(c.text, c.side) for c in kept] == [("lynxes", "retain")]
    assert "more certainly" in {d.side: d.reason for d in dropped}["coref"]


def test_of_an_even_contradiction_nothing_stays():
    kept, dropped = clean([coref("lynx"), retain("Lynx"), coref("kitty")], CAT)
    assert [c.text for c in kept] == ["kitty"]
    assert len(dropped) == 2
    assert all("both" in d.reason for d in dropped)


def test_the_target_is_neither_a_coref_nor_a_retain():
    why = reasons([coref("the Cat"), retain("cats"), coref("cat (animal)")], Request("cat", "object", "animal"))
    assert set(why) == {"Cat", "cats", "cat (animal)"}
    assert set(why.values()) == {"it is the target itself"}


@pytest.mark.parametrize(
    ("target", "text", "holds"),
    [
        ("cat", "cat's paw", True),
        ("cat", "wild cats", True),
        ("cat", "catfish", False),
        ("Mickey Mouse", "Minnie Mouse", False),
        ("Mickey Mouse", "Mickey the Mouse", True),
        ("Van Gogh style", "paintings by Van Gogh", True),
        ("Van Gogh style", "Monet style", False),
        ("bank (river)", "bank building", True),
    ],
)
def test_a_retain_does_not_hold_the_words_of_the_target(target, text, holds):
    request = Request(target, "other")
    assert (text in reasons([retain(text)], request)) == holds
    if holds and "paintings" not in text:
        assert text not in reasons([coref(text)], request)


def test_curated_phrases_may_be_long_and_hold_the_words_of_the_target():
    bat = Request("bat", "object")
    long = "tall bearded statesman of the nineteenth century in a black top hat"
    curated = [retain("baseball bat", source="atlas"), coref(long, source="atlas")]
    assert len(clean(curated, bat)[0]) == 2
    assert clean([retain("baseball bat"), coref(long)], bat)[0] == []


def test_what_was_rejected_is_dropped_on_that_side_in_every_form():
    request = Request("cat", "object", avoid=frozenset({("coref", "Kitties")}))
    assert reasons([coref("the kitty")], request) == {"kitty": "it was rejected before"}
    assert reasons([retain("the kitty")], request) == {}


@pytest.mark.parametrize("certainty", [-0.1, 1.1, math.nan, math.inf])
def test_certainties_that_are_none_are_dropped(certainty):
    assert "certainty" in reasons([coref("kitty", certainty)])["kitty"]


def test_a_third_side_is_dropped():
    assert "neither" in reasons([Candidate("kitty", "both", 0.5, "x", "y")])["kitty"]


def test_order_is_by_certainty_then_as_proposed():
    given = [coref("moggy", 0.4), retain("dog", 0.8), coref("kitty", 0.8), retain("fox", 1.0)]
    kept, dropped = clean(given, CAT)
    assert [c.text for c in kept] == ["fox", "dog", "kitty", "moggy"]
    assert dropped == []
    assert clean([], CAT) == ([], [])


@pytest.mark.parametrize("target", ["cat", "Van Gogh", "Abraham Lincoln", "bat"])
def test_the_atlas_passes_all_but_whole(target):
    concepts = atlas()[target]
    given = [coref(r.text, r.certainty, "atlas") for r in concepts.corefs]
    given += [retain(r.text, r.certainty, "atlas") for r in concepts.retains]
    kept, dropped = clean(given, Request(target, concepts.kind))
    assert len(dropped) <= 1
    assert {c.source for c in kept} == {"atlas"}
