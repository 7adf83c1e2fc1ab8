"""The record of a suggestion: written whole, read back equal, and refused with every fault named."""

from __future__ import annotations

import json

import pytest

from crce.concepts import ConceptSet, Related
from crce.errors import RunError, SuggestError
from crce.suggest.candidates import Candidate, Example, Request
from crce.suggest.grounding import Grounded
from crce.suggest.record import (
    Record,
    Score,
    SuggestionSettings,
    Verified,
    plain_concepts,
    read_record,
    write_record,
)


CATS = ConceptSet(
    "cat", corefs=(Related("kitty", 0.8, "openai:any"),), retains=(Related("dog", 0.6, "wordnet", True),)
)
RECORD = Record(
    crce="0.0.1",
    suggester="openai:any",
    provider="openai",
    model="any",
    prompt_hash="0123456789abcdef",
    request=Request(
        "cat",
        "object",
        "animal",
        corefs=12,
        avoid=frozenset({("retain", "tiger"), ("coref", "pet"), ("coref", "animal")}),
        examples=(Example("dog", "puppy", "coref", True),),
    ),
    settings=SuggestionSettings(
        corefs=8, retains=8, held_out=4, diversity=0.3, verify="question", ground="demo", seed=3
    ),
    proposed=(Candidate("Kitty", "coref", 0.8, "openai:any", "a “pet” name – 猫"),),
    exchanges=({"kind": "propose", "text": 'prose {"corefs": []}\n'},),
    verified=(Verified(text="kitty", side="coref", stated=0.8, certainty=0.8, answer="always", reason="so"),),
    grounding={"kitty": Grounded(0.1, 0.9, None, 0, 48)},
    scores=(Score(text="kitty", side="coref", score=0.7),),
    decisions=(Candidate("kitty", "coref", 0.8, "openai:any", "so", outcome="train"),),
    warnings=("1 coref, where 8 were asked for",),
    concepts=plain_concepts(CATS),
)


def test_a_record_is_read_back_equal(tmp_path):
    path = tmp_path / "deep" / "cat.suggest.json"
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    assert read_record(path).concept_set == CATS
    assert read_record(path).request == RECORD.request


def test_the_file_has_an_order_of_its_own(tmp_path):
    write_record(tmp_path / "one.json", RECORD)
    avoid = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))["request"]["avoid"]
    assert avoid == [["coref", "animal"], ["coref", "pet"], ["retain", "tiger"]]


def test_text_that_no_file_can_hold_is_written_all_the_same(tmp_path):
    odd = Candidate("\ud800 half a character", "coref", float("nan"), "openai:any", "\x00")
    record = RECORD.model_copy(update={"proposed": (odd,), "exchanges": ({"text": "\udfff"},)})
    write_record(tmp_path / "odd.json", record)
    assert "half a character" in read_record(tmp_path / "odd.json").proposed[0].text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decisions": None}, ["decisions"]),
        ({"proposed": [{"text": "kitty"}]}, ["proposed.0.side", "certainty"]),
        ({"request": {"target": "cat", "kind": "beast"}}, ["request.kind", "object"]),
        ({"extra": 1}, ["extra"]),
        ({"concepts": {"target": "cat", "corefs": ["dog"], "retains": ["dog"]}}, ["concept set", "dog"]),
        ({"concepts": {}}, ["concept set", "target"]),
    ],
    ids=str,
)
def test_faults_of_a_record_are_named(tmp_path, change, words):
    path = tmp_path / "cat.suggest.json"
    path.write_text(json.dumps(RECORD.model_dump(mode="json") | change), encoding="utf-8")
    with pytest.raises(SuggestError) as error:
        read_record(path)
    for word in (str(path), *words):
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "null", '{"crce": "1"', "[" * 100_000])
def test_other_files_are_no_record(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(SuggestError, match="not a record"):
        read_record(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SuggestError, match="No such file"):
        read_record(tmp_path / "missing.json")
    with pytest.raises(SuggestError, match="read"):
        read_record(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"crce": "\xe9"}')
    with pytest.raises(SuggestError, match="read"):
        read_record(tmp_path / "latin.json")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write"):
        write_record(tmp_path / "file" / "cat.suggest.json", RECORD)
