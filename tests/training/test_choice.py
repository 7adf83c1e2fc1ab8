"""Which corefs and retains a step takes."""

from __future__ import annotations

import pytest

from crce.concepts import ConceptSet, atlas, find_concepts
from crce.concepts.concept_set import fold
from crce.methods.objective import Row
from crce.training.choice import MEMORY, Damage, near_vocabulary


def rows(*prompts: int, role="retain") -> list[Row]:
    return [Row(role, i, i, 1.0) for i in prompts]


def test_damage_compares_within_a_step_and_side():
    damage = Damage()
    damage.note([*rows(1, 2), *rows(3, 4, role="coref")], [1e-2, 1e-4, 1.0, 1.0])
    assert damage.values[1] == pytest.approx(-damage.values[2])
    assert damage.values[3] == damage.values[4] == 0
    before = damage.values[1]
    damage.note(rows(1, 2), [1e-9, 1e-9])  # a noise level at which all losses are small says nothing
    assert damage.values[1] == pytest.approx(MEMORY * before)


def test_what_was_never_trained_comes_first_and_then_what_is_damaged_most():
    damage = Damage()
    damage.note(rows(1, 2, 3), [1e-3, 1e-1, 1e-2])
    assert [i for i, _ in damage.worst_first([(1, 1.0), (2, 1.0), (3, 1.0), (9, 1.0)])] == [9, 2, 3, 1]


def test_the_vocabulary_is_near_and_holds_nothing_of_the_set(demo_backbone):
    cat = find_concepts("cat")
    words = near_vocabulary(demo_backbone, [cat], 20)
    assert len(words) == len(set(words)) == 20
    assert set(words) <= set(atlas())
    named = {fold(r.text) for r in cat.corefs + cat.retains}
    assert not named & {fold(word) for word in words}
    states = demo_backbone.encode(["cat", *words]).hidden.flatten(1)
    distances = (states[1:] - states[0]).norm(dim=1).tolist()
    assert distances == sorted(distances)
    everyone = demo_backbone.encode(["cat", *atlas()]).hidden.flatten(1)
    assert distances[0] < float((everyone[1:] - everyone[0]).norm(dim=1).mean())


def test_without_a_count_nothing_is_encoded():
    assert near_vocabulary(None, [ConceptSet("cat")], 0) == []
