"""A concept set from a name, a file or a set, in Python as at the command line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from crce.concepts import ConceptSet, Related, find_concepts, write_concepts, write_sets
from crce.errors import ConceptError, SuggestError
from crce.suggest import Resolved, resolve_concept, resolve_concepts, suggest, write_record


CATS = ConceptSet("cat", corefs=(Related("moggy"),))
DOGS = ConceptSet("dog", corefs=(Related("puppy"),))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    monkeypatch.delenv("CRCE_SUGGESTER", raising=False)


def test_a_name_of_the_atlas_a_file_and_a_set_are_taken_as_they_are():
    write_concepts("mine.yaml", CATS)
    write_concepts("mine.json", CATS)
    assert resolve_concept("Cat") == find_concepts("cat")
    for own in ("mine.yaml", "mine.json", "mine.yaml#cat", Path("mine.yaml"), Path("mine.json"), CATS):
        assert resolve_concept(own) == CATS


def test_any_other_concept_is_suggested_with_its_record():
    (walrus,) = resolve_concepts(["walrus"])
    assert walrus.suggested
    assert walrus.record is not None
    assert walrus.record.concept_set == walrus.concepts == suggest("walrus").concepts
    assert resolve_concept("mouse (animal)").target == "mouse"


def test_what_a_suggestion_lacks_is_a_warning_and_without_corefs_an_error(caplog, monkeypatch):
    from crce.suggest.lexicon import LexiconSuggester

    propose = LexiconSuggester.propose
    monkeypatch.setattr(LexiconSuggester, "propose", lambda *a: [c for c in propose(*a) if c.side == "coref"])
    with caplog.at_level(logging.WARNING, logger="crce"):
        assert resolve_concept("walrus").retains == ()
    assert "without retains, neighbours of 'walrus'" in caplog.text
    assert "no retains to train, where 8 were asked for" in caplog.text
    monkeypatch.setattr(LexiconSuggester, "propose", lambda *a: [c for c in propose(*a) if c.side == "retain"])
    with pytest.raises(SuggestError, match=r"No coref of 'walrus' is known.*crce suggest walrus"):
        resolve_concept("walrus")


def test_the_record_beside_a_file_is_found():
    suggestion = suggest("walrus")
    write_concepts("walrus.yaml", suggestion.concepts)
    write_record("walrus.suggest.json", suggestion.record)
    assert resolve_concepts(["walrus.yaml"]) == [Resolved(suggestion.concepts, suggestion.record)]


def test_a_file_of_several_sets_stands_for_all_of_them_where_several_are_wanted():
    write_sets(Path("pets.yaml"), [CATS, DOGS])
    assert [r.concepts for r in resolve_concepts(["pets.yaml", "bird"])] == [CATS, DOGS, find_concepts("bird")]
    assert resolve_concept("pets.yaml#dog") == DOGS
    with pytest.raises(ConceptError, match=r"pets.yaml contains 2 concept sets. Name one, e.g. .*: cat, dog"):
        resolve_concept("pets.yaml")


@pytest.mark.parametrize("typo", ["cta", "airplain", "Taylor Swfit", "kitten", "missing.yaml", Path("walrus"), ""])
def test_typos_corefs_and_missing_files_are_errors(typo):
    with pytest.raises(ConceptError):
        resolve_concept(typo)


def test_nothing_is_suggested_before_everything_is_checked(monkeypatch):
    monkeypatch.setenv("CRCE_SUGGESTER", "no-such")  # would raise SuggestError
    for given in (["walrus", "missing.yaml"], ["walrus", "Walrus (animal)"], ["walrus", CATS, "cat"]):
        with pytest.raises(ConceptError):
            resolve_concepts(given)


def test_what_nobody_knows_says_what_to_do():
    with pytest.raises(SuggestError, match=r"crce suggest 'qwzxv jkqp' --kind KIND --out FILE.yaml"):
        resolve_concept("qwzxv jkqp")
