"""The table of prompts: what is encoded, and what becomes of phrases that several sets name."""

from __future__ import annotations

import torch

from crce.concepts import ConceptSet, Related
from crce.training.prompts import make_table


def test_every_phrase_stands_once_and_the_empty_prompt_first(tiny_backbone, cats):
    table = make_table(tiny_backbone, [cats], crce=True)
    assert table.texts == ["", "cat", "kitty", "house cat", "tabby", "moggy", "dog", "fox", "tiger"]
    (prompts,) = table.sets
    assert (prompts.target, prompts.prompt, prompts.base) == (1, 1, 0)
    assert prompts.corefs == [(2, 1.0), (3, 0.8), (4, 0.6), (5, 0.4)]
    assert prompts.retains == [(6, 1.0), (7, 0.8), (8, 0.5)]
    torch.testing.assert_close(table.cond.hidden, tiny_backbone.encode(table.texts).hidden)


def test_more_phrases_than_fit_in_one_batch_are_encoded_alike(tiny_backbone, monkeypatch, cats):
    whole = make_table(tiny_backbone, [cats], crce=True)
    monkeypatch.setattr(type(tiny_backbone), "prompts_at_once", 2)
    torch.testing.assert_close(make_table(tiny_backbone, [cats], crce=True).cond.hidden, whole.cond.hidden)


def test_what_one_set_erases_no_set_keeps(tiny_backbone):
    cat = ConceptSet("cat", retains=(Related("Dog"), Related("puppy"), Related("fox")))
    dog = ConceptSet("dog", corefs=(Related("puppy"),), retains=(Related("cat"), Related("fox")))
    table = make_table(tiny_backbone, [cat, dog], crce=True)
    assert [[table.texts[i] for i, _ in prompts.retains] for prompts in table.sets] == [["fox"], ["fox"]]
    plain = make_table(tiny_backbone, [cat, dog], crce=False)
    assert plain.texts == ["", "cat", "dog"]


def test_everyday_phrases_stand_beside_retains_and_in_their_place_without(tiny_backbone, cats):
    words = ["Kitty", "car", "house"]  # the first is a coref
    table = make_table(tiny_backbone, [cats], crce=True, vocabulary=words)
    (prompts,) = table.sets
    assert [table.texts[i] for i, _ in prompts.retains] == ["dog", "fox", "tiger"]
    assert [(table.texts[i], weight) for i, weight in prompts.everyday] == [("car", 1.0), ("house", 1.0)]
    plain = make_table(tiny_backbone, [cats], crce=False, vocabulary=words)
    (prompts,) = plain.sets
    assert [(plain.texts[i], weight) for i, weight in prompts.retains] == [(word, 1.0) for word in words]
    assert prompts.everyday == []


def test_an_anchor_and_erase_from_are_the_base(tiny_backbone):
    table = make_table(
        tiny_backbone, [ConceptSet("cat", anchor="dog"), ConceptSet("fox", erase_from="pet")], crce=True
    )
    cat, fox = table.sets
    assert [table.texts[i] for i in (cat.target, cat.prompt, cat.base)] == ["cat", "cat", "dog"]
    assert [table.texts[i] for i in (fox.target, fox.prompt, fox.base)] == ["fox", "pet", "pet"]
