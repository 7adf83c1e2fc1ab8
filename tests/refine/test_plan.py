"""From what leaked and broke to the next concept set; the test half is never learned from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crce.concepts import Related
from crce.demo.embedding import load_embedder
from crce.errors import SuggestError
from crce.refine.plan import PER_FAILURE, PER_SIDE, RoundPlanner, find_failures
from crce.refine.split import split_held_out
from crce.suggest.candidates import Request
from crce.suggest.phrases import words


@pytest.fixture
def planned(many_cats, reported, list_suggester):
    """`planned(suggester, kitty=4)`: the plan after a report as `reported` makes it."""

    def make(suggester=None, concepts=many_cats, avoid=frozenset(), **erased):
        split = split_held_out(concepts, reported(concepts))
        found = find_failures(concepts, reported(concepts, **erased), split)
        return RoundPlanner(
            suggester or list_suggester(), split, load_embedder(), Request(concepts.target, concepts.kind, avoid=avoid)
        ).plan(concepts, found)

    return make


def changes(plan):
    return [(c.outcome, c.side, c.text) for c in plan.changes]


def texts(related):
    return [r.text for r in related]


def test_findings_are_worst_first_and_never_of_the_test_half(many_cats, reported):
    split = split_held_out(many_cats, reported(many_cats))
    report = reported(many_cats, cat=4, kitty=1, feline=4, kitten=4, dog=0, tiger=0, ship=1)
    found = find_failures(many_cats, report, split)
    assert [(f.text, f.group) for f in found] == [
        ("cat", "target"),
        ("kitty", "coref"),
        ("feline", "coref_held_out"),
        ("dog", "retain"),
        ("ship", "unrelated"),
    ]
    assert found[2].certainty == 0.8
    assert found[2].found == "recognised in 4 of 4 images, 4 before"


def test_nothing_that_leaked_or_broke_in_the_test_half_changes_anything(many_cats, reported):
    split = split_held_out(many_cats, reported(many_cats))
    assert find_failures(many_cats, reported(many_cats, kitten=4, Siamese_cat=4, tiger=0), split) == []


def test_a_leaked_probe_phrase_is_promoted_and_a_new_one_held_out_in_its_place(planned, list_suggester):
    suggester = list_suggester(corefs={"feline": ["puss", "pussycat", "mouser"], "cat": []})
    plan = planned(suggester, feline=4)
    assert changes(plan) == [
        ("promoted", "coref", "feline"),
        ("held-out", "coref", "puss"),
        ("added", "coref", "pussycat"),
        ("added", "coref", "mouser"),
    ]
    assert texts(plan.concepts.train_corefs) == ["kitty", "tabby", "feline", "pussycat", "mouser"]
    assert texts(plan.concepts.held_out_corefs) == ["kitten", "Siamese cat", "puss"]
    assert plan.changes[0].source == "atlas"
    assert plan.changes[1].reason == "related to 'feline', which leaked; means feline"
    # as sure as both steps together: puss means feline (0.8), feline means cat (0.8)
    assert plan.changes[1].certainty == 0.64
    assert [r.sense for r in suggester.asked if r.target == "feline"] == ["cat"]


def test_a_promoted_phrase_without_a_successor_is_noted(planned):
    plan = planned(feline=4)
    assert changes(plan) == [("promoted", "coref", "feline")]
    assert any("to hold out in place of 'feline'" in note for note in plan.notes)
    assert any("list suggester has nothing for 'feline'" in note for note in plan.notes)


def test_trained_phrases_that_leaked_or_broke_count_more(planned):
    plan = planned(kitty=4, tabby=4, fox=0)
    assert changes(plan) == [("raised", "coref", "tabby"), ("raised", "retain", "fox")]  # kitty counts fully already
    assert {r.text: (r.certainty, r.source) for r in plan.concepts.corefs}["tabby"] == (1.0, "atlas")


def test_around_a_broken_neighbour_its_own_names_and_neighbours_are_kept(planned, list_suggester):
    suggester = list_suggester(
        corefs={"wolf": ["grey wolf"], "cat": ["housecat"]},
        retains={"wolf": ["coyote", "housecat", "wild cat", "cat", "kitty"], "cat": ["leopard"]},
    )
    plan = planned(suggester, wolf=1)
    assert changes(plan) == [
        ("promoted", "retain", "wolf"),
        ("held-out", "retain", "grey wolf"),
        ("added", "retain", "coyote"),
        ("added", "retain", "leopard"),
    ]


def test_a_leaking_target_asks_for_more_of_its_own_names(planned, list_suggester):
    plan = planned(list_suggester(corefs={"cat": ["puss", "kitty", "grimalkin"]}), cat=4)
    assert changes(plan) == [("added", "coref", "puss"), ("added", "coref", "grimalkin")]


def test_of_the_targets_own_names_those_near_the_leak_come_first(planned, list_suggester):
    suggester = list_suggester(corefs={"cat": ["mouser", "grimalkin", "tabby kitty"]})
    assert changes(planned(suggester, tabby=4))[:2] == [
        ("raised", "coref", "tabby"),
        ("added", "coref", "tabby kitty"),
    ]


def test_new_phrases_keep_away_from_the_test_half_and_from_what_was_rejected(planned, list_suggester):
    proposed = ["kittens", "fluffy kitten", "siamese", "Bengal tiger", "puss", "mouser"]
    plan = planned(list_suggester(corefs={"cat": proposed}), cat=4, avoid=frozenset({("coref", "mouser")}))
    assert changes(plan) == [("added", "coref", "puss")]
    trained = plan.concepts.train_corefs + plan.concepts.train_retains
    assert not any({"kitten", "siamese", "tiger"} & set(words(r.text)) for r in trained)


def test_a_probe_phrase_too_near_the_test_half_is_not_promoted(planned, many_cats):
    concepts = replace(
        many_cats,
        corefs=(*many_cats.corefs[:3], Related("white kitten", held_out=True), *many_cats.corefs[4:]),
    )
    plan = planned(concepts=concepts, white_kitten=4)
    assert changes(plan) == []
    assert any("too close to 'kitten' in the test half" in note for note in plan.notes)
    assert plan.concepts == concepts


def test_an_unrelated_thing_that_broke_becomes_a_retain(planned):
    plan = planned(ship=0)
    assert changes(plan) == [("added", "retain", "ship")]
    assert plan.changes[0].source == "evaluation"


def test_a_round_adds_a_few_phrases_around_every_finding_not_many_around_one(planned, list_suggester):
    names = ["puss", "mouser", "grimalkin", "ratter", "purrer", "tomcat", "moggy", "grey mouser"]
    suggester = list_suggester(corefs={"kitty": names[:5], "tabby": names[3:], "cat": ["meower", "housecat"]})
    plan = planned(suggester, kitty=4, tabby=4, cat=4)
    added = [c for c in plan.changes if c.outcome == "added"]
    assert len(added) == PER_SIDE
    for leaked in ("kitty", "tabby", "cat"):
        assert 1 <= sum(c.reason.startswith(f"related to {leaked!r}") for c in added) <= PER_FAILURE


def test_a_suggester_is_asked_once_for_each_phrase(many_cats, reported, list_suggester):
    suggester = list_suggester(corefs={"cat": ["puss"], "kitty": []})
    split = split_held_out(many_cats, reported(many_cats))
    planner = RoundPlanner(suggester, split, load_embedder(), Request("cat", "object"))
    found = find_failures(many_cats, reported(many_cats, kitty=4), split)
    first = planner.plan(many_cats, found)
    planner.plan(first.concepts, found)
    assert [r.target for r in suggester.asked] == ["cat", "kitty"]


def test_the_target_is_asked_for_in_its_sense(many_cats, reported, list_suggester):
    suggester = list_suggester(corefs={"cat": ["puss"], "kitty": []})
    split = split_held_out(many_cats, reported(many_cats))
    found = find_failures(many_cats, reported(many_cats, kitty=4, dog=0), split)
    RoundPlanner(suggester, split, load_embedder(), Request("cat", "object", "animal")).plan(many_cats, found)
    assert {r.target: r.sense for r in suggester.asked} == {"cat": "animal", "kitty": "cat", "dog": None}


def test_a_fault_of_a_language_model_is_no_note(planned, list_suggester):
    suggester = list_suggester(corefs={"cat": ["puss"]})
    assert any("nothing for 'kitty'" in note for note in planned(suggester, kitty=4).notes)
    suggester.chat = object()
    with pytest.raises(SuggestError, match="'kitty' is not on the list"):
        planned(suggester, kitty=4)


def test_the_anchor_is_not_erased(planned, many_cats, list_suggester):
    concepts = replace(many_cats, anchor="animal")
    plan = planned(list_suggester(corefs={"cat": ["animal", "puss"]}), concepts=concepts, cat=4)
    assert changes(plan) == [("added", "coref", "puss")]
