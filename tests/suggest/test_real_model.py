"""A real language model on the whole path: its set may be poor, but it is valid, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from suggest.brief_chat import BriefChat

from crce.errors import SuggestError
from crce.suggest import Candidate, Memory, Request, replay, suggest, write_record
from crce.suggest.chats import load_chat
from crce.suggest.llm import LLMSuggester


class Helped(LLMSuggester):
    """The real model, with two phrases that are surely usable among its own, so that there is something to verify."""

    def propose(self, request: Request) -> list[Candidate]:
        self.own = super().propose(request)
        return [
            Candidate("steed", "coref", 0.8, "test", "a name for it"),
            Candidate("teapot", "retain", 0.8, "test", "another thing"),
            *self.own,
        ]


@pytest.fixture(scope="module")
def suggester(lm_file: Path) -> Helped:
    return Helped(BriefChat(load_chat(f"local:{lm_file}", token_budget=1_000_000), 150))


def test_a_model_too_small_for_the_task_is_found_out(suggester, tmp_path, caplog):
    settings = {"kind": "object", "corefs": 1, "retains": 1, "held_out": 0, "verify": True}
    with pytest.raises(SuggestError, match=r"phrases proposed for 'horse' none can be used"):
        suggest("horse", suggester=suggester, memory=Memory(tmp_path / "none.jsonl"), **settings)
    assert "control phrases wrong" in caplog.text
    # it answered every question in the form that was asked for, and none of them well
    assert {c.side for c in suggester.own} == {"coref", "retain"}
    assert {c.source for c in suggester.own} == {suggester.name}
    assert [e.kind for e in suggester.exchanges] == ["propose", "verify"]
    assert not [note for e in suggester.exchanges for note in e.notes if "largest length" not in note]


def test_without_a_second_look_the_set_is_poor_but_valid_and_replayed(suggester, tmp_path):
    settings = {"kind": "object", "corefs": 1, "retains": 1, "held_out": 0, "verify": False}
    suggestion = suggest("horse", suggester=suggester, memory=Memory(tmp_path / "none.jsonl"), **settings)
    assert len(suggestion.concepts.train_corefs) == 1
    assert len(suggestion.concepts.train_retains) == 1
    assert len(suggestion.record.decisions) == len(suggestion.record.proposed)
    assert [e["kind"] for e in suggestion.record.exchanges] == ["propose"]
    plain = LLMSuggester(suggester.chat)
    own = suggest("horse", suggester=plain, memory=Memory(tmp_path / "none.jsonl"), **settings)
    write_record(tmp_path / "horse.suggest.json", own.record)
    assert replay(tmp_path / "horse.suggest.json").record == own.record
