"""The targets of a cell, and the axes that change their corefs and retains.

Held-out phrases never change, since they are what is measured.
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


SIZES = {
    "corefs": "corefs_per_step",
    "retains": "retains_per_step",
}  # axes that cut the lists, and the settings they imply
LISTS = "lists"  # axis: the source of the training phrases
CERTAINTY = "certainty"  # axis: their weights
OWN = "own"  # a set's own lists, or certainties
CERTAINTIES = (OWN, "uniform", "random")


@dataclass(frozen=True)
class Task:
    """The targets of a cell.

    Attributes:
        name: the target, or the name of several.
        sets: one concept set for each target.
        in_turn: erase one target after the other, each from the model that the last erasure left; else all at once.
    """

    name: str
    sets: tuple[ConceptSet, ...]
    in_turn: bool = False

    @property
    def kind(self) -> str | None:
        """The kind of the targets; None if they differ."""
        return common_kind(self.sets)


def vary(task: Task, axes: Mapping[str, Any], lists: Mapping[str, Sequence[ConceptSet]], seed: int) -> Task:
    """The task with the training phrases that the axes prescribe.

    Args:
        task: the task as in the file.
        axes: `lists` names the source of the training phrases; `corefs` and `retains` cut them to the first M and N;
            `certainty` "uniform" gives every phrase the mean certainty of its list, and "random" shuffles the
            certainties within each list, so that its total weight is unchanged.
        lists: the concept sets for each name of the axis `lists`.
        seed: seed of the shuffle.

    Raises:
        ConceptError: the named lists have none for a target.
    """
    source, sets = axes.get(LISTS), []
    for concepts in task.sets:
        if source not in (None, OWN):
            concepts = _with_lists(concepts, source, lists[source])
        varied: dict[str, Any] = {}
        for side in SIZES:
            phrases: Sequence[Related] = getattr(concepts, f"train_{side}")[: axes.get(side)]
            varied[side] = (*_weigh(phrases, axes.get(CERTAINTY), seed), *getattr(concepts, f"held_out_{side}"))
        sets.append(replace(concepts, **varied))
    return replace(task, sets=tuple(sets))


def _with_lists(concepts: ConceptSet, name: str, sets: Sequence[ConceptSet]) -> ConceptSet:
    """The set with the training phrases of another set of the same target, except phrases that it holds out."""
    other = next((c for c in sets if fold(c.target) == fold(concepts.target)), None)
    if other is None:
        raise ConceptError(f"lists {name!r} has no concept set for '{concepts.target}'.")
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
