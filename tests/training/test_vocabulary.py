"""Which phrases a method keeps by itself."""

from __future__ import annotations

from crce.concepts import ConceptSet, atlas, find_concepts
from crce.concepts.concept_set import fold
from crce.training.prompts import near_vocabulary


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
