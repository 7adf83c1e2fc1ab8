"""A real chat whose answers are cut short, so that a test does not wait for all that a small model has to say."""

from __future__ import annotations

from typing import Any

from crce.llm import Chat, Message, Reply


class BriefChat:
    """Asks `chat`, for at most `tokens` tokens an answer."""

    def __init__(self, chat: Chat, tokens: int) -> None:
        self.provider, self.model, self.remote = chat.provider, chat.model, chat.remote
        self._chat = chat
        self._tokens = tokens

    def complete(self, messages: list[Message], schema: dict[str, Any], *, max_tokens: int = 0, **rest: Any) -> Reply:
        return self._chat.complete(messages, schema, max_tokens=self._tokens, **rest)
