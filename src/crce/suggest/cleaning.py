"""Clean raw candidates: each phrase once, on one side, and none that would undo the erasure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from crce.concepts.concept_set import certainty_word
from crce.suggest.candidates import SIDES, Candidate, Request
from crce.suggest.phrases import core_words, key, normalise, phrase_fault, without_brackets, words


if TYPE_CHECKING:
    from crce.demo.embedding import Embedder

# both must hold: MiniLM puts some different things closer than 0.97, and "brown bear" is spelt like "brown beer"
SAME_MEANING = 0.97
SAME_SPELLING = 0.85
# written by people who knew these rules and broke them on purpose: "baseball bat" is kept while the animal is erased
CURATED = frozenset({"atlas", "user"})


def clean(
    candidates: Iterable[Candidate], request: Request, embedder: Embedder | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """Normalise the phrases and drop those that repeat or contradict others, or would undo the erasure.

    Args:
        candidates: as a suggester proposed them.
        request: what it was asked; its `avoid` and its target are dropped.
        embedder: finds phrases that are nearly the same; None loads the bundled one.

    Returns:
        The candidates to keep, the most certain first and otherwise in the order of `candidates`; and those that are
        dropped, each with the reason, in words that follow "because".
    """
    kept: list[Candidate] = []
    dropped: list[Candidate] = []
    for candidate in candidates:
        candidate = replace(candidate, text=normalise(candidate.text))
        if reason := _fault(candidate, request):
            dropped.append(drop(candidate, reason))
        else:
            kept.append(candidate)
    kept.sort(key=lambda c: -c.certainty)
    kept, contradicting = _one_side_each(_groups(kept, embedder))
    return kept, dropped + contradicting


def drop(candidate: Candidate, reason: str) -> Candidate:
    """The candidate as dropped for a reason."""
    return replace(candidate, outcome="dropped", reason=reason)


def _fault(candidate: Candidate, request: Request) -> str | None:
    """Why a candidate can't be used, whatever the others are, or None."""
    text, side = candidate.text, candidate.side
    if side not in SIDES:
        return f"side {side!r} is neither coref nor retain"
    if not 0 <= candidate.certainty <= 1:  # also NaN
        return f"its certainty {candidate.certainty} is outside [0, 1]"
    curated = candidate.source in CURATED
    if reason := phrase_fault(text, any_length=curated):
        return reason
    if key(text) == key(request.target) or key(without_brackets(text)) == key(without_brackets(request.target)):
        return "it is the target itself"
    if any(side == avoided and key(text) == key(phrase) for avoided, phrase in request.avoid):
        return "it was rejected before"
    if side == "retain" and not curated and core_words(request.target) <= set(words(text)):
        return f"it contains the target's own words ({request.target}), so erasing the target would erase it too"
    return None


def _groups(candidates: list[Candidate], embedder: Embedder | None) -> list[list[Candidate]]:
    """The candidates in groups that say the same thing, in the order of their first members."""
    by_key: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_key.setdefault(key(candidate.text), []).append(candidate)
    groups = list(by_key.values())
    if len(groups) < 2:
        return groups
    if embedder is None:
        from crce.demo.embedding import load_embedder

        embedder = load_embedder()
    texts = [group[0].text for group in groups]
    near = embedder.similarity(texts, texts) > SAME_MEANING
    home = list(range(len(groups)))  # the group that each was merged into
    for later, earlier in zip(*near.nonzero(), strict=True):
        if later <= earlier:
            continue
        spelling = SequenceMatcher(None, key(texts[later]), key(texts[earlier]), autojunk=False).ratio()
        if home[later] == later and spelling > SAME_SPELLING:
            home[later] = home[earlier]
            groups[home[earlier]].extend(groups[later])
    return [group for i, group in enumerate(groups) if home[i] == i]


def _one_side_each(groups: list[list[Candidate]]) -> tuple[list[Candidate], list[Candidate]]:
    """Of each group the most certain candidate; of a contradiction the more certain side, or neither."""
    kept: list[Candidate] = []
    dropped: list[Candidate] = []
    for group in groups:
        best = max(group, key=lambda c: c.certainty)  # the first of equals
        word = certainty_word(best.certainty)
        if any(c.side != best.side and c.certainty == best.certainty for c in group):
            dropped += [drop(c, f"it was proposed as a coref and as a retain, both {word}") for c in group]
            continue
        kept.append(best)
        for c in group:
            if c.side != best.side:
                dropped.append(drop(c, f"it was also proposed as a {best.side}, more certainly ({word})"))
            elif c is not best:
                dropped.append(drop(c, f"it repeats {best.text!r}"))
    return kept, dropped
