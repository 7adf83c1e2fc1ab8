"""Every prompt of an erasure, encoded once; from then on prompts are indices into one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.concepts import ConceptSet, atlas
from crce.concepts.concept_set import fold


NULL = 0  # index of the empty prompt
BATCH = 64  # prompts that the text encoder reads at once


@dataclass(frozen=True)
class SetPrompts:
    """One concept set, in one scene if there are some, as indices into the table.

    Attributes:
        null: the scene alone; without scenes the empty prompt.
        target: the target.
        prompt: what the target is erased from: the target itself, or `erase_from`.
        base: where erased prompts should land: `erase_from`, the anchor or nothing, in the scene.
        corefs: with certainty.
        retains: with certainty.
        everyday: phrases that the method keeps beside the retains, with weight 1.
    """

    null: int
    target: int
    prompt: int
    base: int
    corefs: list[tuple[int, float]]
    retains: list[tuple[int, float]]
    everyday: list[tuple[int, float]]


@dataclass(frozen=True)
class PromptTable:
    """The prompts of one or several concept sets.

    Attributes:
        texts: each prompt once; the first is the empty one.
        cond: their states.
        sets: the concept sets, in the order given, each as often as there are scenes.
    """

    texts: list[str]
    cond: Conditioning
    sets: tuple[SetPrompts, ...]


def make_table(
    backbone: Backbone,
    sets: Sequence[ConceptSet],
    *,
    crce: bool,
    vocabulary: Sequence[str] = (),
    scenes: Sequence[str] = (),
) -> PromptTable:
    """Encode the training phrases of concept sets.

    A phrase that one set erases and another keeps is erased: what must go goes. A scene is kept as it is alone.

    Args:
        backbone: whose text encoder reads them.
        sets: what to erase and what to keep.
        crce: with corefs and retains; without them only targets.
        vocabulary: everyday phrases to keep, for methods that bring their own; the retains where `crce` is off.
        scenes: what phrases are shown in; none shows them alone.
    """
    gone = {fold(text) for c in sets for text in (c.target, *(r.text for r in c.train_corefs if crce))}
    index: dict[str, int] = {"": NULL}

    def place(text: str, scene: str) -> int:
        shown = f"{scene}, {text}" if scene and text else scene or text
        return index.setdefault(shown, len(index))

    prompts: list[SetPrompts] = []
    for c in sets:
        own = [(v, 1.0) for v in vocabulary if fold(v) not in gone]
        kept = [(r.text, r.certainty) for r in c.train_retains if fold(r.text) not in gone] if crce else own
        beside = own if crce else []
        for scene in scenes or ("",):
            prompts.append(
                SetPrompts(
                    null=place("", scene),
                    base=place(c.erase_from or c.anchor or "", scene),
                    target=place(c.target, scene),
                    prompt=place(c.erase_from or c.target, scene),
                    corefs=[(place(r.text, scene), r.certainty) for r in c.train_corefs] if crce else [],
                    retains=[(place(text, scene), weight) for text, weight in kept]
                    + ([(place("", scene), 1.0)] if scene and crce else []),
                    everyday=[(place(text, scene), weight) for text, weight in beside],
                )
            )
    texts = list(index)
    return PromptTable(texts, encode_all(backbone, texts), tuple(prompts))


def encode_all(backbone: Backbone, texts: list[str]) -> Conditioning:
    """States of one or more prompts, which the text encoder reads in batches."""
    return Conditioning.cat([backbone.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])


def near_vocabulary(backbone: Backbone, sets: Sequence[ConceptSet], count: int) -> list[str]:
    """Everyday concepts nearest to the targets in the states of the model's own text encoder.

    They are the targets of the atlas, less every phrase of the sets: what a set holds out stays unseen.
    """
    if not count:
        return []
    named = {fold(t) for c in sets for t in (c.target, c.erase_from or "", *(r.text for r in c.corefs + c.retains))}
    words = [c.target for c in atlas().values() if c.kind != "explicit" and fold(c.target) not in named]
    states = backbone.encode([*(c.target for c in sets), *words]).hidden.float().flatten(1)
    nearest = torch.cdist(states[len(sets) :], states[: len(sets)]).amin(1).argsort()
    return [words[i] for i in nearest[:count].tolist()]
