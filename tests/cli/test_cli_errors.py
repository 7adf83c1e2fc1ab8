"""Every error is one line on stderr, with an exit code that says whose it is."""

from __future__ import annotations

import json

import pytest


# What is asked for, and words that the error holds.
REFUSED: list[tuple[list[str], list[str]]] = [
    (["eras", "cat"], ["eras", "erase'? See: crce --help"]),
    (["erase", "cat", "--stps", "3"], ["--stps", "--steps", "crce erase --help"]),
    (["erase", "cat", "--steps", "many"], ["--steps", "crce erase --help"]),
    (
        ["erase", "cat", "--layers", "everything", "--alpha", "-1"],
        ["layers", "everything", "xattn", "alpha", "-1"],
    ),
    (["erase", "cat", "--config", "fast"], ["fast", "demo", "paper", "sd15"]),
    (["erase", "cta"], ["cta", "cat"]),
    (["erase", "kitten"], ["kitten", "cat"]),
    (["erase", "missing.yaml"], ["missing.yaml"]),
    (["erase"], ["crce ls", "--resume"]),
    (["erase", "cat", "--resume", "runs/cat-1"], ["--resume"]),
    (["erase", "--resume", "nowhere"], ["nowhere", "run.json"]),
    (["erase", "--resume", "nowhere", "--rank", "4"], ["--resume", "settings"]),
    (["erase", "cat", "--model", "./no-such-model", "--out", "out"], ["no-such-model", "demo"]),
    (["erase", "cat", "--device", "abacus", "--out", "out"], ["abacus", "auto"]),
    (["generate"], ["PROMPT", "crce generate --help"]),
    (["generate", "a cat", "--n", "0"], ["--n", "crce generate --help"]),
    (["generate", "a cat", "--model", "./no-such-model"], ["no-such-model"]),
    (["generate", "a cat", "--run", "nowhere"], ["nowhere"]),
    (["evaluate"], ["RUN", "crce evaluate --help"]),
    (["evaluate", "nowhere"], ["nowhere", "run.json"]),
    (["show", "cta"], ["cta", "cat"]),
    (["ls", "--kind", "animal"], ["animal", "object", "character"]),
    (["erase", "cat", "--model", ""], ["'--model'", "empty"]),
    (["erase", "cat", "--out="], ["'cat'", "empty"]),
    (["erase", "cat", "--scenes", " "], ["'--scenes'", "empty"]),
    (["erase", "\u200bcat"], ["can't be seen", "\\u200b"]),
    (["show", "c\u202eat"], ["can't be seen", "\\u202e"]),
    (["generate", "a cat\x1b[31m"], ["can't be seen", "\\x1b"]),
    (["generate", "a cat", "--steps", "1001"], ["steps is 1001", "1000 levels of noise"]),
    (["generate", "a cat", "--seed", "9" * 23], ["seed", "63 bits"]),
    (["generate", "a cat", "--guidance", "nan"], ["guidance is nan", "finite"]),
    (["generate", "a cat", "--n", "100000000"], ["n is 100000000", "10000"]),
    (["generate", "a cat", "--revision", "main"], ["revision is 'main'", "'demo' is not on the Hub"]),
    (["erase", "cat", "--revision", "main", "--no-eval"], ["revision is 'main'"]),
    (["plan", "--revision", "main"], ["revision is 'main'"]),
    (["plan", "--vram", "inf"], ["--vram"]),
    (["check", "x.safetensors", "--against", "runs/cat-1", "--tolerance", "inf"], ["--tolerance"]),
    (["erase", "cat", "--alpha", "inf"], ["alpha is inf", "finite"]),
    (["erase", "cat", "--no-eval", "--judge", "emoji"], ["--judge would have no effect", "--eval"]),
    (["erase", "cat", "--no-eval", "--images-per-prompt", "3"], ["--images-per-prompt would have no effect"]),
    (["erase", "cat", "--method", "uce", "--rank", "4"], ["rank would have no effect", "uce solves"]),
    (["erase", "cat", "--adapter", "weights", "--rank", "4"], ["rank would have no effect", "adapter is weights"]),
    (["erase", "cat", "--no-crce", "--alpha", "2"], ["alpha would have no effect", "crce is off"]),
    (["erase", "cat", "--x-t-source", "student", "--pool", "4"], ["pool would have no effect"]),
    (["erase", "cat", "--rece-rounds", "2"], ["rece_rounds is a setting of rece, not of esd"]),
    (["attack", "nowhere", "--prompt", "a cat", "--phrases", "2"], ["--phrases would have no effect"]),
    (["attack", "nowhere", "--replay", "x.json", "--budget", "3", "--attack", "typo"], ["--attack, --budget would"]),
    (["check", "nowhere.safetensors", "--tolerance", "1"], ["--tolerance would have no effect", "--against"]),
    (["suggest", "cat", "--model", "./x"], ["--model would have no effect", "--ground"]),
    (["suggest", "cat", "--timeout", "5"], ["--timeout can't be used with suggester 'lexicon'"]),
    (["suggest", "cat", "--seed", "9" * 23], ["seed", "63 bits"]),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_done_is_one_line_and_exit_code_2(crce, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = crce(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert list(tmp_path.iterdir()) == []


def test_all_faults_of_a_concept_file_are_reported(crce, tmp_path):
    path = tmp_path / "cat.yaml"
    path.write_text("target: cat\nkind: beast\ncorefs:\n  - {text: kitty, certainty: Hihg}\nretians: [dog]\n")
    result = crce("erase", path)
    assert result.code == 2
    for word in ("cat.yaml", "beast", "Hihg", "retians", "retains"):
        assert word in result.err


def test_control_characters_of_a_file_reach_the_terminal_as_escapes(crce, tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"target": "cat", "kind": "\x1b[31mred"}))
    result = crce("show", path)
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\\x1b[31mred" in result.err


@pytest.mark.parametrize("text", ["rank: 4\nrank: 8\n", "kinds: {style: {rank: 4, rank: 8}}\n"])
def test_a_key_that_is_given_twice_is_refused(crce, tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    result = crce("erase", "cat", "--config", path)
    assert result.code == 2
    assert "key 'rank' is given twice" in result.err


def test_all_faults_of_a_recipe_are_reported(crce, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("stps: 3\nrank: 0\n")
    result = crce("erase", "cat", "--config", path)
    assert result.code == 2
    for word in ("stps", "steps", "rank", "0"):
        assert word in result.err


def test_recipe_that_is_not_yaml(crce, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("steps: [3")
    result = crce("erase", "cat", "--config", path)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "recipe.yaml" in result.err


def test_unfinished_run_is_not_evaluated(crce, tmp_path):
    from crce.concepts import find_concepts, write_concepts
    from crce.training import load_config

    info = {"status": "interrupted", "config": load_config("demo").model_dump(), "model": "demo", "revision": None}
    info |= {"dtype": "float32", "sampling": {"steps": 20, "guidance": 4.0, "source": "a guess"}, "seconds": {}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    write_concepts(tmp_path / "concepts.yaml", find_concepts("cat"))
    result = crce("evaluate", tmp_path)
    assert result.code == 2
    assert f"crce erase --resume {tmp_path}" in result.err


@pytest.mark.parametrize("position", [["--debug", "show", "cta"], ["show", "cta", "--debug"]], ids=["before", "after"])
def test_debug_shows_the_traceback(crce, position):
    result = crce(*position)
    assert result.code == 2
    assert result.err.startswith("Traceback")
    assert "ConceptError" in result.err


def test_unexpected_error_is_one_line_and_exit_code_1(crce, monkeypatch):
    def fails() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("crce.cli.listings.atlas", fails)
    result = crce("ls")
    assert result.code == 1
    assert result.err.startswith("error: unexpected ZeroDivisionError: division by zero")
    assert "--debug" in result.err
    assert result.err.count("\n") == 1
    assert "in fails" in crce("ls", "--debug").err


def test_warnings_are_lines_of_their_own(crce, monkeypatch):
    import logging

    from crce.concepts import atlas

    def with_warning() -> dict:
        logging.getLogger("crce.concepts").warning("look at %s", "this")
        return atlas()

    monkeypatch.setattr("crce.cli.listings.atlas", with_warning)
    result = crce("ls")
    assert result.code == 0
    assert result.err == "warning: look at this\n"
