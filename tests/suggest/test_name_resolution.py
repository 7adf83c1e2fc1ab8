"""Names as people type them: which entry, kind and meaning they get, and what can't be kept beside them."""

from __future__ import annotations

import re

import pytest

from crce.concepts import ConceptSet, Related, find_concepts
from crce.concepts.concept_set import name_key
from crce.concepts.library import atlas_entry
from crce.errors import ConceptError, SuggestError
from crce.suggest import Memory, resolve_concept, suggest
from crce.suggest.candidates import Candidate, Request
from crce.suggest.disambiguation import infer_kind
from crce.suggest.phrases import clean
from crce.suggest.wordnet import load_wordnet


@pytest.fixture(autouse=True)
def _own_decisions(tmp_path, monkeypatch):
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    monkeypatch.delenv("CRCE_SUGGESTER", raising=False)


@pytest.mark.parametrize(
    ("typed", "target"),
    [
        ("Spiderman", "Spider-Man"),
        ("spider man", "Spider-Man"),
        ("the cat", "cat"),
        ("Cats", "cat"),
        ("Vincent Van Gogh", "Van Gogh"),
        ("Dali", "Salvador Dalí"),
        ("salvador dali", "Salvador Dalí"),
        ("Picasso style", "Pablo Picasso"),
        ("Mickey", "Mickey Mouse"),
        ("Elsa", "Elsa from Frozen"),
    ],
)
def test_a_name_of_the_atlas_is_found_however_it_is_typed(typed, target):
    assert find_concepts(typed).target == target
    assert resolve_concept(typed).target == target


@pytest.mark.parametrize("narrower", ["kitten", "party clown", "Analytical Cubism", "The Starry Night"])
def test_a_narrower_coref_is_not_its_target(narrower):
    assert atlas_entry(narrower) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pelé", "pele"),
        ("Spider-Man", "spiderman"),
        ("the buses", "bus"),
        ("houses", "house"),
        ("cookies", "cookie"),
        ("ponies", "pony"),
        ("glasses", "glass"),
        ("foxes", "fox"),
        ("Picasso's", "Picasso"),
    ],
)
def test_one_name_has_one_key(one, other):
    assert name_key(one) == name_key(other)


def test_different_names_have_different_keys():
    names = [
        "cat",
        "cap",
        "cape",
        "car",
        "care",
        "ハハ",
        "パパ",
        "❤",
        "☀",
        "bus",
        "bush",
        "the",
        "rapist",
        "therapist",
    ]
    assert len({name_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("Emma Stone", "person"),
        ("Adele", "person"),
        ("Pele", "person"),
        ("Gandalf", "character"),
        ("Yoda", "character"),
        ("Hulk", "character"),
        ("anime", "style"),
        ("Sergio Aguero", "person"),  # among the retains of the atlas, and nowhere else
    ],
)
def test_the_names_that_the_atlas_keeps_are_known(typed, kind):
    assert infer_kind(typed) == kind
    found = suggest(typed, corefs=4, retains=6, held_out=0).concepts
    assert found.kind == kind
    assert len(found.corefs) == 4
    assert name_key(typed) not in {name_key(r.text) for r in found.retains}


@pytest.mark.parametrize("name", ["Gandalf", "dracula", "Mona Lisa", "Siamese cat"])
def test_a_coref_with_a_name_of_its_own_can_be_the_target(name):
    assert resolve_concept(name).target == name
    for other in ("kitten", "President Lincoln"):
        with pytest.raises(ConceptError, match=f"'{other}' is a coref of"):
            resolve_concept(other)


@pytest.mark.parametrize(("target", "retain"), [("Pele", "Pelé"), ("Spiderman", "Spider-Man"), ("cats", "the cat")])
def test_no_retain_is_the_target_in_another_spelling(target, retain):
    with pytest.raises(ConceptError, match="is the target itself"):
        ConceptSet(target, retains=(Related(retain),))
    request = Request(target, "person")
    assert not request.takes(retain, "retain")
    for source in ("atlas", "openai:model", "user"):
        kept, (dropped,) = clean([Candidate(retain, "retain", 1.0, source)], request)
        assert kept == []
        assert dropped.reason.startswith("it is the target")
    assert ConceptSet("Pelé", corefs=(Related("Pele"),)).corefs, "other spellings are what corefs are for"


def test_a_retain_made_of_the_targets_own_words_never_trains():
    given = [Candidate(text, "retain", 1.0, "openai:model") for text in ("Emma", "Stone", "Emma Watson")]
    kept, dropped = clean(given, Request("Emma Stone", "person"))
    assert [c.text for c in kept] == ["Emma Watson"]
    assert all("made of the target's own words" in c.reason for c in dropped)


@pytest.mark.parametrize(
    ("unknown", "far"), [("Emma Stonne", "gemstone"), ("Yodda", "yoga"), ("smartphonne", "marathoner"), ("qwzxv", "")]
)
def test_only_a_likely_slip_is_asked_about(unknown, far):
    with pytest.raises((SuggestError, ConceptError)) as caught:
        resolve_concept(unknown)
    assert far == "" or far not in str(caught.value)
    assert ("Did you mean" in str(caught.value)) == (unknown != "qwzxv")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("elefant", "elephant"),
        ("telefone", "telephone"),
        ("bicicle", "bicycle"),  # no icicle
        ("kangeroo", "kangaroo"),
        ("mikey mouse", "Mickey Mouse"),  # no sort of a mouse
        ("lenoardo dicaprio", "Leonardo DiCaprio"),
        ("Supermann", "Superman"),
        ("Roblox", None),  # no robalo: a capital name is no slip of a common word
        ("wzmelefant", None),  # it begins otherwise
    ],
)
def test_a_slip_is_of_what_is_often_said_and_begins_alike(typed, meant):
    with pytest.raises(SuggestError) as caught:
        suggest(typed)
    assert re.findall("Did you mean '(.*?)'", str(caught.value)) == ([meant] if meant else [])


def test_an_unlisted_name_with_a_first_name_is_a_person():
    assert infer_kind("Emma Zyxwvut") == "person"
    assert infer_kind("emma zyxwvut") is None
    assert infer_kind("Qwzxv Zyxwvut") is None
    assert infer_kind("Emma") != "person", "a first name alone is nobody"


def test_an_unlisted_sort_of_a_thing_keeps_the_other_sorts():
    found = suggest("cake spoon").concepts
    assert {r.text for r in found.corefs} <= {"cakespoon", "cake-spoon"}
    assert {"teaspoon", "soup spoon"} & {r.text for r in found.retains}
    assert "spoon" not in {r.text for r in found.corefs}, "a wider word"


@pytest.mark.parametrize(("word", "meanings"), [("running", ["act", "track and field"]), ("crane", ["animal"])])
def test_a_meaning_that_nothing_tells_is_asked_for(word, meanings):
    with pytest.raises(SuggestError, match="has several meanings. Is it") as caught:
        suggest(word, suggester="wordnet")
    for meaning in meanings:
        assert f"'{word} ({meaning})'" in str(caught.value)
        assert load_wordnet().choose(word, sense=meaning) is not None
    assert suggest("crane (animal)", suggester="wordnet").concepts.corefs


@pytest.mark.parametrize(
    ("word", "other"), [("mercury", "planet nearest"), ("crane", "wading bird"), ("bat", "cricket")]
)
def test_another_meaning_is_a_question_beside_the_set(word, other):
    asked = suggest(word).record.warnings[0]
    assert asked.startswith(f"'{word}' has several meanings. Is it '{word} (")
    assert other.split()[0] in asked


def test_a_set_without_corefs_must_be_confirmed():
    with pytest.raises(SuggestError, match=r"No coref of 'rug' is known.*--corefs 0") as caught:
        suggest("rug", suggester=OnlyRetains())
    assert caught.value.concept == "rug"
    assert suggest("rug", suggester=OnlyRetains(), corefs=0, held_out=0).concepts.retains


class OnlyRetains:
    name = "only-retains"

    def propose(self, request):
        return [Candidate("sofa", "retain", 0.9, self.name), Candidate("lamp", "retain", 0.8, self.name)]


def test_what_was_decided_in_a_review_is_reused():
    from crce.suggest import Review

    memory = Memory()
    first = suggest("cat", memory=memory)
    assert not any("meanings" in warning for warning in first.record.warnings)
    review = Review.start(first.concepts)
    number = {entry.related.text: entry.number for entry in review.entries}
    decided = review.reject(number["dog"]).add("coref", "zibeline mog").move(number["tiger"])
    memory.update([], decided.decisions())
    for again in ("cats", "The Cat"):
        found = suggest(again, memory=memory).concepts
        assert "dog" not in {r.text for r in found.retains}
        assert {"zibeline mog", "tiger"} <= {r.text for r in found.train_corefs}
        assert "tiger" not in {r.text for r in found.retains}
