"""`crce refine` on the bundled model, with short trainings and few pictures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from llm.server import ScriptedServer, answer

from crce.training import Step


@pytest.fixture
def copy(short_run, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    monkeypatch.delenv("CRCE_SUGGESTER", raising=False)
    folder = tmp_path / "my cat"
    shutil.copytree(short_run, folder)
    return folder


def test_a_row_for_each_round_and_the_best_at_the_end(crce, copy):
    result = crce("refine", copy, "--rounds", 1, "--device", "cpu")
    assert result.code == 0, result.err
    record = json.loads((copy / "refine.json").read_text())
    assert record["settings"]["suggester"] == "lexicon"
    lines = result.out.splitlines()
    assert lines[0] == "on the test half, which is never trained:"
    assert lines[1].split() == "round erased corefs kept unrelated H gain new corefs new retains".split()
    start, first = (line.split() for line in lines[2:4])
    names = ("erased", "coref_erased", "kept", "unrelated", "H")
    values = [f"{record['rounds'][1]['summary'][name]['value']:.2f}" for name in names]
    assert start[0] == "start"
    assert first[:7] == ["1", *values, f"{record['rounds'][1]['gain']:+.2f}"]
    best = copy if record["best"] == 0 else copy / "round-1"
    assert f"report   {best / 'report.html'}" in lines
    assert lines[-1] == f"record   {copy / 'refine.json'}"
    assert f"round 1: {copy / 'round-1'}" in result.err
    for change in record["rounds"][1]["changes"][:8]:
        assert f"{change['outcome']} {change['side']} {change['text']!r}: {change['reason']}" in result.err

    again = crce("refine", copy, "--rounds", 1, "--device", "cpu")
    assert (again.code, again.out) == (0, result.out)
    assert "erasing" not in again.err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_says_how_to_go_on(crce, copy, monkeypatch):
    """That going on works: test_a_stopped_refinement_goes_on_to_the_same_end in tests/refine, and tests/crash."""
    from crce.cli.refine import _RefineProgress

    tell = _RefineProgress.__call__

    def tell_and_interrupt(self, event):
        tell(self, event)
        if isinstance(event, Step) and event.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_RefineProgress, "__call__", tell_and_interrupt)
        result = crce("refine", copy, "--rounds", 1, "--device", "cpu")
    assert result.code == 130
    assert f"Interrupted. Nothing is lost. Continue with the same flags: crce refine '{copy}'" in result.err
    assert "--resume" not in result.err
    assert json.loads((copy / "round-1" / "run.json").read_text())["status"] == "interrupted"


def test_errors_are_one_line(crce, copy, tmp_path):
    for arguments, said in (
        ((tmp_path,), "is not a run folder"),
        ((copy, "--suggester", "lexikon"), "There is no suggester 'lexikon'"),
        ((copy, "--rounds", 0), "--rounds"),
        ((copy, "--min-gain", 1), "min_gain is 1"),
    ):
        result = crce("refine", *arguments)
        assert result.code == 2
        assert said in result.err
        assert len(result.err.strip().splitlines()) == 1
        assert not (copy / "refine.json").exists()


def test_settings_of_a_language_model_are_passed_on(crce, copy, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    result = crce("refine", copy, "--base-url", "http://localhost:1")
    assert result.code == 2
    assert "--base-url can't be used with suggester 'lexicon'" in result.err
    model = ["--suggester", "openai:tiny", "--token-budget", 1, "--device", "cpu"]
    with ScriptedServer(answer("Cats are lovely.")) as server:
        result = crce("refine", copy, *model, "--base-url", server.url)
    assert result.code == 2
    assert "budget" in result.err.splitlines()[-1]
    assert not (copy / "round-1" / "run.json").exists()
