"""The training lists of several suggesters that benchmarks/erasure/lists.yaml compares with the atlas's."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import scripts

from crce.concepts import atlas, read_sets
from crce.suggest import Request
from crce.suggest.phrases import key


ERASURE = Path(__file__).parents[2] / "benchmarks" / "erasure"
TARGETS = ["cat", "dog", "car", "bird", "horse", "frog"]
SOURCES = {"lexicon": "wordnet", "nearest": "nearest", "llm": "local:gemma-3-270m-q4_k_m.gguf"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/erasure/suggested.py."""
    return scripts.load("benchmarks/erasure/suggested.py")


@pytest.mark.parametrize("name", SOURCES)
def test_the_lists_hold_the_six_targets_and_nothing_that_is_measured(name: str) -> None:
    sets = read_sets(ERASURE / "suggested" / f"{name}.yaml")
    assert [concepts.target for concepts in sets] == TARGETS
    assert any(concepts.corefs or concepts.retains for concepts in sets)
    for concepts in sets:
        measured = atlas()[concepts.target]
        assert concepts.kind == measured.kind
        held_out = {key(r.text) for r in measured.held_out_corefs + measured.held_out_retains}
        assert held_out
        phrases = concepts.corefs + concepts.retains
        assert not held_out & {key(r.text) for r in phrases}
        assert not any(r.held_out for r in phrases)
        assert {r.source for r in phrases} <= {SOURCES[name]}


@pytest.mark.parametrize("name", SOURCES)
def test_the_lists_are_what_the_suggester_gave(script: ModuleType, name: str) -> None:
    record = json.loads((ERASURE / "suggested" / "record.json").read_text(encoding="utf-8"))
    written = (ERASURE / "suggested" / f"{name}.yaml").read_text(encoding="utf-8")
    assert written == script.text_of(record[name]), "run: python benchmarks/erasure/suggested.py"


def test_what_is_measured_is_left_out_before_anything_is_chosen(script: ModuleType) -> None:
    measured, request = atlas()["frog"], Request("frog", "object", corefs=8, retains=8)
    nearest = script.NearestSuggester()
    suggester = script.WithoutHeldOut(nearest, measured)
    kept = suggester.propose(request)
    left_out = [each["text"] for each in suggester.left_out]
    assert {"froggy", "toad"} <= set(left_out)
    assert sorted([*left_out, *(c.text for c in kept)]) == sorted(c.text for c in nearest.propose(request))
    assert {each["held_out"] for each in suggester.left_out if each["text"] in ("froggy", "toad")} == {"coref"}


@pytest.mark.parametrize(("name", "share"), [("fifth", 0.2), ("two_fifths", 0.4)])
def test_lists_with_mistakes_have_that_share_of_the_atlas_on_the_wrong_side(name: str, share: float) -> None:
    low = scripts.load("benchmarks/erasure/mistaken.py").LOW
    for own in read_sets(ERASURE / "mistaken" / f"{name}.yaml"):
        right = atlas()[own.target]
        corefs, retains = ({r.text for r in side} for side in (right.train_corefs, right.train_retains))
        wrong = [r for r in own.corefs if r.text in retains], [r for r in own.retains if r.text in corefs]
        assert [len(side) for side in wrong] == [round(share * len(corefs))] * 2
        assert {r.certainty for side in wrong for r in side} == {low}
        assert {r.text for r in own.corefs + own.retains} == corefs | retains  # nothing that is held out
