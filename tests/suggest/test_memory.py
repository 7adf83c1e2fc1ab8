"""Decisions on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from crce.errors import RunError, SuggestError
from crce.suggest.candidates import Example
from crce.suggest.memory import Decision, Memory


def decision(text: str, accepted: bool = True, **values) -> Decision:
    return Decision(
        **{
            **{"target": "cat", "kind": "object", "text": text, "side": "coref", "accepted": accepted},
            **{"certainty": 0.8, "source": "wordnet", **values},
        }
    )


@pytest.fixture
def memory(tmp_path) -> Memory:
    return Memory(tmp_path / "deep" / "decisions.jsonl")


def test_nothing_is_remembered_at_first(memory):
    assert memory.decisions() == []
    assert memory.rejected("cat") == frozenset()
    assert memory.examples("object") == ()
    memory.update([], [])
    assert not memory.path.exists()


def test_decisions_come_back_equal(memory):
    decisions = [
        decision("kitty", similarity=0.61, closeness=1.0, sense="animal"),
        decision("喵", False, kind="character", side="retain", source="openai:gpt-4o-mini", similarity=-0.05),
    ]
    memory.update([], decisions)
    assert memory.decisions() == decisions
    assert [d.when for d in memory.decisions()] == [d.when for d in decisions]


def test_the_path_is_that_of_the_environment_else_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "mine.jsonl"))
    assert Memory().path == tmp_path / "mine.jsonl"
    monkeypatch.delenv("CRCE_DECISIONS")
    assert Memory().path.name == "decisions.jsonl"
    assert "crce" in Memory().path.parts


def test_the_newest_decision_stands_and_can_be_taken_back(memory):
    first, second = decision("kitty"), decision("Kitty", False)
    memory.update([], [first])
    memory.update([], [second])
    assert memory.rejected("CAT") == {("coref", "Kitty")}
    memory.update([second], [])
    assert memory.decisions() == [first]
    memory.update([first], [])
    assert memory.decisions() == []
    memory.update([first], [])  # nothing is left to take back
    assert memory.decisions() == []
    assert len(memory.path.read_text(encoding="utf-8").splitlines()) == 5


def test_update_writes_only_what_changed(memory):
    kept, gone, new = decision("kitty"), decision("tabby", False), decision("tabby", True)
    memory.update([], [kept, gone])
    memory.update([kept, gone], [replace(kept, when="2030-01-01T00:00:00+00:00"), new])
    lines = [json.loads(line) for line in memory.path.read_text(encoding="utf-8").splitlines()]
    assert [(line["text"], line["accepted"]) for line in lines] == [
        ("kitty", True),
        ("tabby", False),
        ("tabby", None),
        ("tabby", True),
    ]


def test_rejections_are_of_one_side_one_target_and_one_sense(memory):
    memory.update(
        [],
        [
            decision("lynx", False),
            decision("dog", False, side="retain"),
            decision("kitty"),
            decision("wolf", False, target="dog"),
            decision("racket", False, target="bat", sense="animal"),
            decision("vampire", False, target="bat"),
        ],
    )
    assert memory.rejected("cat") == {("coref", "lynx"), ("retain", "dog")}
    assert memory.rejected("bat", "Animal") == {("coref", "racket"), ("coref", "vampire")}
    assert memory.rejected("bat", "sports") == memory.rejected("bat") == {("coref", "vampire")}
    assert memory.rejected("fish") == frozenset()


def test_examples_are_of_the_kind_and_hold_every_sort_of_answer(memory):
    many = [decision(f"name {i}") for i in range(20)]
    others = [decision("lynx", False), decision("dog", side="retain"), decision("tail", False, side="retain")]
    memory.update([], [*others, *many, decision("Elvis", kind="person")])
    examples = memory.examples("object", 6)
    assert len(examples) == 6
    assert {(e.side, e.accepted) for e in examples} == {(s, a) for s in ("coref", "retain") for a in (True, False)}
    assert examples[0] == Example("cat", "name 19", "coref", True)  # the newest first
    assert memory.examples("person", 6) == (Example("cat", "Elvis", "coref", True),)
    assert memory.examples("style") == memory.examples("object", 0) == ()


def test_the_lines_of_another_file_may_be_appended(memory, tmp_path):
    kitty, lynx = decision("kitty"), decision("lynx", False)
    memory.update([], [kitty, lynx, decision("undone")])
    memory.update([decision("undone")], [])
    other = Memory(tmp_path / "other.jsonl")
    other.update([], [decision("lynx", True), decision("tabby")])
    with open(other.path, "ab") as file:
        file.write(memory.path.read_bytes())
    assert other.decisions() == [decision("tabby"), kitty, lynx]


def test_forget(memory):
    memory.forget()
    memory.update([], [decision("kitty")])
    memory.forget()
    assert memory.decisions() == []
    assert not memory.path.exists()


GOOD = json.loads(json.dumps({**vars(decision("kitty")), "similarity": 0.5}))
BAD: list[tuple[str, list[str]]] = [
    ("{}}", ["not JSON"]),
    ("[]", ["the line is []"]),
    ("{}", ["no target", "no side"]),
    ("[" * 100_000, []),
    ("\udcff", []),
    (json.dumps({**GOOD, "accepted": "yes"}), ["accepted", "'yes'"]),
    (json.dumps({**GOOD, "certainty": 2}), ["certainty", "less than or equal to 1"]),
    (json.dumps({**GOOD, "certainty": None}), ["certainty", "None"]),
    (json.dumps({**GOOD, "certainty": True}), ["certainty", "True"]),
    (json.dumps({**GOOD, "similarity": float("nan")}), ["similarity", "nan"]),
    (json.dumps({**GOOD, "kind": "objct"}), ["objct", "Did you mean 'object'"]),
    (json.dumps({**GOOD, "side": "corefs"}), ["corefs", "'coref' or 'retain'"]),
    (json.dumps({**GOOD, "text": ""}), ["text", "empty"]),
    (json.dumps({**GOOD, "text": ["kitty"]}), ["text", "kitty"]),
    (json.dumps({**GOOD, "text": "\ud800"}), ["text"]),
    (json.dumps({**GOOD, "target": "a\x1bb"}), ["target", "control"]),
    (json.dumps({**GOOD, "when": 3}), ["when", "3"]),
    (json.dumps({name: value for name, value in GOOD.items() if name != "when"}), ["has no when"]),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line[:60] for line, _ in BAD])
def test_a_bad_line_is_named_and_nothing_is_lost(memory, line, words):
    memory.update([], [decision("kitty")])
    data = memory.path.read_bytes() + line.encode("utf-8", "surrogateescape") + b"\n"
    memory.path.write_bytes(data)
    with pytest.raises(SuggestError) as raised:
        memory.decisions()
    assert f"{memory.path}:2: " in str(raised.value)
    for word in words:
        assert word in str(raised.value)
    with pytest.raises(SuggestError):
        memory.rejected("cat")
    assert memory.path.read_bytes() == data
    memory.update([], [decision("tabby")])  # one can still write, and forget
    assert memory.path.read_bytes().startswith(data)
    memory.forget()
    assert memory.decisions() == []


def test_blank_lines_a_byte_order_mark_and_unknown_keys_are_fine(memory):
    memory.update([], [decision("kitty")])
    text = json.dumps({**GOOD, "text": "tabby", "mood": "good"})
    memory.path.write_bytes(b"\xef\xbb\xbf" + memory.path.read_bytes() + b"\r\n  \n" + text.encode() + b"\r\n")
    assert [d.text for d in memory.decisions()] == ["kitty", "tabby"]


@pytest.mark.parametrize("left", range(1, 150, 7))
def test_a_line_torn_by_a_crash_is_skipped_and_takes_nothing_along(memory, caplog, left):
    memory.update([], [decision("kitty")])
    whole = memory.path.read_bytes()
    memory.update([], [decision("猫猫猫猫猫猫猫猫猫猫", when="2030-01-01T00:00:00+00:00")])
    torn = memory.path.read_bytes()[: len(whole) + left]
    memory.path.write_bytes(torn)
    assert [d.text for d in memory.decisions()] == ["kitty"]
    assert f"{memory.path}:2: this line was torn" in caplog.text
    assert memory.path.read_bytes() == torn
    memory.update([], [decision("moggy")])
    memory.update([], [decision("tabby")])
    assert memory.path.read_bytes().startswith(torn)
    assert [d.text for d in memory.decisions()] == ["kitty", "moggy", "tabby"]


def test_a_whole_last_line_without_its_end_counts(memory):
    memory.update([], [decision("kitty")])
    memory.path.write_bytes(memory.path.read_bytes()[:-1])
    assert [d.text for d in memory.decisions()] == ["kitty"]
    memory.update([], [decision("moggy")])
    assert [d.text for d in memory.decisions()] == ["kitty", "moggy"]


@pytest.mark.parametrize("line", [json.dumps({**GOOD, "side": "corefs"}), json.dumps(GOOD) + ",", "kitty"])
def test_a_last_line_that_was_written_wrong_is_no_torn_one(memory, line):
    memory.update([], [decision("kitty")])
    memory.path.write_bytes(memory.path.read_bytes() + line.encode())
    with pytest.raises(SuggestError, match=":2: "):
        memory.decisions()


def _write_many(path: Path, name: str) -> None:
    memory = Memory(path)
    for i in range(50):
        memory.update([], [decision(f"{name} {i}")])


def test_two_reviews_at_a_time_do_not_mix_their_lines(memory):
    context = get_context("spawn")
    processes = [context.Process(target=_write_many, args=(memory.path, name)) for name in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {d.text for d in memory.decisions()} == {f"{name} {i}" for name in ("one", "two") for i in range(50)}


def test_a_file_that_cannot_be_written_or_read_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    blocked = Memory(tmp_path / "file" / "decisions.jsonl")
    with pytest.raises(RunError, match="Cannot write"):
        blocked.update([], [decision("kitty")])
    folder = Memory(tmp_path)
    for use, error in ((folder.decisions, SuggestError), (folder.forget, OSError)):
        with pytest.raises(error, match=str(tmp_path)):
            use()


@pytest.mark.parametrize("values", [{"target": " "}, {"sense": ""}, {"source": "a\nb\x00"}, {"certainty": "High"}])
def test_a_decision_is_checked_when_it_is_read(memory, values):
    memory.update([], [decision("kitty", **values)])
    with pytest.raises(SuggestError, match=next(iter(values))):
        memory.decisions()


def test_a_rounding_error_above_one_is_no_fault(memory):
    memory.update([], [decision("cat", similarity=1 + 2e-7)])
    assert memory.decisions()[0].similarity == 1 + 2e-7
    assert os.fspath(Memory("x").path) == "x"
