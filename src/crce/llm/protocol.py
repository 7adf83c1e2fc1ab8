"""The messages, replies and protocol of chats with language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: the speaker.
        content: the text.
        images: images as base64 data URLs, for models with vision.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The answer of a language model.

    Attributes:
        text: the answer, unparsed.
        finish: why it ended: "stop", "length" (cut off) or "refusal".
        prompt_tokens: tokens of the question, 0 if the server does not count them.
        completion_tokens: tokens of the answer, 0 if the server does not count them.
    """

    text: str
    finish: Literal["stop", "length", "refusal"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chat(Protocol):
    """A language model that answers in JSON.

    Attributes:
        provider: "openai", "anthropic", "local" or "replay".
        model: the model's name at that provider.
        remote: whether questions go over the network (and may cost money).
    """

    provider: str
    model: str
    remote: bool

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """Answer once, as JSON of the given schema where the provider can enforce it.

        Raises:
            SuggestError: it can't be reached, refuses the key, is out of quota or time, or the token budget is spent.
        """
        ...
