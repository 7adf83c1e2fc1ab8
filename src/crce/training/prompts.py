"""Every prompt of an erasure, encoded once; from then on prompts are indices into one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.concepts import ConceptSet, atlas
from crce.concepts.concept_set import fold


MARK = re.compile("[▁Ġ]|</w>")  # how tokenizers write the space before a word, or its end
NULL = 0  # index of the empty prompt


@dataclass(frozen=True)
class SetPrompts:
    """One concept set, in one scene if there are some, as indices into the table; phrases with their weight."""

    null: int  # the scene alone; without scenes the empty prompt
    target: int
    prompt: int  # what the target is erased from: the target itself, or `erase_from`, of which a part goes
    base: int  # where erased prompts should land: `erase_from`, the anchor or nothing, in the scene
    corefs: list[tuple[int, float]]
    retains: list[tuple[int, float]]
    everyday: list[tuple[int, float]]  # phrases that the method keeps beside the retains


@dataclass
class PromptTable:
    """The prompts of one or several concept sets: each once, with its states; the first is the empty one.
    What hardening finds, which has states alone, follows them.

    `sets` are the concept sets, in the order given, each as often as there are scenes.
    """

    texts: list[str]
    cond: Conditioning
    sets: tuple[SetPrompts, ...]

    def add_corefs(self, which: int, states: Conditioning) -> None:
        """Add states that no phrase names to the corefs of a set, as certain as can be."""
        own = self.sets[which]
        own.corefs.extend((len(self.texts) + i, 1.0) for i in range(len(states)))
        self.texts += [f"{self.texts[own.target]} *"] * len(states)
        self.cond = Conditioning.cat([self.cond, states])

    def mixtures(self, prompts: Sequence[int], count: int, generator: torch.Generator) -> Conditioning:
        """States between those of some prompts, `count` of them: s = sum_i w_i s_i, w ~ Dirichlet(1/2, ..., 1/2).

        Most of a mixture is of one or two prompts; `generator` is on the CPU.
        """
        w = torch.randn(count, len(prompts), generator=generator).square()  # normalised, they have this distribution
        w = (w / w.sum(1, keepdim=True)).to(self.cond.hidden)
        own = self.cond[list(prompts)]
        pooled = None if own.pooled is None else w.to(own.pooled) @ own.pooled
        mask = None if own.mask is None else own.mask.amax(0).expand(count, -1)
        return Conditioning(torch.einsum("kn,nld->kld", w, own.hidden), pooled, mask)


def make_table(backbone: Backbone, sets: Sequence[ConceptSet], **how: Any) -> PromptTable:
    """Encode the training phrases of concept sets; the arguments are those of `place_prompts`."""
    texts, prompts = place_prompts(sets, **how)
    return PromptTable(texts, backbone.encode(texts), prompts)


def place_prompts(
    sets: Sequence[ConceptSet],
    *,
    crce: bool,
    vocabulary: Sequence[str] = (),
    scenes: Sequence[str] = (),
    parted: bool = True,
) -> tuple[list[str], tuple[SetPrompts, ...]]:
    """The training phrases of concept sets, each once, and the sets as indices into them.

    A phrase that one set erases and another keeps is erased: what must go goes. A scene is kept as it is alone.

    Args:
        crce: with corefs and retains; without them only targets.
        vocabulary: everyday phrases to keep, for methods that bring their own; the retains where `crce` is off.
        scenes: what phrases are shown in; none shows them alone.
        parted: whether a target goes from `erase_from` alone; else `erase_from` is what the target becomes.
    """
    gone = {fold(text) for c in sets for text in (c.target, *(r.text for r in c.train_corefs if crce))}
    own = [(v, 1.0) for v in vocabulary if fold(v) not in gone]
    index: dict[str, int] = {"": NULL}

    def place(text: str, scene: str) -> int:
        shown = f"{scene}, {text}" if scene and text else scene or text
        return index.setdefault(shown, len(index))

    prompts: list[SetPrompts] = []
    for c in sets:
        corefs = [(r.text, r.certainty) for r in c.train_corefs if crce]
        kept = [(r.text, r.certainty) for r in c.train_retains if fold(r.text) not in gone] if crce else own
        for scene in scenes or ("",):
            alone = [("", 1.0)] if scene and crce else []
            prompts.append(
                SetPrompts(
                    null=place("", scene),
                    base=place(c.erase_from or c.anchor or "", scene),
                    target=place(c.target, scene),
                    prompt=place((c.erase_from if parted else None) or c.target, scene),
                    corefs=[(place(text, scene), weight) for text, weight in corefs],
                    retains=[(place(text, scene), weight) for text, weight in kept + alone],
                    everyday=[(place(text, scene), weight) for text, weight in own if crce],
                )
            )
    return list(index), tuple(prompts)


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


def everyday_words(backbone: Backbone, sets: Sequence[ConceptSet], count: int) -> list[str]:
    """Words of the model's own tokenizer, evenly from its commoner ones, less those of what the sets erase.

    A tokenizer lists its words by how common they were where it was learned, so that every model has them. Where it
    marks what is a word by itself, the others are pieces of words.
    """
    ranks = backbone.pipe.tokenizer.get_vocab()
    tokens = sorted(ranks, key=ranks.get)
    listed = (MARK.sub("", token) for token in [t for t in tokens if MARK.search(t)] or tokens)
    words = [w for w in dict.fromkeys(listed) if len(w) > 2 and w.isascii() and w.isalpha()]
    words = not_erased(words[: len(words) // 2], sets)
    return words[:: max(1, len(words) // count)][:count]


def not_erased(words: Sequence[str], sets: Sequence[ConceptSet]) -> list[str]:
    """Words without those of what the sets erase, and their plurals."""
    erased = [t for c in sets for t in (c.target, *(r.text for r in c.train_corefs))]
    gone = tuple({word for t in erased for word in fold(t).split() if len(word) > 2})
    return [w for w in words if not fold(w).startswith(gone)]
