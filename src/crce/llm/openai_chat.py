"""Language models behind services that speak OpenAI's protocol.

OpenAI itself, Azure, and local or hosted servers (Ollama, vLLM, llama.cpp, LM Studio, OpenRouter) accept different
parameters.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, ClassVar

from crce.llm.protocol import Message, Reply
from crce.llm.service import RequestForm, ServiceChat, content_of, token_counts, with_schema


AZURE_VERSION = "2024-10-21"  # of the protocol; OPENAI_API_VERSION sets another


class OpenAIChat(ServiceChat):
    """A model of OpenAI or of a compatible server."""

    provider = "openai"
    package = "openai"
    key_variable = "OPENAI_API_KEY"
    url_variable = "OPENAI_BASE_URL"
    default_url: ClassVar[str | None] = "https://api.openai.com/v1"
    form = RequestForm(("strict schema", "schema", "object", "plain"))

    @staticmethod
    def _connect(sdk: ModuleType, **settings: Any) -> Any:
        return sdk.OpenAI(**settings).chat.completions

    def _params(self, form: RequestForm, messages: list[Message], schema: dict[str, Any]) -> dict[str, Any]:
        enforced = form.formats[0]
        asked = messages if enforced.endswith("schema") else with_schema(messages, schema)
        params: dict[str, Any] = {"messages": [{"role": m.role, "content": content_of(m, _image)} for m in asked]}
        if enforced.endswith("schema"):
            named = {"name": "answer", "schema": schema, "strict": enforced == "strict schema"}
            params["response_format"] = {"type": "json_schema", "json_schema": named}
        elif enforced == "object":
            params["response_format"] = {"type": "json_object"}
        return params

    def _read(self, body: dict[str, Any]) -> Reply:
        errors = self._errors
        if body.get("error"):  # OpenRouter reports an error behind it in a response with status 200
            raise errors.unreadable(f"it says {errors.redact(str(body['error']))!r}")
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise errors.unreadable("there is no choices[0].message in it") from None
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        if not isinstance(content, str | None):
            raise errors.unreadable("choices[0].message.content is not text")
        content, refusal = (errors.without_key(str(text or "")) for text in (content, refusal))
        tokens = token_counts(body, "prompt_tokens", "completion_tokens")
        finish = choice.get("finish_reason")
        if refusal or finish == "content_filter":
            return Reply(refusal or content, "refusal", *tokens)
        return Reply(content, "length" if finish == "length" else "stop", *tokens)


class AzureChat(OpenAIChat):
    """A deployment of Azure, which has an address and a version of the protocol of its own."""

    provider = "azure"
    key_variable = "AZURE_OPENAI_API_KEY"
    url_variable = "AZURE_OPENAI_ENDPOINT"
    default_url = None

    @staticmethod
    def _connect(sdk: ModuleType, **settings: Any) -> Any:
        version = os.environ.get("OPENAI_API_VERSION") or AZURE_VERSION
        client = sdk.AzureOpenAI(azure_endpoint=settings.pop("base_url"), api_version=version, **settings)
        return client.chat.completions


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}
