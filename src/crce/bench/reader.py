"""Reads the YAML file of a benchmark, see docs/bench.md; its faults are reported together, each with its line."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from crce.attacks import ATTACKS
from crce.bench.cells import expand
from crce.bench.grid import (
    CERTAINTIES,
    LISTS,
    OWN,
    PHRASES,
    AttackSettings,
    BenchmarkGrid,
    GridEvaluation,
    MethodEntry,
    ModelSource,
    Task,
)
from crce.bounds import LARGEST_SEED, fault_text, shown
from crce.concepts import KINDS, ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold, text_fault
from crce.concepts.faults import Fault, did_you_mean, error_from
from crce.concepts.nodes import NodeReader, describe, items_of, line_of, read_text, value_of, yaml_node
from crce.config import all_settings, recipe_names
from crce.errors import ConceptError, ConfigError
from crce.methods.table import METHODS


T = TypeVar("T")
_KEYS = ("concepts", "methods", "crce", "models", "seeds", "axes", "evaluate", "attacks", "compare")
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
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error


class _GridReader(NodeReader):
    """Turns the nodes of a file into a grid; files that it names are looked for beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name)
        self._path = path
        self._settings = [name for name in all_settings() if name not in ("method", "crce", "seed")]

    def grid(self, root: yaml.Node | None) -> BenchmarkGrid:
        """The grid; a ConceptError lists every fault with its line."""
        parts = self.mapping(root, _KEYS, "a benchmark") if root is not None else {}
        for key, example in (("concepts", "cat"), ("methods", "esd")):
            if key not in parts:
                self.fault(root, f"{key} is missing. Write for example: {key}: [{example}]")
            elif not items_of(parts[key]):
                self.fault(parts[key], f"{key} is empty. Name at least one, e.g. {example}.")
        crce = self.each(parts.get("crce"), partial(_checked, name="crce"), (True,), "crce")
        model = partial(self.object, kind=ModelSource, what="a model")
        evaluation = self.object(parts["evaluate"], GridEvaluation, "evaluate") if "evaluate" in parts else None
        grid = BenchmarkGrid(
            name=self._path.stem,
            tasks=(tasks := self._tasks(parts.get("concepts"))),
            methods=self._methods(parts.get("methods"), crce),
            models=self.each(parts.get("models"), model, (ModelSource("demo"),), "models"),
            seeds=self.each(parts.get("seeds"), partial(_checked, name="seed"), (0,), "seeds"),
            axes=(axes := self._axes(parts.get("axes"))),
            lists=self._lists(axes, parts.get("axes"), tasks),
            evaluation=asdict(evaluation or GridEvaluation()),
            attacks=self._attacks(parts.get("attacks")),
            compare=self.each(parts.get("compare"), _pair, (), "compare"),
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
            for name in () if faults else (name for name in pair if name not in rows):
                hint = did_you_mean(name, rows) or f" Rows are: {', '.join(rows)}."
                self.fault(node, f"the table has no row {name!r}.{hint}")

    def _tasks(self, node: yaml.Node | None) -> tuple[Task, ...]:
        found: dict[str, Task] = {}
        for item in items_of(node):
            several = isinstance(item, yaml.MappingNode) and any(value_of(k) in _SEVERAL for k, _ in item.value)
            try:
                tasks = [self._several(item)] if several else [Task(c.target, (c,)) for c in self._sets(item)]
            except ConceptError as error:
                self.fault(item, str(error))
                continue
            for task in tasks:
                if found.setdefault(fold(task.name), task) is not task:
                    self.fault(item, f"'{task.name}' is given twice. Give one concept set of it.")
        return tuple(found.values())

    def _several(self, node: yaml.Node) -> Task:
        parts = self.mapping(node, (*_SEVERAL, "name"), "an entry of concepts")
        how = next(key for key in _SEVERAL if key in parts)
        if all(key in parts for key in _SEVERAL):
            self.fault(node, "targets are erased together or in_turn. Keep one of the two.")
        sets = [concepts for item in items_of(parts[how]) for concepts in self._sets(item)]
        if len({fold(concepts.target) for concepts in sets}) < max(2, len(sets)):
            self.fault(node, f"{how} takes two targets or more, each of them once.")
        name = self._name(parts["name"]) if "name" in parts else f"{len(sets)} {how.replace('_', ' ')}"
        return Task(name, tuple(sets), how == "in_turn")

    def _name(self, node: yaml.Node) -> str:
        value = value_of(node)
        if fault := text_fault(value) if isinstance(value, str) else f"is {describe(node)}. Write a text.":
            self.fault(node, f"name {fault}")
        return str(value)

    def _sets(self, node: yaml.Node) -> Sequence[ConceptSet]:
        if isinstance(node, yaml.MappingNode):
            parts = self.mapping(node, ("kind",), "an entry of concepts")
            name = value_of(parts["kind"]) if "kind" in parts else None
            if name not in KINDS:
                self.fault(node, f"kind is {shown(name)}. {_one_of(name, KINDS)}")
            return [c for c in atlas().values() if c.kind == name]
        name = str(value_of(node))
        if not name.partition("#")[0].lower().endswith(_FILES):
            return [find_concepts(name)]
        path = self._path.parent / name
        return [find_concepts(path)] if "#" in name else read_sets(path)

    def _methods(self, node: yaml.Node | None, crce: tuple[bool, ...]) -> tuple[MethodEntry, ...]:
        entries: dict[str, MethodEntry] = {}
        keys = ("method", "name", "recipe", "crce", *self._settings)
        for item in items_of(node):
            parts = self.mapping(item, keys, "a method") if isinstance(item, yaml.MappingNode) else {"method": item}
            variants = self.each(parts.pop("crce", None), partial(_checked, name="crce"), crce, "crce")
            settings = {key: value_of(part) for key, part in parts.items()}
            method, recipe = settings.pop("method", None), settings.pop("recipe", None)
            settings.pop("name", None)
            name = self._name(parts["name"]) if "name" in parts else str(method)
            if method not in tuple(METHODS):
                self.fault(item, f"method is {shown(method)}. {_one_of(method, tuple(METHODS))}")
                continue
            if recipe is not None and recipe not in (recipes := recipe_names()):
                file = self._path.parent / str(recipe)
                if not file.is_file():
                    cure = _one_of(recipe, recipes, "Name a YAML file or")
                    self.fault(item, f"there is no recipe {recipe!r}. {cure}")
                    continue
                recipe = str(file)
            entry = MethodEntry(name, method, recipe, settings, variants, line_of(item))
            if entries.setdefault(name, entry) is not entry:
                self.fault(item, f"two methods are called {name!r}. Give one of them another name: ...")
        return tuple(entries.values())

    def _axes(self, node: yaml.Node | None) -> dict[str, tuple[Any, ...]]:
        parts = self.mapping(node, (*PHRASES, *self._settings), "axes") if node is not None else {}
        for name, part in parts.items():
            if not items_of(part):
                self.fault(part, f"axis {name} is empty. Give its values in a list.")
        return {name: self.each(part, partial(_checked, name=name), (), name) for name, part in parts.items()}

    def _lists(
        self, axes: dict[str, tuple[Any, ...]], node: yaml.Node | None, tasks: Sequence[Task]
    ) -> dict[str, tuple[ConceptSet, ...]]:
        """The concept sets in the files of the axis `lists`; each file must have one for every target."""
        found: dict[str, tuple[ConceptSet, ...]] = {}
        for name in (name for name in axes.get(LISTS, ()) if name != OWN):
            try:
                found[name] = read_sets(self._path.parent / name)
            except ConceptError as error:
                self.fault(node, str(error))
                continue
            there = {fold(concepts.target) for concepts in found[name]}
            if missing := [c.target for task in tasks for c in task.sets if fold(c.target) not in there]:
                self.fault(node, f"{name} has no concept set for: {', '.join(dict.fromkeys(missing))}.")
        return found

    def _attacks(self, node: yaml.Node | None) -> tuple[AttackSettings, ...]:
        entries: dict[str, AttackSettings] = {}
        for entry in self.each(node, self._attack, (), "attacks"):
            if entries.setdefault(entry.attack, entry) is not entry:
                self.fault(node, f"attack {entry.attack!r} is listed twice. Keep one of them.")
        return tuple(entries.values())

    def _attack(self, node: yaml.Node) -> AttackSettings | None:
        entry = self.object(node, AttackSettings, "an attack")
        if entry is not None and entry.attack not in ATTACKS:
            raise ValueError(f"attack is {entry.attack!r}. {_one_of(entry.attack, tuple(ATTACKS))}")
        return entry

    def each(
        self, node: yaml.Node | None, read: Callable[[yaml.Node], T | None], default: tuple[T, ...], key: str
    ) -> tuple[T, ...]:
        """The items of the list under `key`, each read by `read`, whose ValueError is a fault of its item."""
        if node is None:
            return default
        values: list[T] = []
        if not items_of(node) and default:
            self.fault(node, f"{key} is empty. Name at least one value, or leave {key} out.")
        for item in items_of(node):
            try:
                value = read(item)
            except ValueError as error:
                self.fault(item, str(error))
                continue
            if value in values:
                self.fault(item, f"{shown(value)} is listed twice. Keep one of them.")
            elif value is not None:
                values.append(value)
        return tuple(values) or default

    def object(self, node: yaml.Node, kind: type[T], what: str) -> T | None:
        """An object of a dataclass that checks its arguments; None if they have faults.

        A bare value is the first argument, if that one is required.
        """
        known = fields(kind)  # type: ignore[arg-type]
        parts = {known[0].name: node}
        if isinstance(node, yaml.MappingNode) or known[0].default is not MISSING:
            parts = self.mapping(node, [f.name for f in known], what)
        try:
            return kind(**{name: value_of(part) for name, part in parts.items()})
        except ValidationError as error:
            for fault in error.errors():
                name, text = str(fault["loc"][0]), fault_text(fault)
                text = "is missing: field required" if fault["type"] == "missing" else text
                self.fault(parts.get(name, node), f"{name} {text}.")
            return None


def _checked(node: yaml.Node, name: str) -> Any:
    """A value of `crce`, of `seeds` or of an axis; those of settings are checked with the cells."""
    value, cure = value_of(node), ""
    match name:
        case "seed" | "corefs" | "retains" if type(value) is not int or not 0 <= value <= LARGEST_SEED:
            cure = f"Use a whole number from 0 to {LARGEST_SEED}."
        case "crce" if type(value) is not bool:
            cure = "Use true, false, or [false, true] for both."
        case "certainty" if value not in CERTAINTIES:
            cure = _one_of(value, CERTAINTIES)
        case "lists" if value != OWN and not str(value).lower().endswith(_FILES):
            cure = f"Use {OWN}, or a file with a concept set for every target."
    if cure:
        raise ValueError(f"{name} is {shown(value)}. {cure}")
    return value


def _pair(node: yaml.Node) -> tuple[str, str]:
    names = [str(value_of(item)) for item in items_of(node)]
    if len(names) != 2:
        raise ValueError(f"compare takes pairs of rows, such as [esd, esd+crce], and this is {describe(node)}.")
    return (names[0], names[1])


def _one_of(given: object, allowed: Sequence[str], use: str = "Use") -> str:
    return f"{use} one of: {', '.join(allowed)}.{did_you_mean(str(given), allowed)}"
