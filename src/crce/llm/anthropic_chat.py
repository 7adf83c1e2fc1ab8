"""Language models of Anthropic, or behind services that speak its protocol, which has no seed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from crce.llm.protocol import Message, Reply
from crce.llm.service import RequestForm, ServiceChat, content_of, token_counts, with_schema


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
        turns = [{"role": m.role, "content": content_of(m, _image)} for m in asked if m.role != "system"]
        params: dict[str, Any] = {"messages": turns}
        if system := "\n\n".join(message.content for message in asked if message.role == "system"):
            params["system"] = system
        if enforced:
            # Lengths and numbers of items are not enforced there; the client moves them into the descriptions.
            simplified = self._errors.sdk.transform_schema(schema)
            params["output_config"] = {"format": {"type": "json_schema", "schema": simplified}}
        return params

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


def _image(url: str) -> dict[str, Any]:
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
