"""From a concept to a concept set: propose, clean, verify, ground, rank, select; and again from its record."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from crce import __version__
from crce.concepts import KINDS, ConceptSet, read_concepts
from crce.concepts.concept_set import Kind, unknown_kind
from crce.concepts.library import SUFFIXES
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate, Request, Suggester
from crce.suggest.llm import LLMSuggester
from crce.suggest.memory import Memory
from crce.suggest.phrases import parse_concept
from crce.suggest.pipeline import Pipeline
from crce.suggest.record import Record, SuggestionSettings, plain_concepts, read_record
from crce.suggest.suggesters import load_suggester


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge
    from crce.suggest.grounding import Grounded
    from crce.suggest.verification import SecondOpinion

logger = logging.getLogger(__name__)

DIVERSITY = 0.3


@dataclass(frozen=True)
class Suggestion:
    """A concept set, and the record of how it was made."""

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
    verify: bool | None = None,
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
    """Suggest other names of a concept, to be erased with it, and similar but different things, to be kept.

    Args:
        concept: the phrase to erase; which sense of it may follow in brackets, as in "bat (animal)". Of a file or a
            concept set its target and kind are taken.
        kind: what sort of thing it is; None infers it.
        suggester: who proposes, see `load_suggester`; None takes $CRCE_SUGGESTER, else the lexicon.
        corefs: corefs to train.
        retains: retains to train.
        held_out: phrases to hold out on each side, for the evaluation.
        verify: ask the language model a second question about every phrase; None does so for language models that are
            asked over the network.
        ground: measure what the text-to-image model generates for each phrase.
        model: the text-to-image model, see `load_backbone`.
        backbone: a loaded one to use instead.
        judge: judges the model's images; None judges none.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that override the bundled ones.
        memory: earlier decisions of a person; None takes the user's own.
        seed: of every random choice.
        timeout: seconds to wait for an answer of a language model.
        token_budget: tokens that a language model may use in all.

    Raises:
        SuggestError: the concept or a setting can't be used, the suggester does not know the concept or can't be
            reached, or none of its proposals can be used.
        ModelError: the text-to-image model can't be loaded.

    Examples:
        >>> import crce
        >>> concepts = crce.suggest("walrus", corefs=2, retains=2, held_out=0).concepts
        >>> concepts.target, len(concepts.corefs), len(concepts.retains)
        ('walrus', 2, 2)
    """
    from crce.demo.embedding import load_embedder
    from crce.suggest.disambiguation import infer_kind

    if not isinstance(concept, ConceptSet) and Path(str(concept).partition("#")[0]).suffix.lower() in SUFFIXES:
        concept = read_concepts(str(concept))
    if isinstance(concept, ConceptSet):
        kind, concept = kind or concept.kind, concept.target
    target, sense = parse_concept(str(concept))
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
    llm = suggester if isinstance(suggester, LLMSuggester) else None
    if verify and llm is None:
        raise SuggestError(
            f"verify asks a language model, and suggester {suggester.name!r} has none. Leave it out, or choose one: "
            "openai:MODEL, anthropic:MODEL, local:ID_OR_PATH."
        )
    verify = llm is not None and (llm.chat.remote if verify is None else verify)
    # a language model has a prompt for other; the lexicon says itself that it does not know the target
    known = cast(Kind, kind or infer_kind(target, sense) or ("object" if llm is None else "other"))
    memory = memory or Memory()
    request = Request(
        target,
        known,
        sense,
        corefs=corefs + held_out,
        retains=retains + held_out,
        avoid=memory.rejected(target, sense),
        examples=memory.examples(known),
    )
    settings = SuggestionSettings(
        corefs=corefs,
        retains=retains,
        held_out=held_out,
        diversity=DIVERSITY,
        verify="question" if verify else None,
        ground=(backbone.model if backbone is not None else model) if ground else None,
        prompts=str(prompts) if prompts is not None else os.environ.get("CRCE_PROMPTS") or None,
        retries=llm.retries if llm is not None else None,
        seed=seed,
    )
    exchanges = llm.exchanges if llm is not None else []
    asked = len(exchanges)  # by earlier suggestions of the same suggester
    try:
        proposed = suggester.propose(request)
        pipeline = Pipeline(request, settings, proposed, load_embedder())
        pipeline.clean()
        if verify and llm is not None and pipeline.candidates:
            from crce.suggest import verification

            pipeline.verify(
                partial(
                    verification.verify,
                    request=request,
                    chat=llm.chat,
                    prompts=settings.prompts,
                    exchanges=exchanges,
                    seed=seed,
                )
            )
        if ground:
            pipeline.ground(partial(_measure, target, backbone, model, judge, seed))
        _rank(pipeline, memory)
        concepts = pipeline.select()
    except SuggestError as error:
        error.concept, error.exchanges = request.name, tuple(e.to_dict() for e in exchanges[asked:])
        raise
    answered = tuple(exchange.to_dict() for exchange in exchanges[asked:])
    record = Record(
        crce=__version__,
        suggester=suggester.name,
        provider=llm.chat.provider if llm is not None else None,
        model=llm.chat.model if llm is not None else None,
        prompt_hash=answered[0]["prompt_hash"] if answered else None,
        request=request,
        settings=settings,
        proposed=tuple(proposed),
        exchanges=answered,
        decisions=(),
        concepts={},
    )
    return _suggestion(record, pipeline, concepts)


def replay(path: str | Path) -> Suggestion:
    """Make the concept set of a record again: offline, by the same steps, from the answers it contains.

    Raises:
        SuggestError: the record can't be read, or lacks an answer.
    """
    from crce.demo.embedding import load_embedder
    from crce.suggest.grounding import Grounded
    from crce.suggest.verification import SecondOpinion

    record = read_record(path)

    def opinions(candidates: list[Candidate]) -> list[SecondOpinion]:
        found = {(row["side"], row["text"]): row for row in record.verified}
        rows = [found[c.side, c.text] for c in candidates]
        return [SecondOpinion(row["certainty"], row["answer"], row["reason"]) for row in rows]

    def measure(phrases: list[str]) -> dict[str, Grounded]:
        _ = [record.grounding[phrase] for phrase in phrases]
        return {phrase: Grounded(**measured) for phrase, measured in record.grounding.items()}

    pipeline = Pipeline(record.request, record.settings, record.proposed, load_embedder())
    pipeline.clean()
    try:
        if record.settings.verify is not None and pipeline.candidates:
            pipeline.verify(opinions)
        if record.settings.ground is not None:
            pipeline.ground(measure)
    except (KeyError, TypeError) as error:
        raise SuggestError(
            f"{path} lacks an answer about a phrase, or it can't be read ({error}). It was edited, or made by another "
            f"version of crce ({record.crce}). Suggest again, without --replay."
        ) from error
    pipeline.scores = list(record.scores)
    suggestion = _suggestion(record.model_copy(update={"crce": __version__}), pipeline, pipeline.select())
    if suggestion.concepts != record.concept_set:
        logger.warning(
            "The set made from %s is not the one recorded there (made by crce %s; this is %s).",
            *(path, record.crce, __version__),
        )
    return suggestion


def _measure(
    target: str, backbone: Backbone | None, model: str, judge: Judge | None, seed: int, phrases: list[str]
) -> dict[str, Grounded]:
    from crce.backbones import load_backbone
    from crce.suggest.grounding import ground

    return ground(target, phrases, backbone or load_backbone(model), judge=judge, seed=seed)


def _rank(pipeline: Pipeline, memory: Memory) -> None:
    """Rank by earlier decisions, if there are enough."""
    if not (decisions := memory.decisions()):
        return
    from crce.suggest.ranking import Ranker

    ranker = Ranker.fit(decisions)
    if isinstance(ranker, str):
        logger.info("%s", ranker)
    else:
        pipeline.rank(ranker)


def _suggestion(record: Record, pipeline: Pipeline, concepts: ConceptSet) -> Suggestion:
    """The concept set with its record, to which the results of the pipeline are added."""
    settings = record.settings
    counts = [
        ("corefs to train", len(concepts.train_corefs), settings.corefs),
        ("corefs to hold out", len(concepts.held_out_corefs), settings.held_out if settings.corefs else 0),
        ("retains to train", len(concepts.train_retains), settings.retains),
        ("retains to hold out", len(concepts.held_out_retains), settings.held_out if settings.retains else 0),
    ]
    results = {
        "verified": tuple(pipeline.verified),
        "grounding": {phrase: asdict(grounded) for phrase, grounded in pipeline.grounding.items()},
        "scores": tuple(pipeline.scores),
        "decisions": tuple(pipeline.decisions),
        "warnings": tuple(
            f"{found or 'no'} {what}, where {wanted} were asked for"
            for what, found, wanted in counts
            if found < wanted
        ),
        "concepts": plain_concepts(concepts),
    }
    return Suggestion(concepts, record.model_copy(update=results))
