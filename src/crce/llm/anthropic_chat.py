"""A language model of Anthropic, or behind a service that speaks its protocol."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from crce.errors import SuggestError
from crce.llm.budget import TokenBudget
from crce.llm.protocol import Message, Reply
from crce.llm.service import NO_KEY, Service, count, read_key, with_schema
from crce.llm.service_faults import Declined


ANTHROPIC_URL = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"


@dataclass(frozen=True)
class Ways:
    """How a service is asked.

    Attributes:
        schema: whether it enforces the schema.
        temperature: whether it takes a temperature.
    """

    schema: bool = True
    temperature: bool = True

    def simpler(self, declined: Declined) -> Ways | None:
        """What to try after the service declined; None when there is nothing left to drop."""
        if self.temperature and re.search(r"\btemperature\b", declined.said):
            return replace(self, temperature=False)
        return replace(self, schema=False) if self.schema else None


class AnthropicChat:
    """A model of Anthropic; the key comes from the environment alone."""

    provider = "anthropic"
    remote = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        token_budget: int = 100_000,
    ) -> None:
        """Get the client ready; nothing is sent.

        Args:
            model: the model's name there.
            base_url: where the service is; None for ANTHROPIC_BASE_URL, and Anthropic itself without it.
            timeout: seconds to wait for a connection, and then for each next part of the answer; a try whose answer
                comes in parts may take longer.
            retries: how often to ask again after a fault that may pass.
            token_budget: tokens that all questions and answers together may have.

        Raises:
            SuggestError: the package or the key is missing, or an argument is out of range.
        """
        try:
            import anthropic
        except ImportError as error:
            raise SuggestError(
                "The package anthropic is missing. Install it: pip install 'crce[llm]', or use --suggester lexicon."
            ) from error

        self.model = model
        self._budget = TokenBudget(token_budget)
        self._ways = Ways()
        given = base_url or os.environ.get("ANTHROPIC_BASE_URL")
        key = read_key(KEY)
        if not key and not given:
            raise SuggestError(
                f"No key for anthropic:{model}. Set {KEY}, give the --base-url of a server that needs none, "
                "or use --suggester lexicon."
            )
        url = given or ANTHROPIC_URL
        name = f"anthropic:{model}"
        self._service = Service(anthropic, name, url, KEY, key=key, timeout=timeout, retries=retries)
        client = anthropic.Anthropic(base_url=url, api_key=key or NO_KEY, timeout=timeout, max_retries=0)
        self._create = client.messages.with_raw_response.create
        self._simplify = anthropic.transform_schema

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """Answer once, as JSON of the schema where the model enforces it. There is no seed in this protocol.

        Raises:
            SuggestError: it can't be reached, refuses the key, is out of quota or time, or the token budget is spent.
        """
        max_tokens = self._budget.allow(messages, max_tokens)

        def params(ways: Ways) -> dict[str, Any]:
            fixed = {"model": self.model, "max_tokens": max_tokens}
            return fixed | self._params(ways, messages, schema, temperature)

        body, self._ways = self._service.settle(self._create, self._ways, params, Ways.simpler)
        reply = self._read(body)
        self._budget.spend(messages, reply)
        return reply

    def _params(
        self, ways: Ways, messages: list[Message], schema: dict[str, Any], temperature: float
    ) -> dict[str, Any]:
        asked = messages if ways.schema else with_schema(messages, schema)
        turns = [{"role": message.role, "content": _content(message)} for message in asked if message.role != "system"]
        params: dict[str, Any] = {"messages": turns}
        system = "\n\n".join(message.content for message in asked if message.role == "system")
        if system:
            params["system"] = system
        if ways.temperature:
            params["extra_body"] = {"temperature": temperature}  # newer clients have no argument for it
        if ways.schema:
            # Lengths and numbers of items are not enforced there; the client moves them into the descriptions.
            params["output_config"] = {"format": {"type": "json_schema", "schema": self._simplify(schema)}}
        return params

    def _read(self, body: dict[str, Any]) -> Reply:
        parts, reason, usage = body.get("content"), body.get("stop_reason"), body.get("usage")
        if not isinstance(parts, list):
            raise self._service.faults.unreadable("there is no content in it")
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        text = self._service.faults.without_key("".join(text for text in texts if isinstance(text, str)))
        tokens = count(usage, "input_tokens"), count(usage, "output_tokens")
        if reason == "refusal":
            return Reply(text, "refusal", *tokens)
        cut = reason in ("max_tokens", "model_context_window_exceeded")
        return Reply(text, "length" if cut else "stop", *tokens)


def _content(message: Message) -> str | list[dict[str, Any]]:
    """What a turn says, in parts where it shows pictures."""
    if not message.images:
        return message.content
    parts: list[dict[str, Any]] = []
    for url in message.images:
        kind, _, data = url.removeprefix("data:").partition(";base64,")
        parts.append({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}})
    return [*parts, {"type": "text", "text": message.content}]
