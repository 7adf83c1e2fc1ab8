"""The cells of a grid: one erasure each, measured once, known by a hash of all that decides its numbers."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from crce.bench.grid import SIZES, Entry, Evaluation, Grid, Source
from crce.concepts import ConceptSet, dump_concepts
from crce.errors import ConfigError
from crce.training.config import SOLVED, ErasureConfig, load_config


RESULTS = 1  # to be raised with every change of crce after which the same cell has other numbers


@dataclass(frozen=True)
class Cell:
    """One erasure of the grid.

    Attributes:
        row: the row of the table that it belongs to, e.g. "esd+crce corefs=3".
        name: of the method's entry in the file.
        source: the model.
        concepts: what is erased; its training lists are cut where the grid says so.
        config: with which settings.
        axes: the value of every axis; None where it means nothing, as M and N without corefs and retains.
    """

    row: str
    name: str
    source: Source
    concepts: ConceptSet
    config: ErasureConfig
    axes: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The cell in a few words."""
        return f"{self.concepts.target}: {self.row}, seed {self.config.seed}"


def expand(grid: Grid, on_fault: Callable[[Entry, str], object] | None = None) -> Iterator[Cell]:
    """Every cell, in the order in which they are begun: those of one model and target come together.

    Args:
        grid: the benchmark.
        on_fault: is told of settings that don't fit one another, instead of an error.

    Raises:
        ConfigError: settings don't fit one another.
    """
    for source, concepts, entry in itertools.product(grid.models, grid.concepts, grid.methods):
        for crce, axes in _variants(grid, entry):
            try:
                config = _config(entry, crce, axes, source, concepts)
            except ConfigError as error:
                if on_fault is None:
                    raise
                on_fault(entry, str(error).partition(": ")[2])
                continue
            cut, config = _cut(concepts, config, entry, axes)
            row = _row(entry.name, crce, axes, source if len(grid.models) > 1 else None)
            for seed in grid.seeds if len(grid.seeds) == 1 or _random(entry.method) else grid.seeds[:1]:
                yield Cell(row, entry.name, source, cut, config.model_copy(update={"seed": seed}), axes)


def content(
    cell: Cell, revision: str | None, place: Mapping[str, str], judge: Mapping[str, Any] | None, how: Evaluation
) -> dict[str, Any]:
    """All that decides the numbers of a cell.

    Args:
        cell: the cell.
        revision: of its model.
        place: `device` and `dtype`.
        judge: its name, version and hash; None where nobody judges.
        how: the settings of the evaluation.
    """
    return {
        "results": RESULTS,
        "model": cell.source.model,
        "revision": revision,
        **place,
        "concepts": dump_concepts(cell.concepts),
        "config": cell.config.model_dump(mode="json"),
        "judge": judge,
        "evaluation": asdict(how),
    }


def key_of(told: Mapping[str, Any]) -> str:
    """The hash of a cell's content: 16 hexadecimal digits, the same on every machine."""
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _variants(grid: Grid, entry: Entry) -> Iterator[tuple[bool, dict[str, Any]]]:
    """`crce` and the axes. What means nothing is None: M and N without corefs and retains, and what the entry sets."""
    seen: list[tuple[bool, dict[str, Any]]] = []
    for crce, values in itertools.product(entry.crce, itertools.product(*grid.axes.values())):
        void = {*entry.settings, *(() if crce else SIZES)}
        axes = {n: None if n in void else value for n, value in zip(grid.axes, values, strict=True)}
        if (crce, axes) not in seen:
            seen.append((crce, axes))
            yield crce, axes


def _config(entry: Entry, crce: bool, axes: Mapping[str, Any], source: Source, concepts: ConceptSet) -> ErasureConfig:
    varied = {name: value for name, value in axes.items() if name not in SIZES and name not in entry.settings}
    settings = {"method": entry.method, "crce": crce, **entry.settings, **varied}
    return load_config(entry.recipe, settings, model=source.model, kind=concepts.kind)


def _cut(
    concepts: ConceptSet, config: ErasureConfig, entry: Entry, axes: Mapping[str, Any]
) -> tuple[ConceptSet, ErasureConfig]:
    """The first M training corefs and N training retains, all of them in every step unless the file says otherwise."""
    for name, per_step in SIZES.items():
        size = axes.get(name)
        if size is None:
            continue
        lists = getattr(concepts, f"train_{name}")[:size]
        both: dict[str, Any] = {name: (*lists, *getattr(concepts, f"held_out_{name}"))}
        concepts = replace(concepts, **both)
        if per_step not in entry.settings and per_step not in axes:
            config = config.model_copy(update={per_step: len(lists)})
    return concepts, config


def _row(name: str, crce: bool, axes: Mapping[str, Any], source: Source | None) -> str:
    parts = [f"{name}+crce" if crce else name]
    parts += [f"{axis}={value}" for axis, value in axes.items() if value is not None]
    if source is not None:
        parts.append(f"on {source.model}" + (f"@{source.revision}" if source.revision else ""))
    return " ".join(parts)


def _random(method: str) -> bool:
    """Whether a seed has a part in what a method finds."""
    if method not in SOLVED:
        return True
    from crce.methods import CLOSED_FORM

    return CLOSED_FORM[method].random
