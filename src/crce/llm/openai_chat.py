"""A language model behind any service that speaks OpenAI's protocol.

OpenAI itself, Azure, and local or hosted servers (Ollama, vLLM, llama.cpp, LM Studio, OpenRouter) differ in what they
take. A question starts with everything (a strict schema, a seed, a temperature) and drops what the service declines;
what it took is remembered for the next question.
"""

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


OPENAI_URL = "https://api.openai.com/v1"
AZURE_VERSION = "2024-10-21"  # of the protocol; OPENAI_API_VERSION names another
FILTERED = "content_filter"  # Azure reads the question before the model does
FORMATS = ("strict schema", "schema", "object", "plain")


@dataclass(frozen=True)
class Ways:
    """How a service is asked.

    Attributes:
        form: how JSON is enforced, one of FORMATS.
        limit: the name it has for the longest answer.
        temperature: whether it takes a temperature.
        seed: whether it takes a seed.
    """

    form: str = FORMATS[0]
    limit: str = "max_tokens"
    temperature: bool = True
    seed: bool = True

    def simpler(self, declined: Declined) -> Ways | None:
        """What to try after the service declined; None when there is nothing left to drop."""
        said = declined.said
        if declined.code == FILTERED:
            return None
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and re.search(r"\btemperature\b", said):
            return replace(self, temperature=False)
        if self.seed and re.search(r"\bseed\b", said):
            return replace(self, seed=False)
        step = FORMATS.index(self.form) + 1
        return replace(self, form=FORMATS[step]) if step < len(FORMATS) else None


class OpenAIChat:
    """A model of OpenAI, of Azure, or of a compatible server; the key comes from the environment alone."""

    remote = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        azure: bool = False,
        timeout: float = 60.0,
        retries: int = 4,
        token_budget: int = 100_000,
    ) -> None:
        """Get the client ready; nothing is sent.

        Args:
            model: the model's name there, or the deployment's name at Azure.
            base_url: where the service is; None for OPENAI_BASE_URL, and OpenAI itself without it. Azure's is in
                AZURE_OPENAI_ENDPOINT.
            azure: whether it is Azure's own protocol.
            timeout: seconds to wait for a connection, and then for each next part of the answer; a try whose answer
                comes in parts may take longer.
            retries: how often to ask again after a fault that may pass.
            token_budget: tokens that all questions and answers together may have.

        Raises:
            SuggestError: the package or the key is missing, or an argument is out of range.
        """
        try:
            import openai
        except ImportError as error:
            raise SuggestError(
                "The package openai is missing. Install it: pip install 'crce[llm]', or use --suggester lexicon."
            ) from error

        self.provider = "azure" if azure else "openai"
        self.model = model
        self._budget = TokenBudget(token_budget)
        self._ways = Ways()
        variable = "AZURE_OPENAI_API_KEY" if azure else "OPENAI_API_KEY"
        given = base_url or os.environ.get("AZURE_OPENAI_ENDPOINT" if azure else "OPENAI_BASE_URL")
        if azure and not given:
            raise SuggestError(
                "Azure's address is not known. Set AZURE_OPENAI_ENDPOINT, e.g. https://NAME.openai.azure.com."
            )
        key = read_key(variable)
        if not key and (azure or not given):
            raise SuggestError(
                f"No key for {self.provider}:{model}. Set {variable}, give the --base-url of a server that needs "
                "none, or use --suggester lexicon."
            )
        url = given or OPENAI_URL
        name = f"{self.provider}:{model}"
        self._service = Service(openai, name, url, variable, key=key, timeout=timeout, retries=retries)
        client: openai.OpenAI
        if azure:
            version = os.environ.get("OPENAI_API_VERSION") or AZURE_VERSION
            client = openai.AzureOpenAI(
                azure_endpoint=url, api_key=key, api_version=version, timeout=timeout, max_retries=0
            )
        else:
            client = openai.OpenAI(base_url=url, api_key=key or NO_KEY, timeout=timeout, max_retries=0)
        self._create = client.chat.completions.with_raw_response.create

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """Answer once, as JSON of the schema where the service enforces it.

        Raises:
            SuggestError: it can't be reached, refuses the key, is out of quota or time, or the token budget is spent.
        """
        max_tokens = self._budget.allow(messages, max_tokens)

        def params(ways: Ways) -> dict[str, Any]:
            return {"model": self.model} | _params(ways, messages, schema, max_tokens, temperature, seed)

        try:
            body, self._ways = self._service.settle(self._create, self._ways, params, Ways.simpler)
        except Declined as error:
            if error.code != FILTERED:
                raise
            return Reply(error.said, "refusal")
        reply = self._read(body)
        self._budget.spend(messages, reply)
        return reply

    def _read(self, body: dict[str, Any]) -> Reply:
        if body.get("error"):  # OpenRouter tells of a fault behind it in an answer that is otherwise fine
            raise self._service.faults.unreadable(f"it says {self._service.faults.redact(str(body['error']))!r}")
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._service.faults.unreadable("there is no choices[0].message in it") from None
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        if not isinstance(content, str | None):
            raise self._service.faults.unreadable("choices[0].message.content is no text")
        content, refusal = (self._service.faults.without_key(str(text or "")) for text in (content, refusal))
        usage, finish = body.get("usage"), choice.get("finish_reason")
        tokens = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
        if refusal or finish == "content_filter":
            return Reply(refusal or content, "refusal", *tokens)
        return Reply(content, "length" if finish == "length" else "stop", *tokens)


def _params(
    ways: Ways, messages: list[Message], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
) -> dict[str, Any]:
    """The arguments of the client for one question."""
    asked = messages if ways.form.endswith("schema") else with_schema(messages, schema)
    params: dict[str, Any] = {
        "messages": [{"role": message.role, "content": _content(message)} for message in asked],
        ways.limit: max_tokens,
    }
    if ways.temperature:
        params["temperature"] = temperature
    if ways.seed:
        params["seed"] = seed
    if ways.form.endswith("schema"):
        named = {"name": "answer", "schema": schema, "strict": ways.form == "strict schema"}
        params["response_format"] = {"type": "json_schema", "json_schema": named}
    elif ways.form == "object":
        params["response_format"] = {"type": "json_object"}
    return params


def _content(message: Message) -> str | list[dict[str, Any]]:
    """What a turn says, in parts where it shows pictures."""
    if not message.images:
        return message.content
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
    return [*pictures, {"type": "text", "text": message.content}]
