"""Corefs and retains from a language model, of any provider."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from crce.concepts.concept_set import CERTAINTY_WORDS
from crce.errors import SuggestError
from crce.llm import Chat, Message
from crce.suggest.candidates import Candidate, Request
from crce.suggest.prompts import propose_messages
from crce.suggest.schemas import MAX_CHARS, MAX_ITEMS, AnswerError, parse_proposals, proposals_schema


T = TypeVar("T")
Purpose = Literal["propose", "verify"]
Exchange = dict[str, Any]  # a question to a language model with its answer, as a record stores it

RETRIES = 2
_TEMPERATURE = 0.8  # of a repeated question: without chance, a small model repeats its bad answer
_LONGEST = 8000  # tokens; an answer that is cut off may be twice as long the next time, up to this


class UnreadableAnswer(SuggestError):
    """A language model answered, but nothing usable, however often it was asked."""


def prompt_hash(messages: Sequence[Message]) -> str:
    """16 hexadecimal digits that identify these messages."""
    content = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def ask(
    chat: Chat,
    messages: list[Message],
    schema: dict[str, Any],
    parse: Callable[[str, bool, list[str]], T],
    *,
    kind: Purpose,
    about: str,
    exchanges: list[Exchange],
    retries: int = RETRIES,
    max_tokens: int = 2000,
    seed: int = 0,
) -> T:
    """Ask until the answer can be read; each repeated question says why the last answer could not.

    Args:
        chat: the language model.
        messages: the question, the user's turn last.
        schema: of the answer.
        parse: reads the answer, given whether it was cut off and a list for its notes, or raises AnswerError.
        kind: what the question is for.
        about: the target, for error messages.
        exchanges: where every question and answer is appended.
        retries: how often to ask again.
        max_tokens: of the answer; twice as many, at most 8000, after one that was cut off.
        seed: of the answer; each further one has the next.

    Returns:
        The content of the answer; if every attempt failed, what could be read of the last one with any content.

    Raises:
        UnreadableAnswer: no answer could be read.
        SuggestError: the model refuses, or can't be reached.
    """
    question = messages
    usable: tuple[T, list[str]] | None = None  # in part, with the notes of its exchange
    fault = ""
    for attempt in range(max(retries, 0) + 1):
        temperature = _TEMPERATURE if attempt else 0.0
        reply = chat.complete(question, schema, max_tokens=max_tokens, temperature=temperature, seed=seed + attempt)
        notes: list[str] = []  # how the answer was corrected, or why it could not be used
        exchanges.append(
            {
                "kind": kind,
                "prompt_hash": prompt_hash(question),
                "messages": [{"role": message.role, "content": message.content} for message in question],
                "reply": reply.text[:MAX_CHARS],
                "finish": reply.finish,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "notes": notes,
            }
        )
        if reply.finish == "refusal":
            notes.append("not used: the model refused to answer")
            words = " ".join(reply.text[:600].split())[:120]
            raise SuggestError(
                f"{chat.provider}:{chat.model} refused to answer about {about!r}{f' ({words!r})' if words else ''}. "
                "Use another model, or --suggester lexicon."
            )
        try:
            return parse(reply.text, reply.finish == "length", notes)
        except AnswerError as error:
            fault = str(error)
            notes.insert(0, f"not used: {fault}")
            if error.partial is not None:
                usable = error.partial, notes
        if reply.finish == "length":
            max_tokens = max(max_tokens, min(2 * max_tokens, _LONGEST))
        # without the bad answer itself, which a small model would copy
        note = f"An earlier answer can't be used: {fault}. Answer with the one JSON object alone."
        question = [*messages[:-1], Message(messages[-1].role, f"{messages[-1].content}\n\n{note}")]
    if usable is not None:
        value, notes = usable
        notes.append("used after all, no later answer was better")
        return value
    raise UnreadableAnswer(
        f"{chat.provider}:{chat.model} gave no usable answer about {about!r} in {max(retries, 0) + 1} tries: {fault}. "
        "Use a larger model, or --suggester lexicon."
    )


class LLMSuggester:
    """Asks a language model for more phrases than are wanted, so that there is something to choose from.

    Attributes:
        name: "provider:model", also the source of each candidate.
        chat: the language model.
        retries: how often to ask again if an answer can't be read.
        exchanges: every question and answer so far.
    """

    def __init__(self, chat: Chat, prompts: Path | str | None = None, retries: int = RETRIES, seed: int = 0) -> None:
        """See `crce.suggest.load_suggester` for `prompts`, a folder, and `seed`."""
        self.name = f"{chat.provider}:{chat.model}"
        self.exchanges: list[Exchange] = []
        self.chat = chat
        self.retries = retries
        self._prompts = prompts
        self._seed = seed

    def propose(self, request: Request) -> list[Candidate]:
        """Raw candidates, the most certain first; rejected phrases (`request.avoid`) are left out.

        Raises:
            SuggestError: the model can't be reached, refuses, or gives no answer that can be read.
        """

        # half as many again as are wanted: some are repeated, wrong or too similar to each other
        corefs, retains = (min(n + max(4, n // 2), MAX_ITEMS) for n in (request.corefs, request.retains))
        proposals = ask(
            self.chat,
            propose_messages(request, corefs, retains, self._prompts),
            proposals_schema(corefs, retains),
            partial(parse_proposals, target=request.target),
            kind="propose",
            about=request.target,
            exchanges=self.exchanges,
            retries=self.retries,
            max_tokens=300 + 70 * (corefs + retains),
            seed=self._seed,
        )
        candidates = [
            Candidate(p.text, side, CERTAINTY_WORDS[p.certainty], self.name, p.reason or "no reason given")
            for side, proposed in proposals.items()
            for p in proposed
            if request.takes(p.text, side)
        ]
        return sorted(candidates, key=lambda candidate: -candidate.certainty)
