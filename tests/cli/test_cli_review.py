"""`crce review` and `crce feedback`."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest

from crce.concepts import ConceptSet, Related, find_concepts, read_concepts, write_concepts
from crce.suggest.memory import Decision, Memory


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch) -> Memory:
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    return Memory()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cat.yaml"
    corefs = (Related("kitty", 1.0, "wordnet"), Related("tabby", 0.6, "wordnet"), Related("lynx", 0.4, "wordnet"))
    retains = (Related("dog", 0.8, "wordnet"), Related("tiger", 0.6, "wordnet", held_out=True))
    write_concepts(path, ConceptSet("cat", corefs=corefs, retains=retains))
    return path


@pytest.fixture
def piped(crce, path, monkeypatch):
    """`piped("reject 3", "quit")` reviews cat.yaml with these lines on standard input."""

    def run(*lines: str):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        return crce("review", path)

    return run


def test_every_command_changes_the_file(piped, path, memory):
    result = piped(
        *("accept 1", "reject 3", "move 2", "edit 4 puppy", "c 2 very high", "c 4 0.25", "hold 1", "train 5"),
        *("add coref house cat", "+ retain [red] fox", "quit", "reject 1"),
    )
    assert result.err == ""
    assert result.code == 0
    concepts = read_concepts(path)
    assert [(r.text, r.certainty, r.held_out, r.source) for r in concepts.corefs] == [
        ("house cat", 1.0, False, "user"),
        ("kitty", 1.0, True, "wordnet"),
    ]
    assert [(r.text, r.certainty, r.held_out) for r in concepts.retains] == [
        ("tabby", 1.0, False),
        ("puppy", 0.25, False),
        ("tiger", 0.6, False),
        ("[red] fox", 1.0, False),
    ]
    assert memory.rejected("cat") == {("coref", "lynx"), ("coref", "tabby"), ("retain", "dog")}
    assert "2 corefs and 4 retains" in result.out
    assert "not decided" not in result.out


def test_the_end_of_the_input_ends_the_review(piped, path):
    before = path.read_bytes()
    result = piped("", "list", "help")
    assert result.code == 0
    assert path.read_bytes() == before
    assert "5 phrases are still undecided" in result.out
    for word in ("kitty", "wordnet", "evaluation", "accept", "coref|retain WORDS"):
        assert word in result.out


def test_undo_and_redo_reach_both_files(piped, path, memory):
    before = path.read_bytes()
    assert piped("reject 1-3", "undo").code == 0
    assert path.read_bytes() == before
    assert memory.decisions() == []
    result = piped("reject 1,2 3", "undo", "redo", "add coref moggy", "undo")
    assert "6  is removed again" in result.out
    assert read_concepts(path).corefs == ()
    assert memory.rejected("cat") == {("coref", text) for text in ("kitty", "tabby", "lynx")}


def test_accept_all_accepts_what_is_not_decided(piped, path, memory):
    before = path.read_bytes()
    assert piped("reject 3", "accept all").code == 0
    assert {(d.text, d.accepted) for d in memory.decisions()} == {
        *((text, True) for text in ("kitty", "tabby", "dog", "tiger")),
        ("lynx", False),
    }
    assert path.read_bytes() != before
    assert "accepted" in piped().out  # the next review knows it
    assert "already decided" in piped("accept all").err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rejct 1", ["rejct", "Did you mean 'reject'", "accept, reject, move"]),
        ("reject", ["needs the number", "reject 3"]),
        ("reject x", ["'x'", "reject 3"]),
        ("reject 3-", ["'3-'"]),
        ("reject 3-1", ["reversed", "1-3"]),
        ("reject 9", ["no number 9", "1 to 5"]),
        ("reject 1-99999999999", ["no number 99999999999"]),
        ("move all", ["'all'"]),
        ("edit 1", ["edit 3 NEW WORDS"]),
        ("edit kitty puss", ["edit 3 NEW WORDS"]),
        ("edit 1 cat", ["the target itself"]),
        ("certainty 1 Hihg", ["Hihg", "Very High"]),
        ("certainty 1 inf", ["inf", "[0, 1]"]),
        ("add moggy", ["add coref"]),
        ("add coref", ["add coref"]),
        ("add coref dog", ["dog", "retain"]),
        ("undo 2", ["undo", "'2'"]),
        ("undo", ["nothing to undo"]),
    ],
)
def test_a_bad_line_stops_what_is_piped_in(piped, path, line, words):
    result = piped(line, "reject 1")
    assert result.code == 2
    assert result.err.startswith("error: line 1 ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert len(read_concepts(path).corefs) == 3
    # what stands before it stays done
    result = piped("reject 2", line if line != "undo" else "redo", "reject 1")
    assert "line 2 " in result.err
    assert [r.text for r in read_concepts(path).corefs] == ["kitty", "lynx"]


def test_a_file_in_ones_own_hand_is_kept_once(piped, path, tmp_path):
    text = "# my cats\ntarget: cat\ncorefs: [kitty, tabby]  # both\n"
    path.write_text(text)
    assert piped("accept all").code == 0
    assert path.read_text() == text
    result = piped("reject 1", "reject 2")
    copy = tmp_path / "cat.before-review.yaml"
    assert str(copy) in result.out
    assert copy.read_text() == text
    assert read_concepts(path).corefs == ()
    assert len(list(tmp_path.glob("*.before-review*"))) == 1
    path.write_text(text + "# again\n")
    assert piped("reject 1").code == 0
    assert (tmp_path / "cat.before-review-2.yaml").read_text() == text + "# again\n"


def test_a_json_file_stays_json(crce, tmp_path, monkeypatch):
    path = tmp_path / "cat.json"
    write_concepts(path, find_concepts("cat"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("reject 1\n"))
    assert crce("review", path).code == 0
    assert read_concepts(path).corefs == find_concepts("cat").corefs[1:]


def test_someone_elses_change_is_not_overwritten(piped, path, monkeypatch):
    class Lines(io.StringIO):
        def __iter__(self):
            yield "reject 1\n"
            path.write_text("target: cat\ncorefs: [mine]\n")
            yield "reject 2\n"

    monkeypatch.setattr("io.StringIO", lambda *_: Lines())
    result = piped()
    assert result.code == 2
    assert "changed by someone else" in result.err
    assert path.read_text() == "target: cat\ncorefs: [mine]\n"


def test_what_cannot_be_reviewed(crce, path, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("reject 1\n"))
    several = tmp_path / "pets.yaml"
    several.write_text("- {target: cat, corefs: [kitty]}\n- {target: dog, corefs: [hound]}\n")
    published = tmp_path / "object.json"
    published.write_text('{"object": [{"type": "object", "concept": "cat", "train-coref": ["kitty"]}]}')
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    write_concepts(run / "concepts.yaml", find_concepts("cat"))
    refused = {
        "cat": ["atlas", "crce show cat --yaml > cat.yaml"],
        several: ["2 concept sets"],
        f"{several}#dog": ["crce show", "> dog.yaml"],
        published: ["CorefConcept", "--yaml > cat.yaml"],
        run: ["concepts.yaml"],
        run / "concepts.yaml": ["run", "Copy"],
        tmp_path / "cta.yaml": ["no file", "cat.yaml"],
    }
    for file, words in refused.items():
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        result = crce("review", file)
        assert result.code == 2, file
        assert sum(line.startswith("error: ") for line in result.err.splitlines()) == 1
        for word in words:
            assert word in result.err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_unreadable_memory_is_named_before_anything_is_changed(piped, path, memory):
    memory.path.write_text("what?\n")
    before = path.read_bytes()
    result = piped("reject 1")
    assert result.code == 2
    assert f"{memory.path}:1" in result.err
    assert path.read_bytes() == before


def test_the_record_beside_the_set_gives_reasons_and_measures(piped, path, memory):
    from crce.suggest.candidates import Candidate, Request
    from crce.suggest.grounding import Grounded
    from crce.suggest.record import Record, SuggestionSettings, plain_concepts, write_record

    record = Record(
        crce="1",
        suggester="wordnet",
        request=Request("cat", "object", "animal"),
        settings=SuggestionSettings(corefs=3, retains=2, held_out=1, diversity=0.3),
        proposed=(Candidate("kitty", "coref", 1.0, "wordnet", "a synonym"),),
        grounding={"kitty": Grounded(0.13, 0.87, None, 0, 48)},
        decisions=(Candidate("kitty", "coref", 0.9, "wordnet", "a synonym", outcome="train"),),
        concepts=plain_concepts(read_concepts(path)),
    )
    write_record(path.with_name("cat.suggest.json"), record)
    result = piped("accept 1")
    assert result.err == ""
    assert "synonym" in result.out
    assert "0.87" in result.out
    assert memory.decisions() == [
        Decision("cat", "object", "kitty", "coref", True, 0.9, "wordnet", closeness=0.87, sense="animal")
    ]
    path.with_name("cat.suggest.json").write_text("{}")
    result = piped("accept 2")
    assert result.code == 0
    assert "warning: The record beside the set is not used: " in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a POSIX terminal")
def test_at_a_terminal_nothing_is_lost_on_ctrl_c(start, path, memory):
    import pexpect

    def begin() -> pexpect.spawn:
        return pexpect.spawn(
            start[0],
            [*start[1:], "review", str(path)],
            timeout=300,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "120"},
            encoding="utf-8",
            # A shell lets its background jobs ignore Ctrl-C, and what they start inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    child = begin()
    child.expect("review> ")
    child.sendline("reject 3")
    child.expect("3  lynx: coref, training, Low, rejected")
    child.expect("review> ")
    child.sendline("rejct 1")  # at a terminal one may try again
    child.expect("Did you mean 'reject'")
    child.expect("review> ")
    child.sendline("add coref moggy")
    child.expect("6  moggy: coref, training, Very High, accepted")
    child.expect("review> ")
    child.send("reject 1")
    child.expect("reject 1")
    # Python's readline may miss a signal that comes while it handles a key, until the next key: press it again
    for _ in range(5):
        child.sendintr()
        if child.expect(["Every change is written", pexpect.TIMEOUT], timeout=30) == 0:
            break
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert [r.text for r in read_concepts(path).corefs] == ["kitty", "tabby", "moggy"]
    assert {(d.text, d.accepted) for d in memory.decisions()} == {("lynx", False), ("moggy", True)}

    child = begin()
    child.expect("review> ")
    child.sendeof()
    child.expect("3 corefs and 2 retains. 4 phrases are still undecided")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_feedback_counts_and_says_that_nothing_is_learned_yet(crce, piped, memory):
    assert f"stored in {memory.path}" in crce("feedback").out
    piped("reject 3", "accept all")
    result = crce("feedback")
    assert result.code == 0
    assert f"5 decisions in {memory.path}" in result.out
    row = next(line for line in result.out.splitlines() if " cat " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["cat", "object", "4", "1"]
    assert "5 decisions about suggested phrases (4 accepted, 1 rejected) are too few" in result.out
    assert "20 are needed" in result.out


def test_feedback_shows_what_was_learned(crce, memory):
    cats = [
        "kitty",
        "tabby",
        "house cat",
        "tomcat",
        "pussycat",
        "kitten",
        "domestic cat",
        "feline",
        "mouser",
        "tabby cat",
    ]
    things = ["car", "bank", "spoon", "law", "piano", "rain", "shoe", "window", "salt", "paper"]
    memory.update([], [Decision("cat", "object", c, "coref", c in cats, 0.6, "wordnet") for c in (*cats, *things)])
    result = crce("feedback")
    assert result.code == 0
    row = next(line for line in result.out.splitlines() if "similarity, coref" in line)
    assert "+" in row
    assert "of 20 decisions" in result.out
    assert "50%" in result.out  # the commoner answer


def test_feedback_forgets(crce, piped, memory):
    piped("reject 3", "accept 1")
    assert len(memory.decisions()) == 2
    assert crce("feedback", "--forget").code == 0
    assert not memory.path.exists()
