"""Which phrases a method keeps by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from crce.concepts import atlas
from crce.concepts.concept_set import fold


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet


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
