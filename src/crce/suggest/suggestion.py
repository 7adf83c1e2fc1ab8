"""From a concept to a concept set: propose, clean, verify, ground, rank, select; and again from the record."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from crce import __version__
from crce.concepts import KINDS, ConceptSet, read_concepts
from crce.concepts.concept_set import Kind, unknown_kind
from crce.concepts.library import SUFFIXES
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate, Request, Suggester
from crce.suggest.concept import parts
from crce.suggest.memory import Memory
from crce.suggest.pipeline import Draft
from crce.suggest.record import Record, Settings, plain_concepts, read_record
from crce.suggest.suggesters import load_suggester


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge
    from crce.llm import Chat
    from crce.suggest.grounding import Grounded

logger = logging.getLogger(__name__)

DIVERSITY = 0.3


@dataclass(frozen=True)
class Suggestion:
    """A concept set, and how it came about."""

    concepts: ConceptSet
    record: Record


def suggest(
    concept: str | Path | ConceptSet,
    *,
    kind: str | None = None,
    suggester: str | Suggester | None = None,
    corefs: int = 8,
    retains: int = 8,
    held_out: int = 4,
    verify: bool | Literal["question", "consistency"] | None = None,
    ground: bool = False,
    model: str = "demo",
    backbone: Backbone | None = None,
    judge: Judge | None = None,
    base_url: str | None = None,
    prompts: str | Path | None = None,
    memory: Memory | None = None,
    seed: int = 0,
    timeout: float = 60,
    token_budget: int = 100_000,
) -> Suggestion:
    """Find the other ways to call a concept, and the near but different things to keep.

    Args:
        concept: the phrase to erase; which sense of it may follow in brackets, as in "bat (animal)". Of a file or a
            concept set its target and kind are taken.
        kind: what sort of thing it is; None infers it.
        suggester: who proposes, see `load_suggester`; None takes $CRCE_SUGGESTER, else the lexicon.
        corefs: corefs to train.
        retains: retains to train.
        held_out: phrases to hold out on each side, for the evaluation.
        verify: ask a language model a second time about every phrase ("question", the same as True), or how often it
            proposes it ("consistency"); None does so for language models that are asked over the network.
        ground: ask the text-to-image model what it draws for each phrase.
        model: the text-to-image model, see `load_backbone`.
        backbone: a loaded one to use instead.
        judge: says what the model's pictures show; None leaves the pictures out.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that win over the bundled ones.
        memory: earlier decisions of a person; None takes the user's own.
        seed: of whatever is drawn at random.
        timeout: seconds to wait for an answer of a language model.
        token_budget: tokens that a language model may use in all.

    Raises:
        SuggestError: the concept or a setting can't be used, the suggester does not know the concept or can't be
            reached, or nothing of what it proposed can be used.
        ModelError: the text-to-image model can't be loaded.

    Examples:
        >>> import crce
        >>> concepts = crce.suggest("walrus", corefs=2, retains=2, held_out=0).concepts
        >>> concepts.target, len(concepts.corefs), len(concepts.retains)
        ('walrus', 2, 2)
    """
    if not isinstance(concept, ConceptSet) and Path(str(concept).partition("#")[0]).suffix.lower() in SUFFIXES:
        concept = read_concepts(str(concept))
    if isinstance(concept, ConceptSet):
        kind = kind or concept.kind
        concept = concept.target
    target, sense = parts(str(concept))
    if min(corefs, retains, held_out) < 0 or not corefs + retains:
        raise SuggestError(
            f"corefs is {corefs}, retains is {retains}, held_out is {held_out}. Use numbers from 0 up, at least one "
            "coref or retain."
        )
    if kind is not None and kind not in KINDS:
        raise SuggestError(f"kind {unknown_kind(kind)}")
    if suggester is None or isinstance(suggester, str):
        suggester = load_suggester(
            suggester, base_url=base_url, prompts=prompts, timeout=timeout, token_budget=token_budget, seed=seed
        )
    chat = chat_of(suggester)
    memory = memory or Memory()
    known = cast(Kind, kind) if kind is not None else _inferred(target, sense, chat)
    request = Request(
        target,
        known,
        sense,
        corefs=corefs + held_out,
        retains=retains + held_out,
        avoid=memory.rejected(target, sense),
        examples=memory.examples(known),
    )
    settings = Settings(
        corefs=corefs,
        retains=retains,
        held_out=held_out,
        diversity=DIVERSITY,
        verify=_method(verify, chat, suggester.name),
        ground=(backbone.model if backbone is not None else model) if ground else None,
        prompts=str(prompts) if prompts is not None else os.environ.get("CRCE_PROMPTS") or None,
        retries=_retries_of(suggester),
        seed=seed,
    )

    def measure(phrases: list[str]) -> dict[str, Grounded]:
        from crce.backbones import load_backbone
        from crce.suggest.grounding import ground

        return ground(target, phrases, backbone or load_backbone(model), judge=judge, seed=seed)

    return _suggestion(request, settings, suggester, measure, lambda draft: _rank(draft, memory))


def replay(path: str | Path) -> Suggestion:
    """Make the concept set of a record again, offline and by the same steps, from what was answered then.

    Raises:
        SuggestError: the record can't be read, or lacks an answer.
    """
    from crce.suggest.grounding import Grounded

    record = read_record(path)

    def measure(phrases: list[str]) -> dict[str, Grounded]:
        if missing := [phrase for phrase in phrases if phrase not in record.grounding]:
            raise SuggestError(
                f"{path} holds no grounding of {missing[0]!r}: it was made by crce {record.crce}, which chose other "
                "phrases. Ask again: crce suggest --ground"
            )
        try:
            return {phrase: Grounded(**measured) for phrase, measured in record.grounding.items()}
        except TypeError as error:
            raise SuggestError(f"{path}: its grounding can't be read ({error}). Ask again: crce suggest") from error

    def rank(draft: Draft) -> None:
        draft.scores = list(record.scores)

    suggestion = _suggestion(record.request, record.settings, _replayed(record), measure, rank)
    if suggestion.concepts != record.concept_set:
        logger.warning(
            "The set made from %s is not the one recorded there (made by crce %s; this is %s).",
            path,
            record.crce,
            __version__,
        )
    return suggestion


def chat_of(suggester: Suggester) -> Chat | None:
    """The language model behind a suggester, or None."""
    from crce.suggest.llm import LLMSuggester

    return suggester.chat if isinstance(suggester, LLMSuggester) else None


def _retries_of(suggester: Suggester) -> int | None:
    from crce.suggest.llm import LLMSuggester

    return suggester.retries if isinstance(suggester, LLMSuggester) else None


@dataclass
class _Recorded:
    """Answers what was proposed before."""

    name: str
    proposed: tuple[Candidate, ...]

    def propose(self, request: Request) -> list[Candidate]:
        return list(self.proposed)


def _replayed(record: Record) -> Suggester:
    if not record.exchanges:
        return _Recorded(record.suggester, record.proposed)
    from crce.suggest.llm import LLMSuggester
    from crce.suggest.structured_query import RETRIES
    from crce.suggest.transcript import Exchange, ReplayChat

    settings = record.settings
    exchanges = [Exchange.from_dict(exchange) for exchange in record.exchanges]
    chat = ReplayChat(exchanges, record.provider or "replay", record.model or "record")
    retries = RETRIES if settings.retries is None else settings.retries
    return LLMSuggester(chat, prompts=settings.prompts, retries=retries, seed=settings.seed)


def _inferred(target: str, sense: str | None, chat: Chat | None) -> Kind:
    from crce.suggest.disambiguation import infer_kind

    # a language model has a prompt for what is neither; the lexicon says itself that it does not know the target
    return infer_kind(target, sense) or ("object" if chat is None else "other")


def _method(
    verify: bool | Literal["question", "consistency"] | None, chat: Chat | None, name: str
) -> Literal["question", "consistency"] | None:
    if verify is None:
        return "question" if chat is not None and chat.remote else None
    if verify is False:
        return None
    if chat is None:
        raise SuggestError(
            f"verify asks a language model, and suggester {name!r} has none. Leave it out, or choose one: "
            "openai:MODEL, anthropic:MODEL, local:ID_OR_PATH."
        )
    method = "question" if verify is True else verify
    if method not in ("question", "consistency"):
        raise SuggestError(f"verify is {verify!r}. Use question or consistency.")
    return method


def _rank(draft: Draft, memory: Memory) -> None:
    """Rank by what was decided before, where there is enough of it."""
    from crce.suggest.ranking import TooFew, learned

    decisions = memory.decisions()
    if not decisions:
        return
    ranker = learned(decisions)
    if isinstance(ranker, TooFew):
        logger.info("%s", ranker)
    else:
        draft.rank(ranker)


def _suggestion(
    request: Request,
    settings: Settings,
    suggester: Suggester,
    measure: Callable[[list[str]], dict[str, Grounded]],
    rank: Callable[[Draft], None],
) -> Suggestion:
    """All steps, and their record."""
    from crce.suggest.embedding import load_embedder
    from crce.suggest.llm import LLMSuggester

    model = suggester if isinstance(suggester, LLMSuggester) else None
    exchanges = model.exchanges if model is not None else []
    asked = len(exchanges)  # by earlier suggestions of the same suggester
    try:
        draft = Draft(request, settings, suggester.propose(request), load_embedder())
        proposed = tuple(draft.candidates)
        draft.clean()
        if model is not None:
            draft.verify(model.chat, exchanges)
        if settings.ground is not None:
            draft.ground(measure)
        rank(draft)
        concepts = draft.select()
    except SuggestError as error:
        error.concept = f"{request.target} ({request.sense})" if request.sense else request.target
        error.exchanges = tuple(e.to_dict() for e in exchanges[asked:])
        raise
    answered = tuple(e.to_dict() for e in exchanges[asked:])
    record = Record(
        crce=__version__,
        suggester=suggester.name,
        provider=model.chat.provider if model is not None else None,
        model=model.chat.model if model is not None else None,
        prompt_hash=answered[0]["prompt_hash"] if answered else None,
        request=request,
        settings=settings,
        proposed=proposed,
        exchanges=answered,
        verified=tuple(draft.verified),
        grounding={phrase: asdict(grounded) for phrase, grounded in draft.grounding.items()},
        scores=tuple(draft.scores),
        decisions=tuple(draft.decisions),
        warnings=tuple(_warnings(concepts, settings)),
        concepts=plain_concepts(concepts),
    )
    return Suggestion(concepts, record)


def _warnings(concepts: ConceptSet, settings: Settings) -> list[str]:
    """What there is less of than was asked for."""
    counts = [
        ("corefs to train", len(concepts.train_corefs), settings.corefs),
        ("corefs to hold out", len(concepts.held_out_corefs), settings.held_out if settings.corefs else 0),
        ("retains to train", len(concepts.train_retains), settings.retains),
        ("retains to hold out", len(concepts.held_out_retains), settings.held_out if settings.retains else 0),
    ]
    return [
        f"{found or 'no'} {what}, where {wanted} were asked for" for what, found, wanted in counts if found < wanted
    ]
