"""Which corefs and retains a step takes, and which phrases a method keeps by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from crce.concepts import atlas
from crce.concepts.concept_set import fold


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.methods.objective import Row

MEMORY = 0.8  # share of the old value when a prompt's damage is noted again


class Damage:
    """How far each prompt's loss stands above its side's in the steps that trained it: a running mean of logarithms.

    Losses of one step are compared with each other alone, since their size depends on the noise level.

    Attributes:
        values: by prompt index; a prompt that was never trained has none and comes first.
    """

    def __init__(self) -> None:
        self.values: dict[int, float] = {}

    def note(self, rows: Sequence[Row], losses: Sequence[float]) -> None:
        """Remember one step's losses."""
        for role in ("coref", "retain"):
            logs = {
                row.prompt: math.log(max(loss, 1e-12))
                for row, loss in zip(rows, losses, strict=True)
                if row.role == role
            }
            for prompt, value in logs.items():
                above = value - sum(logs.values()) / len(logs)
                old = self.values.get(prompt)
                self.values[prompt] = above if old is None else MEMORY * old + (1 - MEMORY) * above

    def worst_first(self, related: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """The order in which they should be trained; what is equal stays in its order."""
        return sorted(related, key=lambda item: -self.values.get(item[0], math.inf))


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
