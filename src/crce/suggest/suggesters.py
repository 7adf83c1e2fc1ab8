"""The suggesters by name: the bundled ones, language models, and those of other packages."""

import os
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from crce.errors import SuggestError
from crce.llm.protocol import PROVIDERS, load_chat
from crce.registry import Table
from crce.suggest.candidates import Suggester


DEFAULT = "lexicon"
# "module:name" of a class or function that takes no arguments and returns a Suggester; an entry point is one itself
SUGGESTERS: Table[str | Callable[[], Suggester]] = Table(
    "suggester",
    "crce.suggesters",
    {
        "lexicon": "crce.suggest.lexicon:LexiconSuggester",
        "wordnet": "crce.suggest.lexicon:WordNetSuggester",
        "wikidata": "crce.suggest.wikidata:WikidataSuggester",
    },
    SuggestError,
)


TIMEOUT, TOKENS = 60, 100_000  # a language model's seconds for each answer, and tokens in all


def load_suggester(
    spec: str | None = None,
    *,
    base_url: str | None = None,
    prompts: str | Path | None = None,
    timeout: float = TIMEOUT,
    token_budget: int = TOKENS,
    seed: int = 0,
) -> Suggester:
    """Load a suggester by name.

    Args:
        spec: a name in `SUGGESTERS`, or a language model: "openai:MODEL", "anthropic:MODEL", "azure:DEPLOYMENT",
            "local:ID_OR_PATH". None takes $CRCE_SUGGESTER, else the lexicon.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that override the bundled ones.
        timeout: seconds to wait for an answer of a language model.
        token_budget: tokens that a language model may use in all.
        seed: of a language model's answers.

    Raises:
        SuggestError: there is no such suggester, it can't be loaded (a missing package, key or model), or a setting
            of language models is given for one that has none.
    """
    spec = (spec or os.environ.get("CRCE_SUGGESTER", "").strip() or DEFAULT).strip()
    if ":" in spec or spec in PROVIDERS:
        from crce.suggest.llm import LLMSuggester

        chat = load_chat(spec, base_url=base_url, timeout=timeout, token_budget=token_budget)
        return LLMSuggester(chat, prompts=prompts, seed=seed)
    entry = SUGGESTERS.find(spec, also=[f"{name}:MODEL" for name in PROVIDERS])
    of_models = {"--base-url": base_url, "--prompts": prompts, "--timeout": timeout, "--token-budget": token_budget}
    if given := [flag for flag, value in of_models.items() if value not in (None, TIMEOUT, TOKENS)]:
        raise SuggestError(
            f"{' and '.join(given)} can't be used with suggester {spec!r}, which asks no language model. Leave it "
            f"out, or choose one with --suggester: {', '.join(f'{name}:MODEL' for name in PROVIDERS)}."
        )
    make: Callable[[], Suggester] = resolve_name(entry) if isinstance(entry, str) else entry
    try:
        return make()
    except (ImportError, AttributeError, TypeError) as error:
        needs = "It must be a class or function without arguments, and the packages that it needs must be installed"
        raise SuggestError(f"Suggester {spec!r} can't be loaded: {error}. {needs}.") from error
