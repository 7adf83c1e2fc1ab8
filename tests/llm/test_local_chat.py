"""A real language model in this process, held to a schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from crce.errors import SuggestError
from crce.llm import Message, load_chat
from crce.llm.local_chat import LocalChat, encode, load_language_model


QUESTION = [
    Message("system", "You answer in JSON."),
    Message("user", "List other names for a cat (corefs), and animals that are no cats (retains)."),
]
CERTAINTIES = ["Very High", "High", "Normal", "Low", "Very Low"]
WORDS = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 2}
PHRASE = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 30},
        "certainty": {"enum": CERTAINTIES},
        "reason": {"type": "string", "maxLength": 30},
    },
    "required": ["text", "certainty", "reason"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "corefs": {"type": "array", "items": {"$ref": "#/$defs/Phrase"}, "minItems": 1, "maxItems": 2},
        "retains": WORDS,
    },
    "required": ["corefs", "retains"],
    "additionalProperties": False,
    "$defs": {"Phrase": PHRASE},
}


@pytest.fixture(scope="module")
def chat(lm_file: Path) -> LocalChat:
    chat = load_chat(f"local:{lm_file}", token_budget=1_000_000)
    assert isinstance(chat, LocalChat)
    return chat


@pytest.fixture(scope="module")
def tiny_chat(tiny_lm: Path) -> LocalChat:
    """For what does not depend on the model, which is the same class with a few thousand weights."""
    chat = load_chat(f"local:{tiny_lm}", token_budget=1_000_000)
    assert isinstance(chat, LocalChat)
    return chat


def check(text: str) -> dict[str, Any]:
    """The parsed answer, after a look at every rule of SCHEMA."""
    answer = json.loads(text)
    assert list(answer) == ["corefs", "retains"]
    assert all(1 <= len(phrases) <= 2 for phrases in answer.values())
    for phrase in answer["corefs"]:
        assert list(phrase) == ["text", "certainty", "reason"]
        assert 1 <= len(phrase["text"]) <= 30
        assert phrase["certainty"] in CERTAINTIES
        assert len(phrase["reason"]) <= 30
    assert all(len(word) <= 12 for word in answer["retains"])
    return answer


def test_an_answer_follows_the_schema_and_counts_its_tokens(chat: LocalChat) -> None:
    reply = chat.complete(QUESTION, WORDS)
    assert all(len(word) <= 12 for word in json.loads(reply.text))
    assert reply.finish == "stop"
    assert reply.prompt_tokens > 20
    assert reply.completion_tokens > 3


def test_an_answer_that_is_cut_off_begins_as_the_schema_says(chat: LocalChat) -> None:
    reply = chat.complete(QUESTION, SCHEMA, max_tokens=15, temperature=3.0)
    assert reply.text.startswith('{"corefs": [{"text": "')
    assert (reply.finish, reply.completion_tokens) == ("length", 15)


def test_the_seed_decides(tiny_chat: LocalChat) -> None:
    def text(seed: int) -> str:
        return tiny_chat.complete(QUESTION, WORDS, temperature=1.0, seed=seed, max_tokens=6).text

    texts = [text(seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_the_random_numbers_of_others_stay_as_they_are(tiny_chat: LocalChat) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_chat.complete(QUESTION, WORDS, temperature=1.0, max_tokens=2)
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_of_transformers_answers_too(tiny_lm: Path) -> None:
    """The classes are real, the model is tiny: a folder of the model above takes as long as half of these tests."""
    chat = load_chat(f"local:{tiny_lm}")
    answers = [chat.complete(QUESTION, SCHEMA, max_tokens=600, temperature=3.0) for _ in range(2)]
    check(answers[0].text)
    assert answers[0].finish == "stop"
    assert answers[0] == answers[1]
    assert chat.model == tiny_lm.name


def test_a_schema_that_can_not_be_enforced_is_an_error(tiny_chat: LocalChat) -> None:
    with pytest.raises(SuggestError, match="schema of the answer can't be enforced"):
        tiny_chat.complete(QUESTION, {"type": "poem"})


def test_a_question_that_is_too_long_is_an_error(chat: LocalChat) -> None:
    with pytest.raises(SuggestError, match=r"too many for local:.*, which takes 32768 in all"):
        chat.complete([Message("user", "cat " * 33000)], SCHEMA)


def test_the_budget_holds_here_too(tiny_lm: Path) -> None:
    chat = load_chat(f"local:{tiny_lm}", token_budget=150)
    chat.complete(QUESTION, SCHEMA, max_tokens=100)
    with pytest.raises(SuggestError, match="token budget of 150"):
        chat.complete(QUESTION, SCHEMA, max_tokens=100)


def test_a_template_without_a_system_role_gets_its_text_in_the_question(lm_file: Path) -> None:
    tokenizer = copy.copy(load_language_model(str(lm_file))[1])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    )
    assert tokenizer.decode(encode(tokenizer, QUESTION)[0]).startswith("[user] You answer in JSON.\n\nList other")


def test_a_model_without_a_template_gets_the_plain_text(lm_file: Path) -> None:
    tokenizer = copy.copy(load_language_model(str(lm_file))[1])
    tokenizer.chat_template = None
    text = tokenizer.decode(encode(tokenizer, QUESTION)[0], skip_special_tokens=True)
    assert text.strip() == "\n\n".join(message.content for message in QUESTION)


@pytest.mark.parametrize(
    "path", ["./missing.gguf", "missing.gguf", "/no/such/folder", "~/no/such.gguf", "a/b/c/d", "a//b", "a\\b.gguf"]
)
def test_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    with pytest.raises(SuggestError, match="there is no such"):
        load_chat(f"local:{path}")


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with pytest.raises(SuggestError, match="is a file of another type"):
        load_chat(f"local:{tmp_path / 'model.bin'}")


def test_what_is_no_language_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    for model in (tmp_path, tmp_path / "broken.gguf"):
        with pytest.raises(SuggestError, match="can't be loaded: .* Give a folder or a GGUF file"):
            load_chat(f"local:{model}").complete(QUESTION, SCHEMA)


def test_a_base_url_makes_no_sense_here(lm_file: Path) -> None:
    with pytest.raises(SuggestError, match="has no base URL"):
        load_chat(f"local:{lm_file}", base_url="http://localhost:8000/v1")


def test_a_model_is_called_by_the_name_of_its_file_alone(chat: LocalChat, lm_file: Path) -> None:
    assert (chat.provider, chat.model) == ("local", lm_file.name)
    assert load_chat("local:owner/repository").model == "owner/repository"
