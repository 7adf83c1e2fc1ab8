"""The suggesters by name: the bundled ones, language models, and those of other packages."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.concepts.faults import did_you_mean
from crce.errors import SuggestError
from crce.llm.clients import PROVIDERS, load_chat


if TYPE_CHECKING:
    from crce.suggest.candidates import Suggester

DEFAULT = "lexicon"
ENTRY_POINTS = "crce.suggesters"  # name = a class or function that takes nothing and gives a Suggester


def _lexicon() -> Suggester:
    from crce.suggest.lexicon import LexiconSuggester

    return LexiconSuggester()


def _wordnet() -> Suggester:
    from crce.suggest.lexicon import LexiconSuggester

    return LexiconSuggester(atlas=False)


def _nearest() -> Suggester:
    from crce.suggest.nearest import NearestSuggester

    return NearestSuggester()


SUGGESTERS: dict[str, Callable[[], Suggester]] = {"lexicon": _lexicon, "wordnet": _wordnet, "nearest": _nearest}


def default_suggester() -> str:
    """The suggester that is used when none is named: $CRCE_SUGGESTER, else the lexicon."""
    return os.environ.get("CRCE_SUGGESTER", "").strip() or DEFAULT


def load_suggester(
    spec: str | None = None,
    *,
    base_url: str | None = None,
    prompts: str | Path | None = None,
    timeout: float = 60,
    token_budget: int = 100_000,
    seed: int = 0,
) -> Suggester:
    """Load a suggester by name.

    Args:
        spec: a name of `SUGGESTERS` or of another package, or a language model: "openai:MODEL", "anthropic:MODEL",
            "azure:DEPLOYMENT", "local:ID_OR_PATH". None takes `default_suggester`.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that win over the bundled ones.
        timeout: seconds to wait for an answer of a language model.
        token_budget: tokens that a language model may use in all.
        seed: of a language model's answers.

    Raises:
        SuggestError: there is no such suggester, it can't be loaded (a missing package, key or model), or a setting
            of language models is given for one that has none.
    """
    spec = (spec or default_suggester()).strip()
    provider, colon, model = spec.partition(":")
    if colon or spec in PROVIDERS:
        if not model.strip():
            raise SuggestError(f"Suggester {spec!r} names no model. Write {provider}:MODEL.")
        if provider not in PROVIDERS:
            raise SuggestError(
                f"Suggester {spec!r}: {provider!r} is no provider. Use one of: {', '.join(PROVIDERS)}."
                f"{did_you_mean(provider, PROVIDERS)}"
            )
        from crce.suggest.llm import LLMSuggester

        chat = load_chat(spec, base_url=base_url, timeout=timeout, token_budget=token_budget)
        return LLMSuggester(chat, prompts=prompts, seed=seed)
    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if spec in SUGGESTERS or spec in others:
        given = [flag for flag, value in (("--base-url", base_url), ("--prompts", prompts)) if value is not None]
        if given:
            raise SuggestError(
                f"{' and '.join(given)} can't be used with suggester {spec!r}, which asks no language model. Leave it "
                f"out, or choose one with --suggester: {', '.join(f'{name}:MODEL' for name in PROVIDERS)}."
            )
        return SUGGESTERS[spec]() if spec in SUGGESTERS else _load(others[spec])
    names = [*SUGGESTERS, *others]
    raise SuggestError(
        f"There is no suggester {spec!r}. Use one of: {', '.join(names)}, or a language model: "
        f"{', '.join(f'{name}:MODEL' for name in PROVIDERS)}.{did_you_mean(spec, names)}"
    )


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise SuggestError(
            f"Suggester {point.name!r} ({point.value}) can't be loaded: {error}. Reinstall the package it comes from."
        ) from error
