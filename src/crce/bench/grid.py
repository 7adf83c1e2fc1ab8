"""The content of a benchmark file: tasks, methods, models, seeds and axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from crce.bench.tasks import CERTAINTY, LISTS, SIZES, Task
from crce.concepts import ConceptSet
from crce.config import all_settings


OWN = ("method", "crce", "seed")  # settings with a place of their own in the file
PHRASES = (*SIZES, LISTS, CERTAINTY)  # axes of corefs and retains, which do not apply without them

_STRICT = ConfigDict(strict=True)
_Count = Annotated[int, Field(ge=1)]
_Seed = Annotated[int, Field(ge=0)]


def setting_names() -> list[str]:
    """The settings that an entry or an axis may have."""
    return [name for name in all_settings() if name not in OWN]


@dataclass(frozen=True)
class MethodEntry:
    """A method with its settings.

    Attributes:
        name: its name in the table.
        method: a name in `crce.methods.METHODS`.
        recipe: a bundled recipe or a file; None takes the method's own.
        settings: settings that differ from the recipe.
        crce: the values of `crce` to measure.
        line: its line in the file.
    """

    name: str
    method: str
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    crce: tuple[bool, ...] = (True,)
    line: int | None = None


@checked_dataclass(frozen=True, config=ConfigDict(coerce_numbers_to_str=True))
class ModelSource:
    """A model, as `crce.backbones.load_backbone` takes it."""

    model: str
    revision: str | None = None
    dtype: str = "auto"


@checked_dataclass(frozen=True, config=_STRICT)
class GridEvaluation:
    """Arguments of `crce.evaluate.evaluate`."""

    images_per_prompt: _Count = 8
    seed: _Seed = 1000
    steps: _Count = 20
    guidance: Annotated[float, Field(ge=0)] = 4.0
    phrases_per_group: _Count = 10
    judge: str = "auto"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    quality: bool = False


@checked_dataclass(frozen=True, config=_STRICT)
class AttackSettings:
    """An attack on every finished cell, with arguments of `crce.attacks.attack`.

    Attributes:
        attack: a name in `crce.attacks.ATTACKS`.
        budget: steps for each prompt; None takes the attack's own.
        phrases: most prompts for each target.
        images_per_prompt: images that measure a prompt.
        images_per_try: images that a search looks at.
        seed: seed of the search.
    """

    attack: str
    budget: _Count | None = None
    phrases: _Count = 3
    images_per_prompt: _Count = 8
    images_per_try: _Count = 4
    seed: _Seed = 0


@dataclass(frozen=True)
class BenchmarkGrid:
    """A benchmark file.

    Attributes:
        name: name of the file, without its suffix.
        tasks: one target or several each.
        methods: in the order of the table.
        models: base models.
        seeds: seeds of the erasures; a method without random choices uses the first alone.
        axes: further settings that vary, each with its values. `corefs` and `retains` are M and N: how many training
            phrases of a set a method is given; for `lists` and `certainty` see `crce.bench.tasks`.
        lists: the concept sets that the axis `lists` names.
        evaluation: how the runs are measured.
        attacks: attacks on every finished cell.
        compare: pairs of rows of the table; the second is measured against the first.
    """

    name: str
    tasks: tuple[Task, ...]
    methods: tuple[MethodEntry, ...]
    models: tuple[ModelSource, ...] = (ModelSource("demo"),)
    seeds: tuple[int, ...] = (0,)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    lists: Mapping[str, tuple[ConceptSet, ...]] = field(default_factory=dict)
    evaluation: GridEvaluation = field(default_factory=GridEvaluation)
    attacks: tuple[AttackSettings, ...] = ()
    compare: tuple[tuple[str, str], ...] = ()
