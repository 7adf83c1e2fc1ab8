"""Reads the YAML file of a benchmark. Every fault is kept with its line, and all of them are told together.

concepts: [cat, my-sets.yaml, my-sets.yaml#dog, {kind: style}]
methods:
  - uce
  - {method: esd, steps: 60, name: esd-short}
crce: [false, true]
seeds: [0, 1, 2]
axes: {corefs: [0, 3, 5], retains: [0, 3, 5]}
evaluate: {images_per_prompt: 4}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from crce.bench.cells import expand
from crce.bench.grid import AXES, OWN, SIZES, Entry, Evaluation, Grid, Source
from crce.concepts import KINDS, ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean
from crce.concepts.nodes import line_of
from crce.errors import ConceptError, ConfigError
from crce.training.config import ErasureConfig, recipe_names


T = TypeVar("T")
METHODS: tuple[str, ...] = get_args(ErasureConfig.model_fields["method"].annotation)
_KEYS = ("concepts", "methods", "crce", "models", "seeds", "axes", "evaluate", "compare")
_ENTRY_KEYS = ("method", "name", "recipe", "crce", *(s for s in ErasureConfig.model_fields if s not in OWN))
_SOURCE_KEYS = tuple(f.name for f in fields(Source))
_FILES = (".yaml", ".yml", ".json")


def read_grid(path: str | Path) -> Grid:
    """Read a benchmark's file and check every cell of it.

    Raises:
        ConfigError: the file can't be read, or holds faults; all of them are listed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        siblings = [file.name for file in path.parent.glob("*") if file.suffix in (".yaml", ".yml")]
        hint = did_you_mean(path.name, siblings) or " Check the path."
        raise ConfigError(f"There is no file {path}.{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the benchmark {path}: {error}") from error
    return parse_grid(text, path)


def parse_grid(text: str, path: Path) -> Grid:
    """As `read_grid`, for the text of the file at `path`; files it names are looked for beside it."""
    try:
        return _Reader(path).grid(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error


class _FaultyItem(Exception):
    """An item of a list can't be read; the text says why."""


class _Reader:
    """Turns nodes into a grid; what is wrong is noted and read over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: list[tuple[int, str]] = []

    def grid(self, root: yaml.Node | None) -> Grid:
        parts = self._mapping(root, _KEYS, "key") if root is not None else {}
        for key in ("concepts", "methods"):
            if key not in parts:
                self._fault(
                    root, f"{key} is missing. Write for example: {key}: [{'cat' if key == 'concepts' else 'esd'}]"
                )
        crce = self._truths(parts.get("crce"), (True,))
        grid = Grid(
            name=self._path.stem,
            concepts=self._concepts(parts.get("concepts")),
            methods=self._methods(parts.get("methods"), crce),
            models=self._each(parts.get("models"), self._source, (Source(),)),
            seeds=self._each(parts.get("seeds"), partial(self._count, what="seed"), (0,)),
            axes=self._axes(parts.get("axes")),
            evaluation=self._evaluation(parts.get("evaluate")),
            compare=self._each(parts.get("compare"), self._pair, ()),
        )
        if not self._faults:
            self._check(grid, parts.get("compare"))
        if self._faults:
            lines = [f"{self._path.name}:{line}: {text}" for line, text in sorted(self._faults)]
            many = f"{self._path.name} has {len(lines)} faults:"
            raise ConfigError(lines[0] if len(lines) == 1 else "\n  ".join([many, *lines]))
        return grid

    def _check(self, grid: Grid, compare: yaml.Node | None) -> None:
        """What can only be said of cells: settings that don't fit one another, and rows that are compared."""
        faults: dict[str, int | None] = {}
        rows: dict[str, None] = {}
        for cell in expand(grid, lambda entry, text: faults.setdefault(text, entry.line)):
            rows.setdefault(cell.row)
        for text, line in faults.items():
            self._faults.append((line or 0, text))
        for pair, node in zip(grid.compare, _items(compare), strict=True):
            for name in pair if not faults else ():
                if name not in rows:
                    shown = did_you_mean(name, list(rows)) or f" Rows are: {', '.join(rows)}."
                    self._fault(node, f"the table has no row {name!r}.{shown}")

    # ---- parts of the file ----------------------------------------------------------------------------------------

    def _concepts(self, node: yaml.Node | None) -> tuple[ConceptSet, ...]:
        found: dict[str, ConceptSet] = {}
        for item in _items(node):
            try:
                sets = self._sets(item)
            except ConceptError as error:
                self._fault(item, str(error))
                continue
            for concepts in sets:
                if fold(concepts.target) in found:
                    self._fault(item, f"'{concepts.target}' is given twice. Give one concept set of it.")
                found.setdefault(fold(concepts.target), concepts)
        if node is not None and not _items(node):
            self._fault(node, "concepts is empty. Name at least one, e.g. cat.")
        return tuple(found.values())

    def _sets(self, node: yaml.Node) -> Sequence[ConceptSet]:
        if isinstance(node, yaml.MappingNode):
            kind = self._mapping(node, ("kind",), "key").get("kind")
            name = _value(kind) if kind else None
            if name not in KINDS:
                self._fault(node, f"kind is {name!r}. Use one of: {', '.join(KINDS)}.{did_you_mean(str(name), KINDS)}")
            return [c for c in atlas().values() if c.kind == name]
        name = str(_value(node))
        file = name.partition("#")[0]
        if not file.lower().endswith(_FILES):
            return [find_concepts(name)]
        at = self._path.parent / name
        return [find_concepts(str(at))] if "#" in name else read_sets(at)

    def _methods(self, node: yaml.Node | None, crce: tuple[bool, ...]) -> tuple[Entry, ...]:
        entries: dict[str, Entry] = {}
        for item in _items(node):
            if isinstance(item, yaml.MappingNode):
                parts = self._mapping(item, _ENTRY_KEYS, "setting")
            else:
                parts = {"method": item}
            given = {key: _value(part) for key, part in parts.items()}
            method, recipe = given.pop("method", None), given.pop("recipe", None)
            name = str(given.pop("name", method))
            given.pop("crce", None)
            if method not in METHODS:
                self._fault(item, f"method is {method!r}. Use one of: {', '.join(METHODS)}.{_near(method, METHODS)}")
                continue
            if isinstance(recipe, str) and recipe not in recipe_names():
                if not (self._path.parent / recipe).is_file():
                    own = recipe_names()
                    text = f"there is no recipe {recipe!r}. Name a YAML file or one of: {', '.join(own)}."
                    self._fault(item, text + did_you_mean(recipe, own))
                    continue
                recipe = str(self._path.parent / recipe)
            entry = Entry(name, method, recipe, given, self._truths(parts.get("crce"), crce), line_of(item))
            if entries.setdefault(name, entry) is not entry:
                self._fault(item, f"two methods are called {name!r}. Give one of them another name: ...")
        if node is not None and not _items(node):
            self._fault(node, "methods is empty. Name at least one, e.g. esd.")
        return tuple(entries.values())

    def _source(self, node: yaml.Node) -> Source:
        if not isinstance(node, yaml.MappingNode):
            return Source(str(_value(node)))
        given = {key: str(_value(part)) for key, part in self._mapping(node, _SOURCE_KEYS, "key").items()}
        if "model" not in given:
            raise _FaultyItem("model is missing. Write for example: {model: demo}")
        return Source(**given)

    def _count(self, node: yaml.Node, what: str) -> int:
        value = _value(node)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise _FaultyItem(f"{what} is {value!r}. Use a whole number, 0 or more.")
        return value

    def _axes(self, node: yaml.Node | None) -> dict[str, tuple[Any, ...]]:
        axes: dict[str, tuple[Any, ...]] = {}
        for name, part in (self._mapping(node, AXES, "axis") if node is not None else {}).items():
            read = partial(self._count, what=name) if name in SIZES else _value
            axes[name] = self._each(part, read, ())
            if not _items(part):
                self._fault(part, f"axis {name} is empty. Give its values in a list.")
        return axes

    def _evaluation(self, node: yaml.Node | None) -> Evaluation:
        if node is None:
            return Evaluation()
        plain = Evaluation()
        given: dict[str, Any] = {}
        for name, part in self._mapping(node, tuple(f.name for f in fields(Evaluation)), "setting").items():
            value, default = _value(part), getattr(plain, name)
            wanted = (int, float) if isinstance(default, float) else type(default)
            least = 0 if name in ("seed", "guidance") else 1
            if not isinstance(value, wanted) or isinstance(value, bool):
                self._fault(part, f"{name} is {value!r}. Use something like {default!r}.")
            elif not isinstance(value, str) and value < least:
                self._fault(part, f"{name} is {value!r}. Use {least} or more.")
            else:
                given[name] = type(default)(value)
        return Evaluation(**given)

    def _pair(self, node: yaml.Node) -> tuple[str, str]:
        names = [str(_value(item)) for item in _items(node)]
        if len(names) != 2:
            raise _FaultyItem(f"compare takes pairs of rows, such as [esd, esd+crce], and this is {_value(node)!r}.")
        return (names[0], names[1])

    # ---- nodes ----------------------------------------------------------------------------------------------------

    def _fault(self, node: yaml.Node | None, text: str) -> None:
        self._faults.append((line_of(node) or 1 if node is not None else 1, text))

    def _mapping(self, node: yaml.Node, allowed: Sequence[str], what: str) -> dict[str, yaml.Node]:
        """The known keys of a mapping with their nodes."""
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"this must be `{what}: value` lines, and it is {_value(node)!r}.")
            return {}
        parts: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(_value(key_node))
            if key not in allowed:
                hint = did_you_mean(key, allowed) or f" Use one of: {', '.join(allowed)}."
                self._fault(key_node, f"unknown {what} {key!r}.{hint}")
            elif key in parts:
                self._fault(key_node, f"{key!r} stands twice. Keep one of them.")
            else:
                parts[key] = value
        return parts

    def _each(self, node: yaml.Node | None, read: Callable[[yaml.Node], T], default: tuple[T, ...]) -> tuple[T, ...]:
        """What `read` makes of each item of a list; a value stands for a list of one. Nothing may stand twice."""
        if node is None:
            return default
        values: list[T] = []
        for item in _items(node):
            try:
                value = read(item)
            except _FaultyItem as fault:
                self._fault(item, str(fault))
                continue
            if value in values:
                self._fault(item, f"{_value(item)!r} stands twice in this list. Keep one of them.")
            else:
                values.append(value)
        return tuple(values)

    def _truths(self, node: yaml.Node | None, default: tuple[bool, ...]) -> tuple[bool, ...]:
        values = self._each(node, _value, default)
        if not values or any(not isinstance(value, bool) for value in values):
            self._fault(
                node, f"crce is {_value(node) if node else None!r}. Use true, false, or [false, true] for both."
            )
            return default
        return values


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    if node is None:
        return []
    return node.value if isinstance(node, yaml.SequenceNode) else [node]


def _value(node: yaml.Node) -> Any:
    """The plain value of a node."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _near(given: object, allowed: Sequence[str]) -> str:
    return did_you_mean(str(given), allowed)
