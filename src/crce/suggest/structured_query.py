"""Asking a language model until its answer can be read, and keeping what was asked and answered."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crce.errors import SuggestError
from crce.llm import Chat, Message, Reply
from crce.suggest.prompts import BUNDLED, prompt_hash
from crce.suggest.repair import MAX_CHARS, AnswerError, Parsed
from crce.suggest.transcript import Exchange, Purpose, ReplayChat


logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRIES = 2
_WARMTH = 0.8  # temperature of a repeated question: without chance, a small model repeats its bad answer
_LONGEST = 8000  # tokens; an answer that is cut off may be twice as long the next time, up to this


class UnreadableAnswer(SuggestError):
    """A language model answered, but nothing usable, however often it was asked."""


def question(
    chat: Chat, render: Callable[[Path | str | None], list[Message]], prompts: Path | str | None
) -> list[Message]:
    """The messages of a question from the prompts in a folder.

    A replay needs them only to find its answer, so it takes the bundled prompts where those can't be used any more.

    Args:
        chat: who will be asked.
        render: makes the messages, given a folder.
        prompts: folder of own prompts; None reads CRCE_PROMPTS.

    Raises:
        SuggestError: the prompts can't be used.
    """
    try:
        return render(prompts)
    except SuggestError as error:
        if not isinstance(chat, ReplayChat):
            raise
        logger.info("%s The record is replayed with the bundled prompts.", error)
        return render(BUNDLED)


def ask(
    chat: Chat,
    messages: list[Message],
    schema: dict[str, Any],
    parse: Callable[[str, bool], Parsed[T]],
    *,
    kind: Purpose,
    about: str,
    exchanges: list[Exchange],
    retries: int = RETRIES,
    max_tokens: int = 2000,
    temperature: float = 0.0,
    seed: int = 0,
) -> T:
    """Ask until the answer can be read; each time that it can't, the model is told why.

    Args:
        chat: who is asked.
        messages: the question, the user's turn last.
        schema: of the answer.
        parse: reads the answer, given whether it was cut off, or raises AnswerError.
        kind: what the question is for.
        about: the target, for error messages.
        exchanges: where every question and answer is appended.
        retries: how often to ask again.
        max_tokens: of the answer; twice as many, at most 8000, after one that was cut off.
        temperature: of the answer; at least 0.8 when it is asked again.
        seed: of the answer; each further one has the next.

    Returns:
        What `parse` read; when every try failed, what it could read of the last answer that holds anything.

    Raises:
        UnreadableAnswer: no answer could be read.
        SuggestError: the model refuses, or can't be reached.
    """
    conversation = list(messages)
    partial: Parsed[T] | None = None
    partial_at = -1
    fault = ""
    for attempt in range(max(retries, 0) + 1):
        warmth = max(temperature, _WARMTH) if attempt else temperature
        asked: Sequence[Message] = conversation
        if isinstance(chat, ReplayChat):
            recorded = chat.recorded(conversation, kind)
            asked, reply = recorded.messages, recorded.answer  # what it answers stays with it
        else:
            reply = chat.complete(conversation, schema, max_tokens=max_tokens, temperature=warmth, seed=seed + attempt)
        try:
            if reply.finish == "refusal":
                raise AnswerError("the model refused to answer")
            parsed = parse(reply.text, reply.finish == "length")
        except AnswerError as error:
            fault = str(error)
            if error.partial is not None:
                partial, partial_at = error.partial, len(exchanges)
            exchanges.append(_exchange(kind, asked, reply, (f"not used: {fault}",)))
        else:
            exchanges.append(_exchange(kind, asked, reply, parsed.notes))
            return parsed.value
        if reply.finish == "refusal":
            raise SuggestError(
                f"{chat.provider}:{chat.model} refused to answer about {about!r}{_shown(reply.text)}. "
                "Use another model, or --suggester lexicon."
            )
        if reply.finish == "length":
            max_tokens = max(max_tokens, min(2 * max_tokens, _LONGEST))
        # without the bad answer itself, which a small model would copy
        note = f"An earlier answer can't be used: {fault}. Answer with the one JSON object alone."
        conversation = [*messages[:-1], Message(messages[-1].role, f"{messages[-1].content}\n\n{note}")]
    if partial is not None:
        used = exchanges[partial_at]
        notes = (*used.notes, "used after all, no later answer was better", *partial.notes)
        exchanges[partial_at] = dataclasses.replace(used, notes=notes)
        return partial.value
    raise UnreadableAnswer(
        f"{chat.provider}:{chat.model} gave no usable answer about {about!r} in {max(retries, 0) + 1} tries: {fault}. "
        "Use a larger model, or --suggester lexicon."
    )


def _exchange(kind: Purpose, messages: Sequence[Message], reply: Reply, notes: tuple[str, ...]) -> Exchange:
    return Exchange(
        kind=kind,
        prompt_hash=prompt_hash(messages),
        messages=tuple(messages),
        reply=reply.text[: MAX_CHARS + 1],  # one more than is read, so that a replay cuts and notes the same
        finish=reply.finish,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        notes=notes,
    )


def _shown(text: str) -> str:
    words = " ".join(text[:600].split())
    return f" ({words[:120]!r})" if words else ""
