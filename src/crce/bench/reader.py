"""Reads the YAML file of a benchmark; all of its faults are reported together, each with its line.

concepts: [cat, my-sets.yaml, my-sets.yaml#dog, {kind: style}, {together: [cat, dog]}, {in_turn: [cat, dog]}]
methods:
  - uce
  - {method: esd, steps: 60, name: esd-short}
crce: [false, true]
seeds: [0, 1, 2]
axes: {corefs: [0, 3, 5], retains: [0, 3, 5]}
evaluate: {images_per_prompt: 4}
attacks: [paraphrase, {attack: ring-a-bell, budget: 50}]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from crce.attacks import ATTACKS
from crce.bench.cells import expand
from crce.bench.grid import (
    PHRASES,
    AttackSettings,
    BenchmarkGrid,
    GridEvaluation,
    MethodEntry,
    ModelSource,
    setting_names,
)
from crce.bench.tasks import CERTAINTIES, CERTAINTY, LISTS, SIZES, Task
from crce.bench.tasks import OWN as OWN_LISTS
from crce.bench.yaml_reader import ItemError, ObjectReader, items_of, unknown_value
from crce.concepts import KINDS, ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold
from crce.concepts.faults import Fault, did_you_mean, error_from
from crce.concepts.nodes import line_of, read_text, value_of, yaml_node
from crce.config import recipe_names
from crce.errors import ConceptError, ConfigError
from crce.methods.table import METHODS


_KEYS = ("concepts", "methods", "crce", "models", "seeds", "axes", "evaluate", "attacks", "compare")
_ENTRY_KEYS = ("method", "name", "recipe", "crce")  # and settings
_SEVERAL = ("together", "in_turn")
_FILES = (".yaml", ".yml", ".json")


def read_grid(path: str | Path) -> BenchmarkGrid:
    """Read a benchmark file and check all of its cells.

    Raises:
        ConfigError: the file can't be read, or has faults; all of them are listed.
    """
    path = Path(path)
    try:
        return _GridReader(path).grid(yaml_node(read_text(path, "benchmark file"), path.name))
    except ConceptError as error:
        raise ConfigError(str(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error


class _GridReader(ObjectReader):
    """Turns the nodes of a file into a grid; files that it names are looked for beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name)
        self._path = path

    def grid(self, root: yaml.Node | None) -> BenchmarkGrid:
        """The grid.

        Raises:
            ConceptError: lists every fault with its line.
        """
        parts = self.mapping(root, _KEYS, "a benchmark") if root is not None else {}
        for key, example in (("concepts", "cat"), ("methods", "esd")):
            if key not in parts:
                self.fault(root, f"{key} is missing. Write for example: {key}: [{example}]")
            elif not items_of(parts[key]):
                self.fault(parts[key], f"{key} is empty. Name at least one, e.g. {example}.")
        crce = self.each(parts.get("crce"), _crce, (True,), "crce")
        evaluation = self.object(parts["evaluate"], GridEvaluation, "evaluate") if "evaluate" in parts else None
        grid = BenchmarkGrid(
            name=self._path.stem,
            tasks=(tasks := self._tasks(parts.get("concepts"))),
            methods=self._methods(parts.get("methods"), crce),
            models=self.each(parts.get("models"), self._model, (ModelSource("demo"),), "models"),
            seeds=self.each(parts.get("seeds"), partial(_count, name="seed"), (0,), "seeds"),
            axes=(axes := self._axes(parts.get("axes"))),
            lists=self._lists(axes, parts.get("axes"), tasks),
            evaluation=evaluation or GridEvaluation(),
            attacks=self._attacks(parts.get("attacks")),
            compare=self.each(parts.get("compare"), self._pair, (), "compare"),
        )
        if not self.faults:
            self._check(grid, parts.get("compare"))
        if self.faults:
            raise error_from(self.file, self.faults)
        return grid

    def _check(self, grid: BenchmarkGrid, compare: yaml.Node | None) -> None:
        """Faults that only the cells show: contradictory settings, and rows to compare that do not exist."""
        faults: dict[str, int | None] = {}
        rows = list(dict.fromkeys(c.row for c in expand(grid, lambda e, text: faults.setdefault(text, e.line))))
        self.faults += [Fault(self.file, text, line=line) for text, line in faults.items()]
        for pair, node in zip(grid.compare, items_of(compare), strict=True):
            for name in pair if not faults else ():
                if name not in rows:
                    hint = did_you_mean(name, rows) or f" Rows are: {', '.join(rows)}."
                    self.fault(node, f"the table has no row {name!r}.{hint}")

    # ---- parts of the file ----------------------------------------------------------------------------------------

    def _tasks(self, node: yaml.Node | None) -> tuple[Task, ...]:
        found: dict[str, Task] = {}
        for item in items_of(node):
            try:
                several = isinstance(item, yaml.MappingNode) and any(value_of(k) in _SEVERAL for k, _ in item.value)
                tasks = [self._several(item)] if several else [Task(c.target, (c,)) for c in self._sets(item)]
            except ConceptError as error:
                self.fault(item, str(error))
                continue
            for task in tasks:
                if fold(task.name) in found:
                    self.fault(item, f"'{task.name}' is given twice. Give one concept set of it.")
                found.setdefault(fold(task.name), task)
        return tuple(found.values())

    def _several(self, node: yaml.Node) -> Task:
        """A task with several targets."""
        parts = self.mapping(node, (*_SEVERAL, "name"), "an entry of concepts")
        how = [key for key in _SEVERAL if key in parts]
        if len(how) > 1:
            self.fault(node, "targets are erased together or in_turn. Keep one of the two.")
        sets = [concepts for item in items_of(parts[how[0]]) for concepts in self._sets(item)]
        targets = [fold(concepts.target) for concepts in sets]
        if len(set(targets)) < max(2, len(targets)):
            self.fault(node, f"{how[0]} takes two targets or more, each of them once.")
        name = str(value_of(parts["name"])) if "name" in parts else f"{len(sets)} {how[0].replace('_', ' ')}"
        return Task(name, tuple(sets), how[0] == "in_turn")

    def _sets(self, node: yaml.Node) -> Sequence[ConceptSet]:
        if isinstance(node, yaml.MappingNode):
            kind = self.mapping(node, ("kind",), "an entry of concepts").get("kind")
            name = value_of(kind) if kind else None
            if name not in KINDS:
                self.fault(node, unknown_value("kind", name, KINDS))
            return [c for c in atlas().values() if c.kind == name]
        name = str(value_of(node))
        if not name.partition("#")[0].lower().endswith(_FILES):
            return [find_concepts(name)]
        path = self._path.parent / name
        return [find_concepts(str(path))] if "#" in name else read_sets(path)

    def _methods(self, node: yaml.Node | None, crce: tuple[bool, ...]) -> tuple[MethodEntry, ...]:
        entries: dict[str, MethodEntry] = {}
        settings = setting_names()
        for item in items_of(node):
            is_mapping = isinstance(item, yaml.MappingNode)
            parts = self.mapping(item, (*_ENTRY_KEYS, *settings), "a method") if is_mapping else {"method": item}
            given = {key: value_of(part) for key, part in parts.items()}
            method, recipe = given.pop("method", None), given.pop("recipe", None)
            name = str(given.pop("name", method))
            given.pop("crce", None)
            if method not in (known := tuple(METHODS)):
                self.fault(item, unknown_value("method", method, known))
                continue
            if isinstance(recipe, str) and recipe not in recipe_names():
                file = self._path.parent / recipe
                if not file.is_file():
                    hint = did_you_mean(recipe, recipe_names())
                    listed = ", ".join(recipe_names())
                    self.fault(item, f"there is no recipe {recipe!r}. Name a YAML file or one of: {listed}.{hint}")
                    continue
                recipe = str(file)
            variants = self.each(parts.get("crce"), _crce, crce, "crce")
            entry = MethodEntry(name, method, recipe, given, variants, line_of(item))
            if entries.setdefault(name, entry) is not entry:
                self.fault(item, f"two methods are called {name!r}. Give one of them another name: ...")
        return tuple(entries.values())

    def _model(self, node: yaml.Node) -> ModelSource | None:
        return self.object(node, ModelSource, "a model")

    def _axes(self, node: yaml.Node | None) -> dict[str, tuple[Any, ...]]:
        axes: dict[str, tuple[Any, ...]] = {}
        parts = self.mapping(node, (*PHRASES, *setting_names()), "axes") if node is not None else {}
        for name, part in parts.items():
            axes[name] = self.each(part, partial(self._axis_value, name=name), (), name)
            if not items_of(part):
                self.fault(part, f"axis {name} is empty. Give its values in a list.")
        return axes

    def _axis_value(self, node: yaml.Node, name: str) -> Any:
        if name in SIZES:
            return _count(node, name)
        value = value_of(node)
        if name == CERTAINTY and value not in CERTAINTIES:
            raise ItemError(unknown_value(name, value, CERTAINTIES))
        if name == LISTS and not (isinstance(value, str) and (value == OWN_LISTS or value.lower().endswith(_FILES))):
            raise ItemError(f"lists is {value!r}. Use {OWN_LISTS}, or a file with a concept set for every target.")
        return value

    def _lists(
        self, axes: dict[str, tuple[Any, ...]], node: yaml.Node | None, tasks: Sequence[Task]
    ) -> dict[str, tuple[ConceptSet, ...]]:
        """The concept sets in the files of the axis `lists`; each file must have one for every target."""
        found: dict[str, tuple[ConceptSet, ...]] = {}
        for name in axes.get(LISTS, ()):
            if name == OWN_LISTS:
                continue
            try:
                found[name] = tuple(read_sets(self._path.parent / name))
            except ConceptError as error:
                self.fault(node, str(error))
                continue
            there = {fold(concepts.target) for concepts in found[name]}
            if missing := [c.target for task in tasks for c in task.sets if fold(c.target) not in there]:
                self.fault(node, f"{name} has no concept set for: {', '.join(dict.fromkeys(missing))}.")
        return found

    def _attacks(self, node: yaml.Node | None) -> tuple[AttackSettings, ...]:
        entries = self.each(node, self._attack, (), "attacks")
        names = [entry.attack for entry in entries]
        for name in {name for name in names if names.count(name) > 1}:
            self.fault(node, f"attack {name!r} is listed twice. Keep one of them.")
        return entries

    def _attack(self, node: yaml.Node) -> AttackSettings | None:
        entry = self.object(node, AttackSettings, "an attack")
        if entry is not None and entry.attack not in ATTACKS:
            raise ItemError(unknown_value("attack", entry.attack, tuple(ATTACKS)))
        return entry

    def _pair(self, node: yaml.Node) -> tuple[str, str]:
        names = [str(value_of(item)) for item in items_of(node)]
        if len(names) != 2:
            raise ItemError(f"compare takes pairs of rows, such as [esd, esd+crce], and this is {value_of(node)!r}.")
        return (names[0], names[1])


def _count(node: yaml.Node, name: str) -> int:
    value = value_of(node)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ItemError(f"{name} is {value!r}. Use a whole number, 0 or more.")
    return value


def _crce(node: yaml.Node) -> bool:
    value = value_of(node)
    if not isinstance(value, bool):
        raise ItemError(f"crce is {value!r}. Use true, false, or [false, true] for both.")
    return value
