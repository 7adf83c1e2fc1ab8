"""Chats with language models: messages, replies, their base class, and the models by name."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

from crce.bounds import check_numbers
from crce.errors import SuggestError


PROVIDERS = {
    "openai": "crce.llm.services:OpenAIChat",
    "azure": "crce.llm.services:AzureChat",
    "anthropic": "crce.llm.services:AnthropicChat",
    "local": "crce.llm.local_chat:LocalChat",
}


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
    finish: Literal["stop", "length", "refusal"] = "stop"  # why it ended; "length" is cut off
    prompt_tokens: int = 0  # 0 if the server does not count them
    completion_tokens: int = 0


SHORTEST_ANSWER = 100  # tokens; a shorter answer is cut off before it says anything
CHARACTERS = 4  # in a token, roughly, where the server does not count
IMAGE = 1000  # tokens of an image, roughly: services count 100 to 1600, by its size


class Chat(ABC):
    """A language model that answers in JSON, with the tokens of all questions and answers within a budget."""

    provider: str  # "openai", "azure", "anthropic" or "local"
    remote: bool  # whether questions go over the network (and may cost money)

    def __init__(self, model: str, token_budget: int) -> None:
        check_numbers(token_budget=token_budget)
        self.model = model  # its name at that provider
        self._budget, self._spent = token_budget, 0

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
        room = self._budget - self._spent - _tokens(messages)
        if room < min(max_tokens, SHORTEST_ANSWER):
            raise SuggestError(
                f"The token budget of {self._budget} is too small for the next question: {self._spent} are spent. "
                "Raise --token-budget, or ask for fewer phrases."
            )
        reply = self._answer(messages, schema, min(max_tokens, room), temperature, seed)
        if reply.finish != "refusal" or reply.prompt_tokens:  # a filter before the model costs nothing
            self._spent += reply.prompt_tokens or _tokens(messages)
            self._spent += reply.completion_tokens or len(reply.text) // CHARACTERS
        return reply

    @abstractmethod
    def _answer(
        self, messages: list[Message], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
    ) -> Reply:
        """The answer, which the budget allows to have `max_tokens`."""


def load_chat(
    spec: str,
    *,
    base_url: str | None = None,
    timeout: float = 60.0,
    retries: int = 3,
    token_budget: int = 100_000,
) -> Chat:
    """Prepare a language model; nothing is sent and no weights are read yet.

    Args:
        spec: provider and model, e.g. "openai:gpt-4o-mini", "local:HuggingFaceTB/SmolLM2-360M-Instruct" or
            "local:model.gguf".
        base_url: address of the service; None takes that of the environment, else the public one.
        timeout: seconds for a connection, and for each answer in all; a local model takes the time it needs.
        retries: how often the client tries again after a temporary error.
        token_budget: tokens for all questions and answers together.

    Raises:
        SuggestError: an unknown provider, or a missing package, key or file.
        ConfigError: a number is out of range.
    """
    provider, _, model = spec.partition(":")
    if provider not in PROVIDERS or not model.strip():
        raise SuggestError(
            f"'{spec}' is not a language model. Use one of: {', '.join(f'{name}:MODEL' for name in PROVIDERS)}."
        )
    if base_url and provider == "local":
        raise SuggestError(
            f"'{spec}' runs in this process and has no base URL. Leave --base-url out, or use openai:MODEL."
        )
    own = {} if provider == "local" else {"base_url": base_url, "timeout": timeout, "retries": retries}
    return resolve_name(PROVIDERS[provider])(model, token_budget=token_budget, **own)


def _tokens(messages: list[Message]) -> int:
    images = sum(len(message.images) for message in messages)
    return sum(len(message.content) for message in messages) // CHARACTERS + images * IMAGE
