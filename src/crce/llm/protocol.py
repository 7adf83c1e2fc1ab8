"""The messages, replies and protocol of chats with language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from crce.errors import SuggestError


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()  # as base64 data URLs, for models with vision


@dataclass(frozen=True)
class Reply:
    """The answer of a language model."""

    text: str  # unparsed
    finish: Literal["stop", "length", "refusal"] = "stop"  # why it ended; "length": it was cut off
    prompt_tokens: int = 0  # of the question, 0 if the server does not count them
    completion_tokens: int = 0  # of the answer, likewise


class Chat(Protocol):
    """A language model that answers in JSON."""

    provider: str  # "openai", "azure", "anthropic" or "local"
    model: str  # the model's name at that provider
    remote: bool  # whether questions go over the network (and may cost money)

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


SHORTEST_ANSWER = 100  # tokens; a shorter answer is cut off before it says anything
CHARACTERS = 4  # in a token, roughly, where the server does not count
IMAGE = 1000  # tokens of an image, roughly: services count 100 to 1600, by its size


@dataclass
class TokenBudget:
    """Counts the tokens of all questions and answers of a chat.

    Raises:
        SuggestError: the total is not positive.
    """

    total: int
    spent: int = 0

    def __post_init__(self) -> None:
        if self.total < 1:
            raise SuggestError(f"The token budget is {self.total}. Use a positive number, e.g. --token-budget 100000.")

    def allow(self, messages: list[Message], max_tokens: int) -> int:
        """The maximum length of the next answer, at most `max_tokens`.

        Raises:
            SuggestError: too little is left for the question and a short answer.
        """
        room = self.total - self.spent - _tokens(messages)
        if room < min(max_tokens, SHORTEST_ANSWER):
            raise SuggestError(
                f"The token budget of {self.total} is too small for the next question: {self.spent} are spent. "
                "Raise --token-budget, or ask for fewer phrases."
            )
        return min(max_tokens, room)

    def spend(self, messages: list[Message], reply: Reply) -> None:
        """Count a question and its answer."""
        answered = reply.completion_tokens or len(reply.text) // CHARACTERS
        self.spent += (reply.prompt_tokens or _tokens(messages)) + answered


def _tokens(messages: list[Message]) -> int:
    images = sum(len(message.images) for message in messages)
    return sum(len(message.content) for message in messages) // CHARACTERS + images * IMAGE
