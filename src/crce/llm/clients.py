"""Language models by name: "openai:MODEL", "azure:DEPLOYMENT", "anthropic:MODEL", "local:ID_OR_PATH"."""

from __future__ import annotations

from pkgutil import resolve_name

from crce.errors import SuggestError
from crce.llm.protocol import Chat


SERVICES = {
    "openai": "crce.llm.openai_chat:OpenAIChat",
    "azure": "crce.llm.openai_chat:AzureChat",
    "anthropic": "crce.llm.anthropic_chat:AnthropicChat",
}
PROVIDERS = (*SERVICES, "local")


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
    if provider in SERVICES:
        service = resolve_name(SERVICES[provider])
        return service(model, base_url=base_url, timeout=timeout, retries=retries, token_budget=token_budget)
    if base_url:
        raise SuggestError(
            f"'{spec}' runs in this process and has no base URL. Leave --base-url out, or use openai:MODEL."
        )
    from crce.llm.local_chat import LocalChat

    return LocalChat(model, token_budget=token_budget)
