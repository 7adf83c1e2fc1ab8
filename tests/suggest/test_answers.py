import contextlib
import json
import time
from types import SimpleNamespace

import pytest
from suggest.scripted_chat import judged, lists

from crce.suggest import schemas
from crce.suggest.schemas import (
    MAX_CHARS,
    MAX_ITEMS,
    MAX_REASON,
    MAX_TEXT,
    AnswerError,
    Judgement,
    Proposal,
    judgements_schema,
    proposals_schema,
)


GOOD = lists({"kitty": "High", "Felis catus": "Very High"}, {"dog": "Very High", "lynx": "Low"})


def parse_proposals(text):
    notes = []
    return SimpleNamespace(value=schemas.parse_proposals(text, notes), notes=notes)


def parse_judgements(text, *, count):
    notes = []
    return SimpleNamespace(value=schemas.parse_judgements(text, notes, count=count), notes=notes)


def texts(proposals):
    return [p.text for p in proposals["coref"]], [p.text for p in proposals["retain"]]


def words(proposals):
    return [p.certainty for p in proposals["coref"]]


def with_certainty(value):
    return json.dumps(
        {
            "corefs": [{"text": "kitty", "reason": "r", "certainty": value}],
            "retains": [{"text": "dog", "reason": "r", "certainty": "High"}],
        }
    )


def test_a_well_formed_answer_is_taken_as_it_is():
    parsed = parse_proposals(GOOD)
    assert parsed.value["coref"][0] == Proposal(text="kitty", reason="about kitty", certainty="High")
    assert texts(parsed.value) == (["kitty", "Felis catus"], ["dog", "lynx"])
    assert words(parsed.value) == ["High", "Very High"]
    assert parsed.notes == []


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Sure! Here are the corefs and retains: you asked for {{them}}.\n\n{GOOD}\n\nLet me know if it helps.",
        f'{GOOD}\n{GOOD[:0]}Note: "pet" was left out.',
        f"A draft: {lists({'animal': 'High'}, {'pet': 'High'})}. Better: {GOOD}",
        f'{{"answer": {GOOD}}}',
        f"[{GOOD}]",
    ],
    ids=["fence", "prose", "note after", "draft first", "wrapped", "in a list"],
)
def test_what_stands_around_the_json_is_passed_over(text):
    parsed = parse_proposals(text)
    assert texts(parsed.value) == (["kitty", "Felis catus"], ["dog", "lynx"])


def test_what_a_model_thinks_aloud_is_passed_over():
    draft = lists({"animal": "High"}, {"pet": "High"})
    parsed = parse_proposals(f"<think>Maybe {draft}? No.</think>\n{GOOD}")
    assert parsed.value == parse_proposals(GOOD).value


@pytest.mark.parametrize("share", range(5, 100, 5))
def test_of_an_answer_that_is_cut_off_only_whole_entries_are_read(share):
    long = lists({f"coref {i}": "High" for i in range(8)}, {f"retain {i}": "Low" for i in range(8)})
    cut, notes = long[: len(long) * share // 100], []
    whole = cut.count('"certainty": "High"') + cut.count('"certainty": "Low"')
    try:
        value = schemas.parse_proposals(cut, notes)
    except AnswerError as error:
        if error.partial is None:
            assert whole == 0
            return
        value = error.partial
    corefs, retains = texts(value)
    assert set(corefs + retains) <= {f"coref {i}" for i in range(8)} | {f"retain {i}" for i in range(8)}
    assert abs(len(corefs) + len(retains) - whole) <= 1  # one whose certainty is half written is still plain
    assert any("cut off" in note or "repaired" in note for note in notes)


def test_an_empty_phrase_that_follows_the_form_is_left_out():
    parsed = parse_proposals(lists({"kitty": "High", "  ": "High", "...": "High"}, {"dog": "High"}))
    assert texts(parsed.value) == (["kitty"], ["dog"])
    assert parsed.notes == ["corefs that can't be used are left out: 2"]


def test_broken_json_is_repaired_and_noted():
    text = """{'corefs': [{'text': 'kitty', 'reason': 'the "small" one', 'certainty': 'High',},],
               "retains": [{"text": "dog" "reason": "r", "certainty": "Low"}]"""
    parsed = parse_proposals(text)
    assert texts(parsed.value) == (["kitty"], ["dog"])
    assert any("repaired" in note or "cut off" in note for note in parsed.notes)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("very high", "Very High"),
        ("VERY_HIGH", "Very High"),
        ("VeryLow", "Very Low"),
        ("Hihg", "High"),
        ("Medium", "Normal"),
        ("certain", "Very High"),
        ("highest", "Very High"),
        ("lowest", "Very Low"),
        (0.83, "High"),
        ("85%", "High"),
        ("0.2", "Very Low"),
        (1, "Very High"),
        (0, "Very Low"),
        ("", "Normal"),
        (None, "Normal"),
    ],
)
def test_a_wrong_certainty_is_read_as_a_word(given, word):
    parsed = parse_proposals(with_certainty(given))
    assert words(parsed.value) == [word]


def test_phrases_alone_are_read():
    text = json.dumps({"corefs": ["kitty", "tom", "puss"], "retains": ["dog"]})
    parsed = parse_proposals(text)
    assert texts(parsed.value) == (["kitty", "tom", "puss"], ["dog"])
    assert words(parsed.value) == ["Normal"] * 3


def test_other_names_of_the_keys_are_understood():
    text = json.dumps({"Coref": {"kitty": "High"}, "RETAINS": [{"Text": "dog", "CERTAINTY": "Low", "extra": 1}]})
    assert texts(parse_proposals(text).value) == (["kitty"], ["dog"])


def test_control_characters_are_removed():
    corefs = '[{"text": "kit\x00ty\x1b", "reason": "a\nb", "certainty": "High"}]'
    parsed = parse_proposals('{"corefs": ' + corefs + ', "retains": ["d\\u0007og\\ud800"]}')
    assert texts(parsed.value) == (["kitty"], ["dog"])
    assert parsed.value["coref"][0].reason == "a b"


def test_entries_without_a_usable_text_are_left_out():
    entries = [{"text": "kitty", "reason": "r", "certainty": "High"}, {"text": 7}, {}, None, "", "x" * 500, ["a"]]
    parsed = parse_proposals(json.dumps({"corefs": entries, "retains": ["dog"]}))
    assert texts(parsed.value) == (["kitty"], ["dog"])
    assert parsed.notes == ["corefs that can't be used are left out: 6"]


@pytest.mark.parametrize("given", [95, 8, "8", -3, 1e300, 10**400, True, "perhaps", "110%", "not high", {"a": 1}])
def test_a_certainty_that_nobody_knows_is_refused_with_its_phrase(given):
    parsed = parse_proposals(lists({"kitty": given, "moggy": "High"}, {"dog": "High"}))
    assert texts(parsed.value) == (["moggy"], ["dog"])
    assert parsed.notes == ["corefs that can't be used are left out: 1"]


def test_uncertain_is_not_read_as_certain():
    parsed = parse_proposals(lists({"kitty": "uncertain", "moggy": "unlikely"}, {"dog": "very certain"}))
    assert [p.certainty for p in parsed.value["coref"]] == ["Low", "Low"]
    assert [p.certainty for p in parsed.value["retain"]] == ["Very High"]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("kitty, pussycat", ["kitty", "pussycat"]),
        ("kitten, tabby cat, and tomcat", ["kitten", "tabby cat", "tomcat"]),
        ("tabby / tomcat; kitty", ["tabby", "tomcat", "kitty"]),
        ("Garfield, Tom, Felix", ["Garfield", "Tom", "Felix"]),
        ("kitty or pussycat", ["kitty", "pussycat"]),
        ("big, fluffy cat", ["big, fluffy cat"]),
        ("Elizabeth, Queen of England", ["Elizabeth, Queen of England"]),
        ("AC/DC", ["AC/DC"]),
        ("cat with a ball or a bell", ["cat with a ball or a bell"]),
    ],
)
def test_a_list_in_one_phrase_is_split(text, phrases):
    assert texts(parse_proposals(lists({text: "High"}, {"dog": "High"})).value)[0] == phrases


def test_no_more_is_taken_than_was_asked_for():
    many = lists({f"coref {i}": "High" for i in range(9)}, {f"retain {i}": "High" for i in range(9)})
    found = schemas.parse_proposals(many, [], most={"coref": 3, "retain": 4})
    assert [len(found[side]) for side in ("coref", "retain")] == [3, 4]


def test_long_lists_and_reasons_are_cut():
    many = {f"coref {i}": "High" for i in range(1000)}
    value = json.loads(lists(many, {"dog": "High"}))
    value["retains"][0]["reason"] = "why " * 1000
    parsed = parse_proposals(json.dumps(value))
    assert len(parsed.value["coref"]) == MAX_ITEMS
    assert MAX_REASON - 4 < len(parsed.value["retain"][0].reason) <= MAX_REASON  # cut between words
    assert parsed.notes == [f"corefs that can't be used are left out: {1000 - MAX_ITEMS}"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, but I can't help with that.",
        "PWNED",
        "{}",
        "[]",
        "null",
        '{"corefs": [], "retains": []}',
        '{"corefs": "kitty", "retains": 3}',
        '{"cats": ["kitty"]}',
        '{"corefs": ' * 3000,
        "[" * 100_000,
        "{" * 100_000,
        '{"corefs": [' + "[" * 50_000,
    ],
    ids=lambda text: text[:20],
)
def test_an_answer_that_says_nothing_is_an_error(text):
    with pytest.raises(AnswerError) as error:
        parse_proposals(text)
    assert error.value.partial is None
    assert len(str(error.value)) < 250


def test_one_empty_list_is_an_error_with_the_other_as_partial():
    with pytest.raises(AnswerError, match="contains no retains") as error:
        parse_proposals(lists({"kitty": "High"}, {}))
    assert texts(error.value.partial) == (["kitty"], [])


def work(text: str, times: int = 3) -> float:
    """The least processor time of a few tries of reading `text`."""
    spent = []
    for _ in range(times):
        clock = time.process_time()
        with contextlib.suppress(AnswerError):
            parse_proposals(text)
        spent.append(time.process_time() - clock)
    return min(spent)


@pytest.mark.parametrize("filler", ["bla ", '{"a": 1} ', "{", '{"corefs": ['])
def test_eight_times_the_text_takes_no_64_times_the_work_and_what_is_not_read_takes_none(filler):
    texts_of = [GOOD + filler * (n // len(filler)) for n in (MAX_CHARS // 8, MAX_CHARS, 20 * MAX_CHARS)]
    part, most, more = map(work, texts_of)
    assert most < 30 * max(part, 0.001)
    assert more < 10 * max(most, 0.01)
    parsed = parse_proposals(texts_of[-1])
    assert texts(parsed.value) == (["kitty", "Felis catus"], ["dog", "lynx"])
    assert f"only the first {MAX_CHARS:,} of {len(texts_of[-1]):,} characters are read" in parsed.notes


def test_eight_times_the_broken_json_takes_no_64_times_the_work():
    part, most = (work('{"corefs": ["' + 'a" b" ' * (n // 6), times=1) for n in (MAX_CHARS // 64, MAX_CHARS // 8))
    assert most < 30 * part


def test_the_schema_is_flat_and_closed():
    schema = proposals_schema(5, 7)
    assert "$ref" not in json.dumps(schema)
    assert schema["required"] == ["corefs", "retains"]
    assert schema["additionalProperties"] is False
    assert (schema["properties"]["corefs"]["maxItems"], schema["properties"]["retains"]["maxItems"]) == (5, 7)
    item = schema["properties"]["corefs"]["items"]
    assert item["required"] == ["text", "reason", "certainty"]
    assert item["properties"]["certainty"]["enum"] == ["Very High", "High", "Normal", "Low", "Very Low"]
    assert item["properties"]["text"] == {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    assert proposals_schema(1000, 1)["properties"]["corefs"]["maxItems"] == MAX_ITEMS
    assert judgements_schema(3)["required"] == ["1", "2", "3"]


def test_judgements_are_read_by_number():
    parsed = parse_judgements(judged("always", "never"), count=2)
    assert parsed.value == {1: Judgement(reason="seen", answer="always"), 2: Judgement(reason="seen", answer="never")}
    assert parsed.notes == []


@pytest.mark.parametrize(
    "text",
    [
        '```\n{"1": "Always", "2": "NEVER."}\n```',
        '{"answers": {"1": {"answer": "always."}, "2": {"answer": "Never, it is a dog", "reason": 4}}}',
        '1 and 2: {"1": {"reason": "x", "answer": "always"}, "2": {"reason": "y", "answer": "never"',
        '{"1": "always", "2": "never", "3": "always"}',
    ],
)
def test_odd_judgements_are_repaired(text):
    value = parse_judgements(text, count=2).value
    assert {number: judgement.answer for number, judgement in value.items()} == {1: "always", 2: "never"}


def test_nonsense_is_the_fourth_word():
    text = '{"1": "Nonsense, there is no such word", "2": {"reason": "seen", "answer": "nonsense"}}'
    assert [judgement.answer for judgement in parse_judgements(text, count=2).value.values()] == ["nonsense"] * 2
    answers = judgements_schema(1)["properties"]["1"]["properties"]["answer"]["enum"]
    assert answers == ["always", "sometimes", "never", "nonsense"]


def test_control_characters_are_removed_from_judgements():
    text = json.dumps({"1": {"reason": "x\x1b[2J\ny", "answer": "always"}})
    assert parse_judgements(text, count=1).value[1].reason == "x[2J y"


@pytest.mark.parametrize("answer", ["maybe", "not always", "", None, 3, ["always"]])
def test_a_judgement_that_is_none_of_the_four_words_is_missing(answer):
    text = json.dumps({"1": {"reason": "r", "answer": "never"}, "2": {"reason": "r", "answer": answer}})
    with pytest.raises(AnswerError, match="no answer for 2") as error:
        parse_judgements(text, count=2)
    assert list(error.value.partial) == [1]


@pytest.mark.parametrize("text", ["", "All of them: always.", "{}", '{"kitty": "always"}'])
def test_no_judgement_at_all_is_an_error(text):
    with pytest.raises(AnswerError) as error:
        parse_judgements(text, count=2)
    assert error.value.partial is None
