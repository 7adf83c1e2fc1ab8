"""What a cell erases, and the axes that change its corefs and retains.

Held-out phrases stay as they are whatever the axes say, since they are what is measured.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import common_kind, fold
from crce.errors import ConceptError


SIZES = {"corefs": "corefs_per_step", "retains": "retains_per_step"}  # axes that cut the lists, and what they set
LISTS = "lists"  # axis: whose training phrases
CERTAINTY = "certainty"  # axis: how they are weighed
OWN = "own"  # a set's own lists, or certainties
CERTAINTIES = (OWN, "uniform", "random")


@dataclass(frozen=True)
class Task:
    """What a cell erases.

    Attributes:
        name: of the target, or what the file calls several.
        sets: one for each target.
        in_turn: one target after the other, each from the model that the one before left; else all at once.
    """

    name: str
    sets: tuple[ConceptSet, ...]
    in_turn: bool = False

    @property
    def kind(self) -> str | None:
        """Of its targets; None where they are of several kinds."""
        return common_kind(self.sets)


def vary(task: Task, axes: Mapping[str, Any], lists: Mapping[str, Sequence[ConceptSet]], seed: int) -> Task:
    """The task with its training phrases as the axes have them.

    Args:
        task: as the file tells it.
        axes: `lists` names whose training phrases; `corefs` and `retains` cut them to the first M and N; `certainty`
            "uniform" gives every phrase of a list their mean, and "random" shuffles their certainties, so that a list
            pulls as strongly as before.
        lists: the concept sets behind each name of the axis `lists`.
        seed: of the shuffle.

    Raises:
        ConceptError: the named lists have none for a target.
    """
    return replace(task, sets=tuple(_vary(concepts, axes, lists, seed) for concepts in task.sets))


def _vary(
    concepts: ConceptSet, axes: Mapping[str, Any], lists: Mapping[str, Sequence[ConceptSet]], seed: int
) -> ConceptSet:
    source = axes.get(LISTS)
    if source not in (None, OWN):
        concepts = _with_lists(concepts, source, lists[source])
    made: dict[str, tuple[Related, ...]] = {}
    for side in SIZES:
        phrases: Sequence[Related] = getattr(concepts, f"train_{side}")[: axes.get(side)]
        made[side] = (*_weigh(phrases, axes.get(CERTAINTY), seed), *getattr(concepts, f"held_out_{side}"))
    return replace(concepts, corefs=made["corefs"], retains=made["retains"])


def _with_lists(concepts: ConceptSet, name: str, sets: Sequence[ConceptSet]) -> ConceptSet:
    """The set with the training phrases of another of the same target, less those that it is measured by."""
    other = next((c for c in sets if fold(c.target) == fold(concepts.target)), None)
    if other is None:
        raise ConceptError(f"lists {name!r} has no concept set of '{concepts.target}'.")
    held_out = {fold(r.text) for r in (*concepts.held_out_corefs, *concepts.held_out_retains)}
    corefs = [r for r in other.train_corefs if fold(r.text) not in held_out]
    retains = [r for r in other.train_retains if fold(r.text) not in held_out]
    return replace(
        concepts, corefs=(*corefs, *concepts.held_out_corefs), retains=(*retains, *concepts.held_out_retains)
    )


def _weigh(phrases: Sequence[Related], how: str | None, seed: int) -> list[Related]:
    certainties = [phrase.certainty for phrase in phrases]
    if how == "uniform" and certainties:
        certainties = [fmean(certainties)] * len(certainties)
    elif how == "random":
        random.Random(seed).shuffle(certainties)
    return [replace(phrase, certainty=c) for phrase, c in zip(phrases, certainties, strict=True)]
