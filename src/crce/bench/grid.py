"""What a benchmark compares: concept sets, methods, models, seeds and axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crce.concepts import ConceptSet
from crce.training.config import ErasureConfig


SIZES = {"corefs": "corefs_per_step", "retains": "retains_per_step"}  # axes that cut a set's lists, and what they set
OWN = ("method", "crce", "seed")  # settings that have a place of their own in the file
AXES = (*SIZES, *(name for name in ErasureConfig.model_fields if name not in OWN))


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


@dataclass(frozen=True)
class Grid:
    """A benchmark as its file tells it.

    Attributes:
        name: of the file, without its suffix.
        concepts: what is erased, one target at a time.
        methods: in the order of the table.
        models: what is erased from.
        seeds: of the erasures; a method without random choices has the first alone.
        axes: further settings that vary, each with its values. `corefs` and `retains` are M and N: how many training
            phrases of a set a method is given.
        evaluation: how the runs are measured.
        compare: pairs of rows of the table, the first being the one that the second is measured against.
    """

    name: str
    concepts: tuple[ConceptSet, ...]
    methods: tuple[Entry, ...]
    models: tuple[Source, ...] = (Source(),)
    seeds: tuple[int, ...] = (0,)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    compare: tuple[tuple[str, str], ...] = ()
