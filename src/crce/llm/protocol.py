"""A conversation with a language model, whoever serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: whose turn it is.
        content: what is said.
        images: pictures shown with it, as data URLs of base64, for models that can see.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a language model answered.

    Attributes:
        text: the answer, unparsed.
        finish: why it ended: "stop", "length" (cut off) or "refusal".
        prompt_tokens: tokens of the question, 0 where the server does not say.
        completion_tokens: tokens of the answer, 0 where the server does not say.
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
        remote: whether each question goes over the network (and may cost money).
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
