"""What was asked of a language model and what it answered: kept in the record, and answered from it offline."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from crce.errors import SuggestError
from crce.llm import Message, Reply
from crce.suggest.prompts import prompt_hash


logger = logging.getLogger(__name__)

Purpose = Literal["propose", "verify"]
Finish = Literal["stop", "length", "refusal"]

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
