from __future__ import annotations

from dataclasses import replace

import pytest

from crce.concepts import ConceptSet, Related
from crce.evaluate.prompt_sets.concept_set import common_unrelated, make_groups
from crce.evaluate.prompts import spread


def by_name(groups):
    return {group.name: group for group in groups}


def test_groups_hold_what_should_be_gone_and_what_should_stay(kitties, judge):
    groups = by_name(make_groups(kitties, judge))
    assert list(groups) == ["target", "coref", "coref_held_out", "retain", "retain_held_out", "unrelated"]
    texts = {name: [p.text for p in group.prompts] for name, group in groups.items()}
    assert texts["target"] == ["cat"]
    assert texts["coref"] == ["kitty", "moggy <b>&amp;"]
    assert texts["coref_held_out"] == ["kitten", "feline"]
    assert texts["retain"] == ["dog"]
    assert texts["retain_held_out"] == ["puppy", "vixen"]
    assert [group.erasing for group in groups.values()] == [True, True, True, False, False, False]


def test_corefs_are_recognised_as_the_target_and_retains_as_themselves(kitties, judge):
    groups = by_name(make_groups(kitties, judge))
    assert {p.expected for name in ("target", "coref", "coref_held_out") for p in groups[name].prompts} == {"cat"}
    assert [p.expected for p in groups["retain_held_out"].prompts] == ["dog", "fox"]


def test_unrelated_are_classes_that_no_phrase_names(kitties, judge):
    unrelated = by_name(make_groups(kitties, judge))["unrelated"]
    assert [(p.text, p.expected) for p in unrelated.prompts] == [("ship", "ship"), ("tree", "tree")]


def test_unrelated_are_spread_over_the_class_list(judge):
    judge.classes = [f"class {i}" for i in range(60)]
    judge.class_of = lambda text: text if text.startswith("class") else None
    unrelated = by_name(make_groups(ConceptSet("class 0"), judge))["unrelated"]
    places = [int(p.text.split()[1]) for p in unrelated.prompts]
    assert len(places) == 6
    assert places == sorted(places)
    assert min(b - a for a, b in zip(places, places[1:], strict=False)) >= 9
    assert 0 not in places


def test_phrase_without_a_class_is_left_out_with_the_reason(kitties, judge):
    concepts = replace(kitties, retains=(Related("ferret"),))
    (prompt,) = by_name(make_groups(concepts, judge))["retain"].prompts
    assert prompt.expected is None
    assert prompt.left_out == 'the colour judge has no class for "ferret"'


def test_retain_that_the_judge_takes_for_the_target_is_left_out(judge):
    concepts = ConceptSet("kitten", retains=(Related("kitty"),))
    (prompt,) = by_name(make_groups(concepts, judge))["retain"].prompts
    assert prompt.expected is None
    assert "one class" in prompt.left_out


def test_unknown_target_leaves_out_target_and_corefs_only(kitties, judge):
    groups = by_name(make_groups(replace(kitties, target="Mona Lisa"), judge))
    erasing = [p for name in ("target", "coref", "coref_held_out") for p in groups[name].prompts]
    assert {p.left_out for p in erasing} == {'the colour judge has no class for "Mona Lisa"'}
    assert all(p.left_out is None for p in groups["retain_held_out"].prompts)


def test_without_a_judge_nothing_is_scored_and_everyday_things_are_drawn(kitties):
    concepts = replace(kitties, retains=(Related("a red bicycle"),))
    groups = by_name(make_groups(concepts, None))
    assert {p.left_out for group in groups.values() for p in group.prompts} == {"no judge scored it"}
    assert len(groups["unrelated"].prompts) == 6
    assert not any("bicycle" in p.text for p in groups["unrelated"].prompts)


def test_unrelated_are_the_same_for_every_judge_that_knows_half_of_them(kitties, judge):
    common = ["tree", "fox", "ship", "anchor"]
    unrelated = by_name(make_groups(kitties, judge, common=common))["unrelated"].prompts
    assert [(p.text, p.expected) for p in unrelated] == [
        ("tree", "tree"),
        ("fox", None),
        ("ship", "ship"),
        ("anchor", None),
    ]
    assert unrelated[1].left_out == 'the judge has one class, "fox", for it and for a phrase of the set'
    assert unrelated[3].left_out == 'the colour judge has no class for "anchor"'
    without = by_name(make_groups(kitties, None, common=common))["unrelated"].prompts
    assert [p.text for p in without] == common
    strange = by_name(make_groups(kitties, judge, common=["tree", "anchor", "kite"]))["unrelated"].prompts
    assert [p.text for p in strange] == ["ship", "tree"]


def test_common_phrases_are_those_of_the_models_own_judge_or_everyday_things(kitties, judge):
    assert common_unrelated(kitties, [], judge) == ["ship", "tree"]
    assert common_unrelated(kitties, [ConceptSet("ship")], judge) == ["tree"]
    assert common_unrelated(kitties, [ConceptSet("a sunflower")], None)[0] == "a bowl of fruit"
    assert "a sunflower" not in common_unrelated(kitties, [ConceptSet("a sunflower")], None)


def test_long_lists_are_thinned_and_counted(judge):
    concepts = ConceptSet("cat", corefs=tuple(Related(f"cat {i}") for i in range(25)))
    group = by_name(make_groups(concepts, judge, limit=10))["coref"]
    assert len(group.prompts) == 10
    assert group.unused == 15


@pytest.mark.parametrize(
    ("items", "count", "expected"),
    [("abc", 5, "abc"), ("abcdef", 3, "ace"), ("abcde", 1, "a"), ("", 3, ""), ("abcdefg", 3, "ace")],
)
def test_spread(items, count, expected):
    assert "".join(spread(items, count)) == expected
