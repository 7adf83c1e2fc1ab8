"""The chats by name: "openai:MODEL", "azure:DEPLOYMENT", "anthropic:MODEL", "local:ID_OR_PATH"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.errors import SuggestError


if TYPE_CHECKING:
    from crce.llm.protocol import Chat

PROVIDERS = ("openai", "azure", "anthropic", "local")


def load_chat(
    spec: str,
    *,
    base_url: str | None = None,
    timeout: float = 60.0,
    retries: int = 4,
    token_budget: int = 100_000,
) -> Chat:
    """Get a language model ready to be asked; nothing is sent and no weights are read yet.

    Args:
        spec: provider and model, e.g. "openai:gpt-4o-mini", "local:HuggingFaceTB/SmolLM2-360M-Instruct" or
            "local:model.gguf".
        base_url: where the service is; None for the provider's own variable or its public address.
        timeout: seconds without a sign of life after which a try is given up; a local model takes the time it needs.
        retries: how often to ask again after a fault that may pass.
        token_budget: tokens that all questions and answers together may have.

    Raises:
        SuggestError: an unknown provider, a missing package, key or file, or a number out of range.
    """
    provider, _, model = spec.partition(":")
    if provider not in PROVIDERS or not model.strip():
        raise SuggestError(
            f"'{spec}' names no language model. Use one of: {', '.join(f'{name}:MODEL' for name in PROVIDERS)}."
        )
    if provider == "local":
        if base_url:
            raise SuggestError(
                f"'{spec}' runs in this process and has no base URL. Leave --base-url out, or use openai:MODEL."
            )
        from crce.llm.local_chat import LocalChat

        return LocalChat(model, token_budget=token_budget)
    if provider == "anthropic":
        from crce.llm.anthropic_chat import AnthropicChat

        return AnthropicChat(model, base_url=base_url, timeout=timeout, retries=retries, token_budget=token_budget)
    from crce.llm.openai_chat import OpenAIChat

    return OpenAIChat(
        model,
        base_url=base_url,
        azure=provider == "azure",
        timeout=timeout,
        retries=retries,
        token_budget=token_budget,
    )
