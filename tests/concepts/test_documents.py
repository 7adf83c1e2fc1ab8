import json

import pytest
import yaml

from crce.concepts import ConceptSet, Related, dump_concepts, nodes, parse_concepts, read_concepts, write_concepts
from crce.errors import ConceptError


CAT = """\
target: cat
kind: object
corefs:
  - {text: house cat, certainty: Very High}
  - {text: kitty, certainty: 0.8, source: WordNet}
  - kitten
  - {text: domestic cat, certainty: very low, held_out: true}
retains:
  - {text: dog, certainty: Very High}
"""
CAT_SET = ConceptSet(
    "cat",
    "object",
    corefs=(
        Related("house cat", 1.0),
        Related("kitty", 0.8, "WordNet"),
        Related("kitten", 1.0),
        Related("domestic cat", 0.2, held_out=True),
    ),
    retains=(Related("dog", 1.0),),
)
AWKWARD = ConceptSet(
    "Batman: The Movie",
    "character",
    corefs=(
        Related("no", 0.0, "a: b"),
        Related("1984", 0.85),
        Related("null", 1e-5),
        Related("2020-01-01", held_out=True),
        Related("- [x, y] # z"),
        Related("'quoted' \"twice\""),
        Related("Beyonc\ufffd, the/singer"),
        Related("猫 😺 é"),
        Related("a very long phrase " * 20),
    ),
    anchor="true",
)


def faults_of(text):
    with pytest.raises(ConceptError) as caught:
        parse_concepts(text, "cat.yaml")
    return str(caught.value)


@pytest.fixture(params=["libyaml", "pure"], autouse=True)
def loader(request, monkeypatch):
    """Line numbers and repeated keys must be found with and without the C parser."""
    if request.param == "pure":
        monkeypatch.setattr(nodes, "LOADER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")


def test_the_form_people_write_is_read():
    assert parse_concepts(CAT, "cat.yaml") == CAT_SET


def test_the_short_form_reads_as_the_long_one():
    short = """
target: cat
corefs: {Very High: [house cat, kitty], 0.5: [tabby]}
corefs_held_out: {Very High: [domestic cat]}
retains: [dog]
retains_held_out:
  Low:
    - fox
  Normal:
"""
    assert parse_concepts(short, "cat.yaml") == ConceptSet(
        "cat",
        corefs=(Related("house cat"), Related("kitty"), Related("tabby", 0.5), Related("domestic cat", held_out=True)),
        retains=(Related("dog"), Related("fox", 0.4, held_out=True)),
    )


@pytest.mark.parametrize("text", ["target: cat", "target: cat\ncorefs: []\nretains:\n", "target: cat\nanchor:\n"])
def test_lists_may_be_empty(text):
    assert parse_concepts(text, "cat.yaml") == ConceptSet("cat")


@pytest.mark.parametrize("concepts", [CAT_SET, AWKWARD, ConceptSet("cat", erase_from="an animal")])
@pytest.mark.parametrize("name", ["set.yaml", "set.json"])
def test_what_is_written_reads_back_equal(tmp_path, name, concepts):
    write_concepts(tmp_path / name, concepts)
    assert read_concepts(tmp_path / name) == concepts


def test_written_yaml_is_the_form_people_edit():
    assert dump_concepts(CAT_SET) == (
        "target: cat\n"
        "kind: object\n"
        "corefs:\n"
        "  - {text: house cat, certainty: Very High}\n"
        "  - {text: kitty, certainty: High, source: WordNet}\n"
        "  - {text: kitten, certainty: Very High}\n"
        "  - {text: domestic cat, certainty: Very Low, held_out: true}\n"
        "retains:\n"
        "  - {text: dog, certainty: Very High}\n"
    )


def test_every_fault_of_a_file_is_listed_with_its_line_in_one_message():
    lines = faults_of("""\
target: cat
knid: object
kind: objct
erase_from: an animal
anchor: dog
corefs:
  - {text: house cat, certainty: Hihg}
  - kitty
  - {text: "Kitty ", certainty: 1.2}
  - 1984
  - {text: "", certainty: true}
  - cat
corefs_held_out:
  High: [house  CAT]
retains:
  - kitty
  - Cat
  - {text: dog, txet: hound}
""").split("\n  ")
    allowed = "Use Very High, High, Normal, Low, Very Low, or a number from 0 to 1."
    keys = "target, kind, erase_from, anchor, corefs, corefs_held_out, retains, retains_held_out"
    assert lines == [
        "cat.yaml has 14 faults:",
        f"cat.yaml:2: unknown key 'knid' in a concept set. Known keys: {keys}. Did you mean 'kind'?",
        "cat.yaml:3: kind 'objct' is not known. "
        "Use one of: object, character, person, style, explicit, other. Did you mean 'object'?",
        "cat.yaml:5: erase_from 'an animal' and anchor 'dog' can't be used together: "
        "the first says where the target is erased, the second what it becomes. Keep one.",
        f"cat.yaml:7: coref 'house cat': certainty 'Hihg' is not known. {allowed} Did you mean 'High'?",
        f"cat.yaml:9: coref 'Kitty': certainty 1.2 is outside [0, 1]. {allowed}",
        "cat.yaml:9: coref 'Kitty' is already a coref (line 8). Keep one of them.",
        'cat.yaml:10: corefs[3] 1984 is read as a number, not text. Put it in quotes: "1984".',
        "cat.yaml:11: corefs[4]: text is empty. Write the phrase as it would appear in a prompt, or delete the entry.",
        f"cat.yaml:11: corefs[4]: certainty True is neither a word nor a number. {allowed}",
        "cat.yaml:12: coref 'cat' is the target itself, which is erased anyway. Delete it.",
        "cat.yaml:14: coref 'house CAT' is both a training and a held-out coref (line 7). "
        "Keep one: what is held out is never trained.",
        "cat.yaml:16: retain 'kitty' is also a coref (line 8) and can't be erased and kept. Delete it on one side.",
        "cat.yaml:17: retain 'Cat' is the target itself, and can't be erased and kept. Delete it.",
        "cat.yaml:18: unknown key 'txet' in retains[2]. "
        "Known keys: text, certainty, source, held_out. Did you mean 'text'?",
    ]


@pytest.mark.parametrize(
    ("phrase", "read_as"),
    [
        ("no", "true or false"),
        ("yes", "true or false"),
        ("1984", "a number"),
        ("1.5", "a number"),
        ("null", "nothing"),
        ("~", "nothing"),
        ("2020-01-01", "a date"),
    ],
)
def test_a_phrase_that_yaml_reads_as_something_else_must_be_quoted(phrase, read_as):
    message = faults_of(f"target: cat\ncorefs:\n  - {phrase}\n  - {{text: {phrase}}}\n")
    cure = f'{phrase} is read as {read_as}, not text. Put it in quotes: "{phrase}".'
    assert f"cat.yaml:3: corefs[0] {cure}" in message
    assert f"cat.yaml:4: corefs[1]: text {cure}" in message
    assert parse_concepts(f'target: cat\ncorefs: ["{phrase}"]', "cat.yaml").corefs == (Related(phrase),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target: cat\ntarget: dog", "cat.yaml:2: key 'target' is given twice (first on line 1). Keep one."),
        ("target: cat\nretains:\n  - {text: a, text: b}", "cat.yaml:3: key 'text' is given twice"),
        ("target: cat\ncorefs: {High: [a], 0.8: [b]}", "cat.yaml:2: corefs: certainty 0.8 is given twice"),
        ("kind: object", "cat.yaml:1: the set has no target. Add a line 'target: ...'"),
        ("target:", "cat.yaml:1: target is empty"),
        ("target: [a, b]", "cat.yaml:1: target is a list. Write one phrase."),
        ("target: !!binary YQ==", "target YQ== is read as a tag:yaml.org,2002:binary, not text"),
        ("target: cat\nkind: no", 'cat.yaml:2: kind no is read as true or false, not text. Put it in quotes: "no"'),
        ("target: cat\ncorefs: kitty", "cat.yaml:2: corefs is 'kitty'. Write a list of phrases"),
        ("target: cat\ncorefs:\n  -\n", "cat.yaml:3: corefs[0] is empty"),
        ("target: cat\ncorefs: [[a]]", "cat.yaml:2: corefs[0] is a list. Write one phrase."),
        ("target: cat\ncorefs: {High: kitty}", "cat.yaml:2: corefs: High is 'kitty'. Write a list"),
        (
            "target: cat\ncorefs: {High: [{text: a}]}",
            "corefs: High[0] is a mapping of keys to values. Write one phrase.",
        ),
        ("target: cat\ncorefs: {Hgih: [kitty]}", "corefs: certainty 'Hgih' is not known"),
        ("target: cat\ncorefs: [{certainty: High}]", "corefs[0] has no text. Write {text: a phrase"),
        ("target: cat\ncorefs: [{text: a, certainty: .nan}]", "coref 'a': certainty nan is outside [0, 1]"),
        ("target: cat\ncorefs: [{text: a, certainty: null}]", "coref 'a': certainty None is neither"),
        ("target: cat\ncorefs: [{text: a, held_out: 'no'}]", "coref 'a': held_out is 'no'. Use true or false"),
        ("target: cat\ncorefs_held_out: [{text: a, held_out: false}]", "held_out is false under corefs_held_out"),
        ("target: cat\ncorefs: [{text: a, source: 3}]", "coref 'a': source 3 is read as a number"),
        (
            "target: cat\ncorefs:\n  - Batman: The Movie",
            "If this is one phrase, put it in quotes: 'Batman: The Movie'.",
        ),
        ("target: cat\ncorefs: [{text: a, b}]", "put that phrase, with its comma, in quotes"),
        ("target: cat\ncorefs: [kitty]\nanchor: kitty", "cat.yaml:3: anchor 'kitty' is itself erased"),
        (
            "just words",
            "cat.yaml:1: 'just words' is not a concept set. Write 'key: value' lines with keys target, kind",
        ),
        ("- cat\n- dog", "cat.yaml has 2 faults"),
        ("target: cat\n corefs: [", "cat.yaml:2: not valid YAML"),
        ("target: cat\ncorefs: [a\nretains: []", "cat.yaml:3: not valid YAML"),
        ("target: cat: dog", "cat.yaml:1: not valid YAML: mapping values are not allowed"),
        ("target: cat\n---\ntarget: dog", "not valid YAML: but found another document"),
        ("target: " + "[" * 5000, "not valid YAML"),
        ('target: "a\x07"', "not valid YAML"),
        ("", "cat.yaml is empty. Write at least 'target: ...'"),
        ("# only a comment\n", "cat.yaml is empty"),
        ("[]", "cat.yaml is empty"),
        ("- target: cat\n- target: CAT", "cat.yaml:2: target 'CAT' is given twice. Keep one set."),
        ("- target: cat\n- target: dog", "cat.yaml contains 2 concept sets. Give one."),
        ("&a\ntarget: *a", "cat.yaml is nested deeper than 40 levels"),
    ],
)
def test_each_fault_says_what_was_given_and_what_to_do(text, message):
    assert message in faults_of(text)


def test_json_faults_name_the_concept_and_the_phrase(tmp_path):
    path = tmp_path / "cat.json"
    path.write_text('{"target": "cat", "corefs": ["kitty", 7, "Kitty"], "kind": "object", "kind": "x", "retain": []}')
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    message = str(caught.value)
    assert "cat.json has 5 faults" in message
    assert "cat.json: key 'kind' is given twice in one object" in message
    assert "unknown key 'retain' in a concept set" in message
    assert "Did you mean 'retains'?" in message
    assert 'cat.json: cat: corefs[1] 7 is read as a number, not text. Put it in quotes: "7".' in message
    assert "cat.json: cat: coref 'Kitty' is already a coref (corefs)" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"target": "cat",\n "corefs": [}', "cat.json:2: not valid JSON: Expecting value"),
        ("[" * 100_000, "not valid JSON"),
        ("[" * 700 + "]" * 700, "cat.json"),
        ("9" * 5000, "cat.json"),
        ('{"target": "\\ud800"}', "target '\\ud800' contains a control character"),
        ("null", "nothing is not a concept set"),
        ("[]", "cat.json is empty"),
    ],
)
def test_broken_json_is_refused_in_words(tmp_path, text, message):
    path = tmp_path / "cat.json"
    path.write_text(text)
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    assert message in str(caught.value)


def test_json_of_one_set_has_the_keys_of_the_yaml_form(tmp_path):
    write_concepts(tmp_path / "cat.json", CAT_SET)
    value = json.loads((tmp_path / "cat.json").read_text(encoding="utf-8"))
    assert list(value) == ["target", "kind", "corefs", "retains"]
    assert value["corefs"][1] == {"text": "kitty", "certainty": "High", "source": "WordNet"}
