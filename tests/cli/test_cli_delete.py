from __future__ import annotations

import json

import pytest

from crce.cli.main import main


def test_a_concept_is_deleted_listed_and_taken_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["delete", "cat", "--by", "legal", "--reason", "request 7"]) == 0
    assert main(["delete", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "1 deleted now" in shown
    assert "request" in shown
    assert main(["delete", "--undo", "cat"]) == 0
    events = json.loads((tmp_path / "runs" / "register" / "register.json").read_text())["events"]
    assert [event["action"] for event in events] == ["delete", "undo"]
    assert main(["delete", "dog", "--model", "demo"]) == 2
    assert "has its settings and model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name what to delete"),
        (["cat", "--list"], "Name what to delete"),
        (["--list"], "Begin one: crce delete"),
        (["cat", "--config", "spede"], "There is no recipe 'spede'"),
    ],
)
def test_a_fault_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["delete", *arguments]) == 2
    found = capsys.readouterr().err.splitlines()
    assert sum(words in line for line in found) == 1
    assert not (tmp_path / "runs" / "register" / "register.json").exists()
