"""Language models behind services that speak OpenAI's or Anthropic's protocol.

OpenAI itself, Azure, and local or hosted servers (Ollama, vLLM, llama.cpp, LM Studio, OpenRouter) accept different
parameters. Anthropic's protocol has no seed.
"""

import os
from types import ModuleType
from typing import Any, ClassVar

from crce.llm.protocol import Message, Reply
from crce.llm.service import RequestForm, ServiceChat, token_counts, with_schema


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
        params: dict[str, Any] = {"messages": [*map(self._turn, asked)]}
        if enforced.endswith("schema"):
            named = {"name": "answer", "schema": schema, "strict": enforced == "strict schema"}
            params["response_format"] = {"type": "json_schema", "json_schema": named}
        elif enforced == "object":
            params["response_format"] = {"type": "json_object"}
        return params

    @staticmethod
    def _image(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url}}

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


class AnthropicChat(ServiceChat):
    """A model of Anthropic."""

    provider = "anthropic"
    package = "anthropic"
    key_variable = "ANTHROPIC_API_KEY"
    url_variable = "ANTHROPIC_BASE_URL"
    default_url = "https://api.anthropic.com"
    form = RequestForm(("schema", "plain"), seed=False)

    @staticmethod
    def _connect(sdk: ModuleType, **settings: Any) -> Any:
        return sdk.Anthropic(**settings).messages

    def _params(self, form: RequestForm, messages: list[Message], schema: dict[str, Any]) -> dict[str, Any]:
        enforced = form.formats[0] == "schema"
        asked = messages if enforced else with_schema(messages, schema)
        params: dict[str, Any] = {"messages": [self._turn(message) for message in asked if message.role != "system"]}
        if system := "\n\n".join(message.content for message in asked if message.role == "system"):
            params["system"] = system
        if enforced:
            # Lengths and numbers of items are not enforced there; the client moves them into the descriptions.
            simplified = self._errors.sdk.transform_schema(schema)
            params["output_config"] = {"format": {"type": "json_schema", "schema": simplified}}
        return params

    @staticmethod
    def _image(url: str) -> dict[str, Any]:
        kind, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}

    def _read(self, body: dict[str, Any]) -> Reply:
        parts, reason = body.get("content"), body.get("stop_reason")
        if not isinstance(parts, list):
            raise self._errors.unreadable("there is no content in it")
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        text = self._errors.without_key("".join(text for text in texts if isinstance(text, str)))
        tokens = token_counts(body, "input_tokens", "output_tokens")
        if reason == "refusal":
            return Reply(text, "refusal", *tokens)
        cut = reason in ("max_tokens", "model_context_window_exceeded")
        return Reply(text, "length" if cut else "stop", *tokens)
