"""A real chat whose answers are cut short, so that a test does not wait for all that a small model has to say."""

from __future__ import annotations

from typing import Any

from crce.llm import Chat, Message, Reply


class BriefChat:
    """Asks `chat`, for at most `tokens` tokens an answer, and at most `answers` times: then the last one again."""

    def __init__(self, chat: Chat, tokens: int, answers: int = 100) -> None:
        self.provider, self.model, self.remote = chat.provider, chat.model, chat.remote
        self._chat = chat
        self._tokens = tokens
        self._left = answers
        self._reply: Reply | None = None

    def complete(self, messages: list[Message], schema: dict[str, Any], *, max_tokens: int = 0, **rest: Any) -> Reply:
        if self._reply is None or self._left > 0:
            self._left -= 1
            self._reply = self._chat.complete(messages, schema, max_tokens=self._tokens, **rest)
        return self._reply
