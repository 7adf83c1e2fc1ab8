"""What a benchmark compares: tasks, methods, models, seeds and axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crce.bench.tasks import CERTAINTY, LISTS, SIZES, Task
from crce.concepts import ConceptSet
from crce.config import ErasureConfig


OWN = ("method", "crce", "seed")  # settings that have a place of their own in the file
PHRASES = (*SIZES, LISTS, CERTAINTY)  # axes of corefs and retains, which mean nothing to a method without them
AXES = (*PHRASES, *(name for name in ErasureConfig.model_fields if name not in OWN))


@dataclass(frozen=True)
class Entry:
    """A method with its settings.

    Attributes:
        name: how the table calls it.
        method: a name of `ErasureConfig.method`.
        recipe: a bundled recipe or a file; None takes the method's own.
        settings: what differs from the recipe.
        crce: the values of `crce` that are measured.
        line: where it stands in the file.
    """

    name: str
    method: str
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    crce: tuple[bool, ...] = (True,)
    line: int | None = None


@dataclass(frozen=True)
class Source:
    """A model, as `crce.backbones.load_backbone` takes it."""

    model: str = "demo"
    revision: str | None = None
    dtype: str = "auto"


@dataclass(frozen=True)
class Evaluation:
    """How the runs are measured: settings of `crce.evaluate.evaluate`."""

    images_per_prompt: int = 8
    seed: int = 1000
    steps: int = 20
    guidance: float = 4.0
    phrases_per_group: int = 10
    judge: str = "auto"
    threshold: float | None = None
    quality: bool = False


@dataclass(frozen=True)
class AttackEntry:
    """An attack on every finished cell: settings of `crce.attacks.attack`.

    Attributes:
        attack: a name in `crce.attacks.ATTACKS`.
        budget: steps for each prompt; None takes the attack's own.
        phrases: most prompts for each target.
        images_per_prompt: pictures that measure a prompt.
        images_per_try: pictures that a search looks at.
        seed: of the search.
    """

    attack: str
    budget: int | None = None
    phrases: int = 3
    images_per_prompt: int = 8
    images_per_try: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Grid:
    """A benchmark as its file tells it.

    Attributes:
        name: of the file, without its suffix.
        tasks: what is erased, a target or several.
        methods: in the order of the table.
        models: what is erased from.
        seeds: of the erasures; a method without random choices has the first alone.
        axes: further settings that vary, each with its values. `corefs` and `retains` are M and N: how many training
            phrases of a set a method is given; `lists` and `certainty` see `crce.bench.tasks`.
        lists: the concept sets that the axis `lists` names.
        evaluation: how the runs are measured.
        attacks: what tries to bring the concepts back.
        compare: pairs of rows of the table, the first being the one that the second is measured against.
    """

    name: str
    tasks: tuple[Task, ...]
    methods: tuple[Entry, ...]
    models: tuple[Source, ...] = (Source(),)
    seeds: tuple[int, ...] = (0,)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    lists: Mapping[str, tuple[ConceptSet, ...]] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    attacks: tuple[AttackEntry, ...] = ()
    compare: tuple[tuple[str, str], ...] = ()
