"""The steps from candidates to a concept set: clean, verify, ground, rank, select, each with a reason per phrase."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from crce.concepts import ConceptSet, Related
from crce.demo.embedding import load_embedder
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate
from crce.suggest.disambiguation import meant_sense, question
from crce.suggest.grounding import Grounded, apply_grounding, priority
from crce.suggest.mmr import select
from crce.suggest.phrases import clean
from crce.suggest.record import Record, Score, Verified, plain_concepts


# Grounding takes time for every phrase: as many as are wanted, and a quarter more for those that it drops.
GROUNDED_SHARE = 1.25


def complete(
    record: Record,
    *,
    verify: Callable[[list[Candidate]], Sequence[Verified]] | None = None,
    measure: Callable[[list[str]], dict[str, Grounded]] | None = None,
    rank: Callable[[list[Candidate]], Sequence[Score]] | None = None,
) -> tuple[ConceptSet, Record]:
    """The concept set that a record's proposals make, and the record with every step's results.

    `verify` is as in `crce.suggest.verification`, `measure` as `crce.suggest.grounding.ground`. The scores of `rank`,
    by earlier decisions of a person, count as much as the certainty.

    Raises:
        SuggestError: no candidate is left.
    """
    settings, target = record.settings, record.request.target
    verified: Sequence[Verified] = ()
    scores: Sequence[Score] = ()
    grounding: dict[str, Grounded] = {}
    candidates, dropped = clean(record.proposed, record.request, settle=verify is None)
    if verify and candidates:
        verified = verify(candidates)
        pairs = [(replace(c, certainty=v.certainty), v) for c, v in zip(candidates, verified, strict=True)]
        dropped += [c.dropped(v.reason) for c, v in pairs if not v.certainty]
        candidates, contrary = clean([c.noted(v.reason) for c, v in pairs if v.certainty], record.request)
        dropped += contrary
    if measure:
        places = {side: math.ceil(GROUNDED_SHARE * count) for side, count in record.request.wanted.items()}
        foremost: list[Candidate] = []
        for candidate in candidates:
            places[candidate.side] -= 1
            if places[candidate.side] >= 0:
                foremost.append(candidate)
            else:
                dropped.append(candidate.dropped("enough others are more certain, so it was not measured"))
        grounding = measure([c.text for c in foremost])
        grounded = apply_grounding(foremost, grounding)
        candidates = [c for c in grounded if c.outcome is None]
        dropped += [c for c in grounded if c.outcome is not None]
    if not candidates:
        nothing = f"Nothing was proposed for '{target}'."
        if dropped:  # the one that came furthest says most about why nothing is left
            first = f"{dropped[-1].text!r}: {dropped[-1].reason}"
            nothing = f"Of {len(dropped)} phrases proposed for '{target}' none can be used, e.g. {first}."
        cure = "Name the kind (--kind), choose another suggester (--suggester), or write your own set."
        raise SuggestError(f"{nothing} {cure}")
    if rank:
        scores = rank(candidates)
    learned = {(s.side, s.text): s.score for s in scores}

    def score(candidate: Candidate) -> float:
        own = priority(candidate)
        return (own + learned.get((candidate.side, candidate.text), own)) / 2

    wanted = {name: getattr(settings, name) for name in ("corefs", "retains", "held_out", "diversity")}
    chosen, left_over = select(candidates, load_embedder(), **wanted, target=target, score=score)
    corefs, retains = (
        tuple(Related(c.text, c.certainty, c.source, c.outcome == "held-out") for c in chosen if c.side == side)
        for side in ("coref", "retain")
    )
    concepts = ConceptSet(target, record.request.kind, corefs, retains)
    enough = "there are enough others that are more certain or less similar"
    decided = [*chosen, *dropped, *(c.dropped(enough) for c in left_over)]
    results = {
        "verified": tuple(verified),
        "grounding": grounding,
        "scores": tuple(scores),
        "decisions": tuple(replace(c, held_out=None, similarity=None, closeness=None) for c in decided),
        "warnings": _warnings(concepts, record),
        "concepts": plain_concepts(concepts),
    }
    return concepts, record.model_copy(update=results)


def _warnings(concepts: ConceptSet, record: Record) -> tuple[str, ...]:
    """What the target may mean besides, of a suggester that chose; and what there is less of than was asked for."""
    counts, settings = [], record.settings
    chose = record.suggester in ("lexicon", "wordnet", "wikidata")
    asked = question(record.request, meant_sense(record.request))[0] if chose else ""
    sides = {"corefs": (concepts.corefs, settings.corefs), "retains": (concepts.retains, settings.retains)}
    for side, (related, wanted) in sides.items():
        held_out = sum(r.held_out for r in related)
        counts.append((f"{side} to train", len(related) - held_out, wanted))
        counts.append((f"{side} to hold out", held_out, settings.held_out if wanted else 0))
    return (
        *filter(None, [asked]),
        *(f"{n or 'no'} {what}, where {wanted} were asked for" for what, n, wanted in counts if n < wanted),
    )
