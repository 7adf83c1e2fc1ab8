"""The content of a benchmark file: tasks, methods, models, seeds, and the axes that vary corefs and retains."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from crce.bounds import FINITE, Count, GuidanceStrength, NoiseLevels, Seed, TrainingSteps
from crce.concepts import ConceptSet
from crce.concepts.concept_set import common_kind, fold
from crce.errors import ConceptError


SIZES = {"corefs": "corefs_per_step", "retains": "retains_per_step"}  # axes that cut the lists, the settings implied
LISTS = "lists"  # axis: the source of the training phrases
CERTAINTY = "certainty"  # axis: their weights
OWN = "own"  # a set's own lists, or certainties
CERTAINTIES = (OWN, "uniform", "random")
PHRASES = (*SIZES, LISTS, CERTAINTY)  # axes of corefs and retains, which do not apply without them

_STRICT = ConfigDict(strict=True, **FINITE)


@dataclass(frozen=True)
class Task:
    """The targets of a cell, with a concept set each."""

    name: str  # the target, or the name of several
    sets: tuple[ConceptSet, ...]
    in_turn: bool = False  # one target after the other, each from the model that the last erasure left

    @property
    def kind(self) -> str | None:
        """The kind of the targets; None if they differ."""
        return common_kind(self.sets)


@dataclass(frozen=True)
class MethodEntry:
    """A method with its settings."""

    name: str  # in the table
    method: str
    recipe: str | None = None  # a bundled one or a file; None takes the method's own
    settings: Mapping[str, Any] = field(default_factory=dict)  # that differ from the recipe
    crce: tuple[bool, ...] = (True,)
    line: int | None = None  # in the file


@checked_dataclass(frozen=True, config=ConfigDict(coerce_numbers_to_str=True))
class ModelSource:
    """A model, as `crce.backbones.load_backbone` takes it."""

    model: str
    revision: str | None = None
    dtype: str = "auto"


@checked_dataclass(frozen=True, config=_STRICT)
class GridEvaluation:
    """What a benchmark file says under `evaluate`: arguments of `crce.evaluate.evaluate`."""

    images_per_prompt: Count = 8
    seed: Seed = 1000
    steps: NoiseLevels | None = 20  # None: the model's own, with its solver
    guidance: GuidanceStrength | None = 4.0  # None: as the model has it
    phrases_per_group: Count = 10
    judge: str = "auto"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    quality: bool = False


@checked_dataclass(frozen=True, config=_STRICT)
class AttackSettings:
    """An attack on every finished cell, with arguments of `crce.attacks.attack`."""

    attack: str
    budget: TrainingSteps | None = None
    phrases: Count = 3
    images_per_prompt: Count = 8
    images_per_try: Count = 4
    seed: Seed = 0


@dataclass(frozen=True)
class BenchmarkGrid:
    """A benchmark file.

    `axes` are further settings that vary, each with its values. `corefs` and `retains` are M and N: how many training
    phrases of a set a method is given; for `lists` and `certainty` see `vary`.
    """

    name: str  # of the file, without its suffix
    tasks: tuple[Task, ...]
    methods: tuple[MethodEntry, ...]  # in the order of the table
    models: tuple[ModelSource, ...] = (ModelSource("demo"),)
    seeds: tuple[int, ...] = (0,)  # of the erasures; a method without random choices uses the first alone
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    lists: Mapping[str, tuple[ConceptSet, ...]] = field(default_factory=dict)  # that the axis `lists` names
    evaluation: Mapping[str, Any] | None = field(default_factory=lambda: asdict(GridEvaluation()))  # or none at all
    attacks: tuple[AttackSettings, ...] = ()  # on every finished cell
    compare: tuple[tuple[str, str], ...] = ()  # rows of the table; the second is measured against the first


def vary(task: Task, axes: Mapping[str, Any], lists: Mapping[str, Sequence[ConceptSet]], seed: int) -> Task:
    """The task with the training phrases that the axes prescribe; held-out phrases are what is measured, and stay.

    `lists` names the source of the training phrases, of which those that the task's own set holds out are left out;
    `corefs` and `retains` cut them to the first M and N; `certainty` "uniform" gives every phrase the mean certainty
    of its list, and "random" shuffles the certainties within each list, so that its total weight is unchanged.
    """
    name, how, sets = axes.get(LISTS) or OWN, axes.get(CERTAINTY), []
    for concepts in task.sets:
        sources = [concepts] if name == OWN else lists[name]
        named = next((c for c in sources if fold(c.target) == fold(concepts.target)), None)
        if named is None:
            raise ConceptError(f"lists {name!r} has no concept set for '{concepts.target}'.")
        held_out = {fold(r.text) for r in (*concepts.held_out_corefs, *concepts.held_out_retains)}
        varied: dict[str, Any] = {}
        for side in SIZES:
            kept = [r for r in getattr(named, f"train_{side}") if fold(r.text) not in held_out][: axes.get(side)]
            certainties = [r.certainty for r in kept]
            if how == "uniform" and kept:
                certainties = [fmean(certainties)] * len(kept)
            elif how == "random":
                random.Random(seed).shuffle(certainties)
            weighed = (replace(r, certainty=c) for r, c in zip(kept, certainties, strict=True))
            varied[side] = (*weighed, *getattr(concepts, f"held_out_{side}"))
        sets.append(replace(concepts, **varied))
    return replace(task, sets=tuple(sets))
