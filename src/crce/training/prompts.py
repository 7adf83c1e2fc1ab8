"""Every prompt of an erasure, encoded once; from then on prompts are indices into one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crce.backbones.conditioning import Conditioning
from crce.concepts.concept_set import fold


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet

NULL = 0  # index of the empty prompt
BATCH = 64  # prompts that the text encoder reads at once


@dataclass(frozen=True)
class SetPrompts:
    """One concept set as indices into the table.

    Attributes:
        target: the target.
        prompt: what the target is erased from: the target itself, or `erase_from`.
        base: where erased prompts should land: `erase_from`, the anchor or the empty prompt.
        corefs: with certainty.
        retains: with certainty.
    """

    target: int
    prompt: int
    base: int
    corefs: list[tuple[int, float]]
    retains: list[tuple[int, float]]


@dataclass(frozen=True)
class PromptTable:
    """The prompts of one or several concept sets.

    Attributes:
        texts: each prompt once; the first is the empty one.
        cond: their states.
        sets: the concept sets, in the order given.
    """

    texts: list[str]
    cond: Conditioning
    sets: tuple[SetPrompts, ...]


def make_table(
    backbone: Backbone, sets: Sequence[ConceptSet], *, crce: bool, vocabulary: Sequence[str] = ()
) -> PromptTable:
    """Encode the training phrases of concept sets.

    A phrase that one set erases and another keeps is erased: what must go goes.

    Args:
        backbone: whose text encoder reads them.
        sets: what to erase and what to keep.
        crce: with corefs and retains; without them only targets.
        vocabulary: phrases to keep where `crce` is off, for methods that bring their own.
    """
    gone = {fold(text) for c in sets for text in (c.target, *(r.text for r in c.train_corefs if crce))}
    kept: list[list[tuple[str, float]]] = []
    for concepts in sets:
        own = [(r.text, r.certainty) for r in concepts.train_retains] if crce else [(v, 1.0) for v in vocabulary]
        kept.append([(text, weight) for text, weight in own if fold(text) not in gone])
    texts = [""]
    for concepts, retains in zip(sets, kept, strict=True):
        corefs = [r.text for r in concepts.train_corefs] if crce else []
        texts += [_base(concepts), concepts.target, *corefs, *(text for text, _ in retains)]
    texts = list(dict.fromkeys(texts))
    index = {text: i for i, text in enumerate(texts)}
    prompts = [
        SetPrompts(
            target=index[concepts.target],
            prompt=index[concepts.erase_from or concepts.target],
            base=index[_base(concepts)],
            corefs=[(index[r.text], r.certainty) for r in concepts.train_corefs] if crce else [],
            retains=[(index[text], weight) for text, weight in retains],
        )
        for concepts, retains in zip(sets, kept, strict=True)
    ]
    parts = [backbone.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return PromptTable(texts, Conditioning.cat(parts), tuple(prompts))


def _base(concepts: ConceptSet) -> str:
    return concepts.erase_from or concepts.anchor or ""
