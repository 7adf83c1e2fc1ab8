"""What was asked of a language model and what it answered: kept in the record, and answered from it offline."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from crce.errors import SuggestError
from crce.suggest.chat import Chat, Message, Reply
from crce.suggest.prompts import prompt_hash
from crce.suggest.repair import MAX_CHARS, AnswerError, Parsed


logger = logging.getLogger(__name__)

T = TypeVar("T")
Purpose = Literal["propose", "verify"]
Finish = Literal["stop", "length", "refusal"]

_WARMTH = 0.8  # temperature of a repeated question: without chance, a small model repeats its bad answer
_LONGEST = 8000  # tokens; an answer that is cut off may be twice as long the next time, up to this
_BUNDLED = Path(__file__).parent / "prompts"
_NUMBERED = re.compile(r'(\d+)\. ("(?:[^"\\]|\\.)*")[ \t]*$', re.MULTILINE)  # a phrase of the second look


@dataclass(frozen=True)
class Exchange:
    """One question to a language model with its answer.

    Attributes:
        kind: what it was asked for.
        prompt_hash: stands for the messages.
        messages: the question.
        reply: the answer as it came; of an answer of megabytes the part that was read.
        finish: why the answer ended.
        prompt_tokens: tokens of the question, 0 where unknown.
        completion_tokens: tokens of the answer, 0 where unknown.
        notes: how the answer was repaired, or why it could not be used.
    """

    kind: Purpose
    prompt_hash: str
    messages: tuple[Message, ...]
    reply: str
    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> Reply:
        """The reply as a chat gives it."""
        return Reply(self.reply, self.finish, self.prompt_tokens, self.completion_tokens)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "prompt_hash": self.prompt_hash,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "reply": self.reply,
            "finish": self.finish,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, value: object) -> Exchange:
        """Read what `to_dict` wrote.

        Raises:
            SuggestError: a key is missing or holds something else.
        """
        if not isinstance(value, Mapping):
            raise SuggestError(f"An exchange of the record is {value!r:.60}. Use an object, as crce wrote it.")
        messages = value.get("messages")
        if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
            raise SuggestError(_unreadable("messages", messages, "a list of {role, content}"))
        if value.get("kind") not in ("propose", "verify"):
            raise SuggestError(_unreadable("kind", value.get("kind"), "propose or verify"))
        if value.get("finish") not in ("stop", "length", "refusal"):
            raise SuggestError(_unreadable("finish", value.get("finish"), "stop, length or refusal"))
        for key, sort in (("prompt_hash", str), ("reply", str), ("prompt_tokens", int), ("completion_tokens", int)):
            if not isinstance(value.get(key), sort):
                raise SuggestError(_unreadable(key, value.get(key), "a string" if sort is str else "a number"))
        notes = value.get("notes", [])
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise SuggestError(_unreadable("notes", notes, "a list of strings"))
        return cls(
            kind=cast(Purpose, value["kind"]),
            prompt_hash=value["prompt_hash"],
            messages=tuple(Message(message["role"], message["content"]) for message in messages),
            reply=value["reply"],
            finish=cast(Finish, value["finish"]),
            prompt_tokens=value["prompt_tokens"],
            completion_tokens=value["completion_tokens"],
            notes=tuple(notes),
        )


class UnreadableAnswer(SuggestError):
    """A language model answered, but nothing usable, however often it was asked."""


class ReplayChat:
    """A chat that answers from recorded exchanges: each question by its hash, repeated ones in their order.

    A question that was not asked in these words (the prompts have changed since) gets the next recorded answer to a
    question for the same purpose.

    Args:
        exchanges: what was recorded, in order.
        provider: the provider that answered then, so that candidates keep their source.
        model: the model that answered then.
    """

    remote = False

    def __init__(self, exchanges: Iterable[Exchange], provider: str = "replay", model: str = "record") -> None:
        self.provider = provider
        self.model = model
        self._left = list(exchanges)

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """The recorded answer to these messages, whatever they were asked for.

        Raises:
            SuggestError: the record holds no (further) answer to them.
        """
        return self.recorded(messages).answer

    def recorded(self, messages: Sequence[Message], kind: Purpose | None = None) -> Exchange:
        """The exchange that answers these messages; each is given once.

        Args:
            messages: the question as it is asked now.
            kind: what it is asked for; None for anything.

        Raises:
            SuggestError: the record holds no (further) answer for this purpose, or none about these phrases.
        """
        key = prompt_hash(messages)
        fitting = [e for e in self._left if kind in (None, e.kind)]
        found = next((e for e in fitting if e.prompt_hash == key), None)
        if found is None:
            # the answers of a second look are by number: of other phrases they would be wrong without a word
            phrases = _numbered(messages)
            found = next((e for e in fitting if _numbered(e.messages) == phrases), None)
            if found is None:
                why = "asked about other phrases" if fitting else "holds no answer that is left"
                raise SuggestError(
                    f"The record {why} (question {kind or 'of any kind'}, prompt hash {key}): the target, the "
                    "settings or crce itself have changed since. Suggest anew, without --replay."
                )
            logger.info(
                "The question %s is not in the record (the prompts have changed since); the next recorded answer of "
                "its kind (%s) is taken, which was to %s.",
                *(key, found.kind, found.prompt_hash),
            )
        # by identity: the same question may have had the same answer twice
        self._left = [e for e in self._left if e is not found]
        return found


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
        return render(_BUNDLED)


def ask(
    chat: Chat,
    messages: list[Message],
    schema: dict[str, Any],
    parse: Callable[[str, bool], Parsed[T]],
    *,
    kind: Purpose,
    about: str,
    exchanges: list[Exchange],
    retries: int = 2,
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


def _numbered(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """The numbered phrases of a question; none where it asks for phrases."""
    return _NUMBERED.findall(messages[-1].content) if messages else []


def _is_message(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("role") in ("system", "user", "assistant")
        and isinstance(value.get("content"), str)
    )


def _unreadable(key: str, given: object, allowed: str) -> str:
    return f"An exchange of the record has {key} {given!r:.60}. Use {allowed}, as crce wrote it."


def _shown(text: str) -> str:
    words = " ".join(text[:600].split())
    return f" ({words[:120]!r})" if words else ""
