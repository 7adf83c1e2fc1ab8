import json
from pathlib import Path

import pytest

from crce.concepts import (
    ConceptSet,
    Related,
    dump_concepts,
    find_concepts,
    parse_concepts,
    read_concepts,
    read_corefconcept,
)
from crce.errors import ConceptError


PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "corefconcept"


def entry(concept="cat", **changes):
    return {
        "type": "object",
        "concept": concept,
        "train-coref": ["kitty", "house cat"],
        "train-coref-certainty": ["High", "Low"],
        "test-coref": ["feline"],
        "test-coref-certainty": ["Very Low"],
        "train-retain": ["dog"],
        "train-retain-certainty": ["Normal"],
        "test-retain": ["fox"],
        "test-retain-certainty": ["Very High"],
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }


@pytest.fixture
def read(tmp_path):
    """Reads entries of the group "object"; gives the sets and, for every fault, its outcome, place and text."""

    def read(*entries, group="object"):
        path = tmp_path / "pets.json"
        path.write_text(json.dumps({group: list(entries)}), encoding="utf-8")
        sets, faults = read_corefconcept(path)
        assert {fault.file for fault in faults} <= {"pets.json"}
        return sets, [(fault.outcome, fault.concept, fault.field, fault.index, fault.text) for fault in faults]

    return read


def test_a_plain_entry_is_read_without_faults(read):
    corefs = (
        Related("kitty", 0.8, "corefconcept"),
        Related("house cat", 0.4, "corefconcept"),
        Related("feline", 0.2, "corefconcept", held_out=True),
    )
    retains = (Related("dog", 0.6, "corefconcept"), Related("fox", 1.0, "corefconcept", held_out=True))
    assert read(entry()) == ([ConceptSet("cat", "object", corefs, retains)], [])


@pytest.mark.parametrize(
    ("type_", "kind"), [("object", "object"), ("celebrity", "person"), ("IP", "character"), ("style", "style")]
)
def test_types_become_kinds(read, type_, kind):
    (concepts,), faults = read(entry(type=type_))
    assert (concepts.kind, faults) == (kind, [])


def test_the_group_stands_in_for_a_missing_type(read):
    bare = {key: value for key, value in entry().items() if key != "type"}
    assert read(bare, group="ip")[0][0].kind == "character"


def test_an_unknown_type_is_read_as_other(read):
    (concepts,), ((outcome, concept, field, _, text),) = read(entry(type="vehicle"))
    assert concepts.kind == "other"
    assert (outcome, concept, field) == ("repaired", "cat", "type")
    assert "'vehicle' is not a known type (object, IP, celebrity, style, explicit, other)" in text


def test_a_name_with_brackets_is_the_target_as_it_stands(read):
    (concepts,), faults = read(entry("apple (fruit)"))
    assert (concepts.target, faults) == ("apple (fruit)", [])


def test_a_missing_certainty_is_read_as_normal(read):
    (concepts,), ((outcome, concept, field, index, text),) = read(entry(train_coref_certainty=["High"]))
    assert [(r.text, r.certainty) for r in concepts.train_corefs] == [("kitty", 0.8), ("house cat", 0.6)]
    assert (outcome, concept, field, index) == ("repaired", "cat", "train-coref", None)
    assert text.startswith("phrases: 2, certainties: 1")


def test_a_certainty_without_a_phrase_is_dropped(read):
    (concepts,), ((outcome, _, field, _, text),) = read(entry(test_retain_certainty=["Low", "High", "High"]))
    assert [(r.text, r.certainty) for r in concepts.held_out_retains] == [("fox", 0.4)]
    assert (outcome, field) == ("repaired", "test-retain")
    assert text.startswith("phrases: 1, certainties: 3")


@pytest.mark.parametrize(
    ("changes", "expected", "place"),
    [
        ({"test_coref": ["Kitty"]}, ["kitty", "house cat"], ("test-coref", 0)),
        ({"train_coref": ["kitty", "kitty"]}, ["kitty", "feline"], ("train-coref", 1)),
        ({"test_coref": ["CAT"]}, ["kitty", "house cat"], ("test-coref", 0)),
        ({"train_coref": [" kitty", "house cat"]}, ["kitty", "house cat", "feline"], ("train-coref", 0)),
        ({"train_coref_certainty": [None, 0.4]}, ["kitty", "house cat", "feline"], ("train-coref-certainty", 0)),
    ],
)
def test_what_loses_nothing_is_repaired_and_reported(read, changes, expected, place):
    (concepts,), ((outcome, concept, field, index, _),) = read(entry(**changes))
    assert [r.text for r in concepts.corefs] == expected
    assert (outcome, concept, field, index) == ("repaired", "cat", *place)


def test_a_missing_list_is_empty_and_reported(read):
    without = {key: value for key, value in entry().items() if not key.startswith("test-retain")}
    (concepts,), ((outcome, _, field, _, _),) = read(without)
    assert concepts.held_out_retains == ()
    assert (outcome, field) == ("repaired", "test-retain")


@pytest.mark.parametrize("phrase", ["Beyonc\ufffd", "cat, the animal", "cat/kitten"])
def test_odd_phrases_are_kept_verbatim_and_noted(read, phrase):
    (concepts,), ((outcome, concept, field, index, text),) = read(entry(train_retain=[phrase]))
    assert concepts.train_retains[0].text == phrase
    assert (outcome, concept, field, index) == ("note", "cat", "train-retain", 0)
    assert repr(phrase) in text


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"train_retain": ["kitty"]}, ("cat", "train-retain", 0), "is also a coref (train-coref[0])"),
        ({"test_retain": ["Cat"]}, ("cat", "test-retain", 0), "is the target itself"),
        ({"train_coref": ["kitty", ""]}, ("cat", "train-coref", 1), "is empty"),
        ({"train_coref": ["kitty", 7]}, ("cat", "train-coref", 1), "7 is not text"),
        ({"train_coref": "kitty"}, ("cat", "train-coref", None), "'kitty' is not a list"),
        ({"train_coref_certainty": ["Hihg", "Low"]}, ("cat", "train-coref-certainty", 0), "Did you mean 'High'?"),
        ({"train_coref_certainty": [1.5, "Low"]}, ("cat", "train-coref-certainty", 0), "outside [0, 1]"),
        ({"concept": ""}, (None, "object", 0), "concept: '' is not a concept's name"),
    ],
)
def test_a_concept_with_a_real_fault_is_left_out(read, changes, place, message):
    sets, faults = read(entry(**changes), entry("dog", train_retain=["wolf"]))
    assert [concepts.target for concepts in sets] == ["dog"]
    errors = [fault for fault in faults if fault[0] == "error"]
    assert [fault[1:4] for fault in errors] == [place]
    assert message in errors[0][4]


def test_a_misspelt_list_is_not_lost_silently(read):
    misspelt = {{"train-coref": "train-corefs"}.get(key, key): value for key, value in entry().items()}
    sets, faults = read(misspelt)
    assert sets == []
    assert ("error", "cat", "train-corefs", None, "unknown key, not read. Did you mean 'train-coref'?") in faults


def test_an_unrelated_key_is_noted(read):
    (_,), ((outcome, _, field, _, _),) = read(entry(reviewer="me"))
    assert (outcome, field) == ("note", "reviewer")


def test_a_concept_that_stands_twice_is_read_once(read):
    sets, ((outcome, concept, _, index, _),) = read(entry(), entry("Cat"))
    assert [concepts.target for concepts in sets] == ["cat"]
    assert (outcome, concept, index) == ("error", "Cat", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must map a group to a list of concepts"),
        ('{"object": "cat"}', "must map a group to a list of concepts"),
        ('{"object": [', "not valid JSON"),
        ('{"object": [], "object": []}', "key 'object' is given twice"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "pets.json").write_text(text)
    with pytest.raises(ConceptError, match=message):
        read_corefconcept(tmp_path / "pets.json")


def test_one_concept_of_a_file_is_chosen_by_name(tmp_path, caplog):
    path = tmp_path / "pets.json"
    path.write_text(
        json.dumps({"object": [entry(test_coref=["cat"]), entry("bank (river)"), entry("x", train_retain=["x"])]})
    )
    assert read_concepts(f"{path}#bank (river)").target == "bank (river)"
    assert not caplog.records
    assert find_concepts(f"{path}#CAT").target == "cat"
    assert "test-coref[0]: 'cat' is the target itself" in caplog.text
    with pytest.raises(
        ConceptError, match=r"contains 2 concept sets. Name one, e.g. '.*pets.json#cat': cat, bank \(river\)"
    ):
        read_concepts(path)
    with pytest.raises(ConceptError, match="has no concept 'cta'. Did you mean 'cat'"):
        read_concepts(f"{path}#cta")
    with pytest.raises(ConceptError, match=r"pets.json: x: train-retain\[0\]: 'x' is the target itself"):
        read_concepts(f"{path}#x")


def test_the_only_concept_of_a_file_needs_no_name(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text(json.dumps({"object": [entry()]}))
    assert find_concepts(path).target == "cat"
    path.write_text(json.dumps({"object": [entry(train_retain=["kitty"])]}))
    with pytest.raises(ConceptError, match="is also a coref"):
        find_concepts(path)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published CorefConcept files are not at {PUBLISHED}")
@pytest.mark.parametrize(("name", "kind"), [("object", "object"), ("celebrity", "person"), ("ip", "character")])
def test_the_published_files_are_read_whole(name, kind):
    path = PUBLISHED / f"{name}.json"
    entries = [e for group in json.loads(path.read_text(encoding="utf-8")).values() for e in group]
    sets, faults = read_corefconcept(path)

    assert [concepts.target for concepts in sets] == [e["concept"] for e in entries]
    assert {concepts.kind for concepts in sets} == {kind}
    assert all(fault.outcome != "error" for fault in faults)
    lists = ("train-coref", "test-coref", "train-retain", "test-retain")
    lost = {(e["concept"], key, i) for e in entries for key in lists for i, p in enumerate(e[key]) if "\ufffd" in p}
    assert {(f.concept, f.field, f.index) for f in faults if "U+FFFD" in f.text} == lost
    dropped = [f for f in faults if "It was dropped" in f.text]
    phrases = sum(len(e[key]) for e in entries for key in lists)
    assert sum(len(c.corefs) + len(c.retains) for c in sets) == phrases - len(dropped)

    assert [parse_concepts(dump_concepts(concepts), "x") for concepts in sets] == sets
