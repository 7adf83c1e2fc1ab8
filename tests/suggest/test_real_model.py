"""A real language model on the whole path. What a small one says differs from one processor to the next; that its
answers have the form that was asked for, and are not believed without a check, does not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from suggest.brief_chat import BriefChat

from crce.concepts import ConceptSet
from crce.errors import SuggestError
from crce.llm import Chat, load_chat
from crce.suggest import Candidate, Memory, Request, replay, suggest, write_record
from crce.suggest.llm import LLMSuggester
from crce.suggest.verification import verify


@pytest.fixture(scope="module")
def chat(lm_file: Path) -> Chat:
    return load_chat(f"local:{lm_file}", token_budget=1_000_000)


def valid_set(suggester: LLMSuggester, folder: Path) -> ConceptSet | None:
    """The set that the model suggests, after its record was replayed; None where nothing of its answer can be used."""
    settings = {"kind": "object", "corefs": 1, "retains": 1, "held_out": 0, "verify": False}
    try:
        suggestion = suggest("horse", suggester=suggester, memory=Memory(folder / "none.jsonl"), **settings)
    except SuggestError:
        return None
    write_record(folder / "horse.suggest.json", suggestion.record)
    assert replay(folder / "horse.suggest.json").record == suggestion.record
    return suggestion.concepts


def test_its_set_is_valid_or_nothing(chat, tmp_path):
    suggester = LLMSuggester(BriefChat(chat, 25), retries=0)
    concepts = valid_set(suggester, tmp_path)
    assert {exchange["kind"] for exchange in suggester.exchanges} == {"propose"}
    if concepts is not None:
        assert concepts.target == "horse"
        assert {r.source for r in (*concepts.corefs, *concepts.retains)} == {suggester.name}


def test_its_second_look_is_not_believed_without_a_check(chat, caplog):
    nonsense = Candidate("ulmq vrat", "coref", 0.8, "test", "nothing at all")
    candidates = [nonsense, Candidate("teapot", "coref", 0.8, "test", "another thing")]
    suggester = LLMSuggester(BriefChat(chat, 80, answers=1))
    verified = verify(candidates, Request("horse", "object"), suggester)
    assert len(verified) == len(candidates)
    assert {exchange["kind"] for exchange in suggester.exchanges} == {"verify"}
    if "control phrases wrong" in caplog.text:  # which a model of this size gets wrong on most processors
        assert all(opinion.certainty < 0.8 or opinion.answer == "unanswered" for opinion in verified)
