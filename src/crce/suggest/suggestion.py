"""From a concept to a concept set: propose, clean, verify, ground, rank, select; and again from its record."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from crce import __version__
from crce.bounds import check_numbers
from crce.concepts import KINDS, ConceptSet, read_concepts
from crce.concepts.concept_set import Kind, unknown_kind
from crce.concepts.library import SUFFIXES
from crce.errors import SuggestError
from crce.suggest import grounding, verification
from crce.suggest.candidates import Candidate, Request, Suggester
from crce.suggest.grounding import Grounded
from crce.suggest.llm import LLMSuggester
from crce.suggest.memory import Memory
from crce.suggest.phrases import parse_concept
from crce.suggest.pipeline import complete
from crce.suggest.ranking import Ranker
from crce.suggest.record import Record, SuggestionSettings, Verified, read_record
from crce.suggest.suggesters import load_suggester


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge

logger = logging.getLogger(__name__)

DIVERSITY = 0.3
NO_COREFS = (
    "No coref of '{0}' is known, so its other names would generate it still. Say what it is with --kind or another "
    "sense, ask a language model with --suggester, or confirm with --corefs 0 --held-out 0 that it has none."
)


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
        model: the text-to-image model, see `load_backbone`; or `backbone`, which is loaded already.
        judge: judges the model's images; None judges none.
        base_url, prompts, timeout, token_budget: of a language model, see `load_suggester`.
        memory: earlier decisions of a person; None takes the user's own.
        seed: of every random choice.

    Raises:
        ConfigError: a number is out of range.
        SuggestError: the concept or a setting can't be used, the suggester does not know the concept or can't be
            reached, or none of its proposals can be used.
        ModelError: the text-to-image model can't be loaded.

    Examples:
        >>> import crce
        >>> concepts = crce.suggest("walrus", corefs=2, retains=2, held_out=0).concepts
        >>> concepts.target, len(concepts.corefs), len(concepts.retains)
        ('walrus', 2, 2)
    """
    from crce.suggest.disambiguation import infer_kind

    if not isinstance(concept, ConceptSet) and Path(str(concept).partition("#")[0]).suffix.lower() in SUFFIXES:
        concept = read_concepts(str(concept))
    if isinstance(concept, ConceptSet):
        kind, concept = kind or concept.kind, concept.target
    target, sense = parse_concept(str(concept))
    check_numbers(corefs=corefs, retains=retains, held_out=held_out, seed=seed)
    if not corefs + retains:
        raise SuggestError("corefs is 0, and retains is 0. Ask for at least one coref or retain.")
    if kind is not None and kind not in KINDS:
        raise SuggestError(f"kind {unknown_kind(kind)}")
    if suggester is None or isinstance(suggester, str):
        suggester = load_suggester(
            suggester, base_url=base_url, prompts=prompts, timeout=timeout, token_budget=token_budget, seed=seed
        )
    llm = suggester if isinstance(suggester, LLMSuggester) else None
    if verify and llm is None:
        cure = "Leave it out, or choose one: openai:MODEL, anthropic:MODEL, local:ID_OR_PATH."
        raise SuggestError(f"verify asks a language model, and suggester {suggester.name!r} has none. {cure}")
    verify = llm is not None and (llm.chat.remote if verify is None else verify)
    # a language model has a prompt for other; the lexicon says itself that it does not know the target
    infer: Callable[[str, str | None], Kind | None] = getattr(suggester, "infer_kind", infer_kind)
    known = cast(Kind, kind or infer(target, sense) or ("object" if llm is None else "other"))
    memory = memory or Memory()
    avoid, examples = memory.rejected(target, sense), memory.examples(known)
    request = Request(target, known, sense, corefs + held_out, retains + held_out, avoid, examples)
    settings = SuggestionSettings(
        corefs=corefs,
        retains=retains,
        held_out=held_out,
        diversity=DIVERSITY,
        verify="question" if verify else None,
        ground=(backbone.model if backbone is not None else model) if ground else None,
        prompts=str(prompts) if prompts is not None else os.environ.get("CRCE_PROMPTS") or None,
        retries=llm.retries if llm else None,
        seed=seed,
    )
    exchanges = llm.exchanges if llm is not None else []
    asked = len(exchanges)  # by earlier suggestions of the same suggester
    ask = partial(verification.verify, request=request, suggester=llm) if llm is not None and verify else None

    def measure(phrases: list[str]) -> dict[str, Grounded]:
        from crce.backbones import load_backbone

        return grounding.ground(target, phrases, backbone or load_backbone(model), judge=judge, seed=seed)

    ranker = Ranker.fit(memory.decisions())
    rank = partial(ranker.scores, target) if isinstance(ranker, Ranker) else None
    try:
        record = Record(
            crce=__version__,
            suggester=suggester.name,
            provider=llm.chat.provider if llm else None,
            model=llm.chat.model if llm else None,
            request=request,
            settings=settings,
            proposed=(*memory.accepted(target, sense), *suggester.propose(request)),
        )
        concepts, record = complete(record, verify=ask, measure=measure if ground else None, rank=rank)
        if corefs and not concepts.train_corefs:
            raise SuggestError(" ".join([NO_COREFS.format(target), *(w for w in record.warnings if w.endswith("."))]))
    except SuggestError as error:
        error.concept, error.exchanges = request.name, tuple(exchanges[asked:])
        raise
    answered = tuple(exchanges[asked:])
    prompt_hash = answered[0]["prompt_hash"] if answered else None
    return Suggestion(concepts, record.model_copy(update={"exchanges": answered, "prompt_hash": prompt_hash}))


def replay(path: str | Path) -> Suggestion:
    """Make the concept set of a record again: offline, by the same steps, from the answers it contains.

    Raises:
        SuggestError: the record can't be read, or lacks an answer.
    """
    old = read_record(path)

    def verify(candidates: list[Candidate]) -> list[Verified]:
        found = {(row.side, row.text): row for row in old.verified}
        return [found[c.side, c.text] for c in candidates]

    def measure(phrases: list[str]) -> dict[str, Grounded]:
        _ = [old.grounding[phrase] for phrase in phrases]
        return old.grounding

    try:
        concepts, record = complete(
            old.model_copy(update={"crce": __version__}),
            verify=verify if old.settings.verify is not None else None,
            measure=measure if old.settings.ground is not None else None,
            rank=lambda candidates: old.scores,
        )
    except KeyError as error:
        why = f"It was edited, or made by another version of crce ({old.crce})"
        raise SuggestError(f"{path} lacks an answer about {error}. {why}. Suggest again, without --replay.") from error
    if concepts != old.concept_set:
        logger.warning(
            "The set made from %s is not the one recorded there (made by crce %s; this is %s).",
            *(path, old.crce, __version__),
        )
    return Suggestion(concepts, record)
