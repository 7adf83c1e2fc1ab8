"""Reads the YAML file of a benchmark. Every fault is kept with its line, and all of them are told together.

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
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import yaml

from crce.attacks import ATTACKS
from crce.bench.cells import expand
from crce.bench.grid import AXES, OWN, AttackEntry, Entry, Evaluation, Grid, Source
from crce.bench.tasks import CERTAINTIES, CERTAINTY, LISTS, SIZES, Task
from crce.bench.tasks import OWN as OWN_LISTS
from crce.bench.yaml_reader import FaultyItem, NodeReader, items_of, value_of
from crce.concepts import KINDS, ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean
from crce.concepts.nodes import line_of
from crce.config import ErasureConfig, recipe_names
from crce.errors import ConceptError, ConfigError


METHODS: tuple[str, ...] = get_args(ErasureConfig.model_fields["method"].annotation)
_KEYS = ("concepts", "methods", "crce", "models", "seeds", "axes", "evaluate", "attacks", "compare")
_ENTRY_KEYS = ("method", "name", "recipe", "crce", *(s for s in ErasureConfig.model_fields if s not in OWN))
_SOURCE_KEYS = tuple(f.name for f in fields(Source))
_SEVERAL = ("together", "in_turn")
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


class _Reader(NodeReader):
    """Turns nodes into a grid."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name)
        self._path = path

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
            tasks=(tasks := self._tasks(parts.get("concepts"))),
            methods=self._methods(parts.get("methods"), crce),
            models=self._each(parts.get("models"), self._source, (Source(),)),
            seeds=self._each(parts.get("seeds"), partial(self._count, what="seed"), (0,)),
            axes=(axes := self._axes(parts.get("axes"))),
            lists=self._lists(axes, parts.get("axes"), tasks),
            evaluation=self._evaluation(parts.get("evaluate")),
            attacks=self._attacks(parts.get("attacks")),
            compare=self._each(parts.get("compare"), self._pair, ()),
        )
        if not self._faults:
            self._check(grid, parts.get("compare"))
        self.refuse_faulty()
        return grid

    def _check(self, grid: Grid, compare: yaml.Node | None) -> None:
        """What can only be said of cells: settings that don't fit one another, and rows that are compared."""
        faults: dict[str, int | None] = {}
        rows: dict[str, None] = {}
        for cell in expand(grid, lambda entry, text: faults.setdefault(text, entry.line)):
            rows.setdefault(cell.row)
        for text, line in faults.items():
            self._faults.append((line or 0, text))
        for pair, node in zip(grid.compare, items_of(compare), strict=True):
            for name in pair if not faults else ():
                if name not in rows:
                    shown = did_you_mean(name, list(rows)) or f" Rows are: {', '.join(rows)}."
                    self._fault(node, f"the table has no row {name!r}.{shown}")

    # ---- parts of the file ----------------------------------------------------------------------------------------

    def _tasks(self, node: yaml.Node | None) -> tuple[Task, ...]:
        found: dict[str, Task] = {}
        for item in items_of(node):
            try:
                tasks = self._several(item) if self._is_several(item) else self._single(item)
            except ConceptError as error:
                self._fault(item, str(error))
                continue
            for task in tasks:
                if fold(task.name) in found:
                    self._fault(item, f"'{task.name}' is given twice. Give one concept set of it.")
                found.setdefault(fold(task.name), task)
        if node is not None and not items_of(node):
            self._fault(node, "concepts is empty. Name at least one, e.g. cat.")
        return tuple(found.values())

    @staticmethod
    def _is_several(node: yaml.Node) -> bool:
        return isinstance(node, yaml.MappingNode) and any(value_of(key) in _SEVERAL for key, _ in node.value)

    def _single(self, node: yaml.Node) -> list[Task]:
        return [Task(concepts.target, (concepts,)) for concepts in self._sets(node)]

    def _several(self, node: yaml.Node) -> list[Task]:
        """Several targets of one cell."""
        parts = self._mapping(node, (*_SEVERAL, "name"), "key")
        how = [key for key in _SEVERAL if key in parts]
        if len(how) > 1:
            self._fault(node, "targets are erased together or in_turn. Keep one of the two.")
        sets = [concepts for item in items_of(parts[how[0]]) for concepts in self._sets(item)]
        targets = [fold(concepts.target) for concepts in sets]
        if len(set(targets)) < max(2, len(targets)):
            self._fault(node, f"{how[0]} takes two targets or more, each of them once.")
        name = str(value_of(parts["name"])) if "name" in parts else f"{len(sets)} {how[0].replace('_', ' ')}"
        return [Task(name, tuple(sets), how[0] == "in_turn")]

    def _sets(self, node: yaml.Node) -> Sequence[ConceptSet]:
        if isinstance(node, yaml.MappingNode):
            kind = self._mapping(node, ("kind",), "key").get("kind")
            name = value_of(kind) if kind else None
            if name not in KINDS:
                self._fault(node, f"kind is {name!r}. Use one of: {', '.join(KINDS)}.{did_you_mean(str(name), KINDS)}")
            return [c for c in atlas().values() if c.kind == name]
        name = str(value_of(node))
        file = name.partition("#")[0]
        if not file.lower().endswith(_FILES):
            return [find_concepts(name)]
        at = self._path.parent / name
        return [find_concepts(str(at))] if "#" in name else read_sets(at)

    def _methods(self, node: yaml.Node | None, crce: tuple[bool, ...]) -> tuple[Entry, ...]:
        entries: dict[str, Entry] = {}
        for item in items_of(node):
            if isinstance(item, yaml.MappingNode):
                parts = self._mapping(item, _ENTRY_KEYS, "setting")
            else:
                parts = {"method": item}
            given = {key: value_of(part) for key, part in parts.items()}
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
        if node is not None and not items_of(node):
            self._fault(node, "methods is empty. Name at least one, e.g. esd.")
        return tuple(entries.values())

    def _source(self, node: yaml.Node) -> Source:
        if not isinstance(node, yaml.MappingNode):
            return Source(str(value_of(node)))
        given = {key: str(value_of(part)) for key, part in self._mapping(node, _SOURCE_KEYS, "key").items()}
        if "model" not in given:
            raise FaultyItem("model is missing. Write for example: {model: demo}")
        return Source(**given)

    def _axes(self, node: yaml.Node | None) -> dict[str, tuple[Any, ...]]:
        axes: dict[str, tuple[Any, ...]] = {}
        for name, part in (self._mapping(node, AXES, "axis") if node is not None else {}).items():
            axes[name] = self._each(part, partial(self._axis_value, name=name), ())
            if not items_of(part):
                self._fault(part, f"axis {name} is empty. Give its values in a list.")
        return axes

    def _axis_value(self, node: yaml.Node, name: str) -> Any:
        if name in SIZES:
            return self._count(node, name)
        value = value_of(node)
        if name == CERTAINTY and value not in CERTAINTIES:
            raise FaultyItem(
                f"certainty is {value!r}. Use one of: {', '.join(CERTAINTIES)}.{_near(value, CERTAINTIES)}"
            )
        if name == LISTS and not (isinstance(value, str) and (value == OWN_LISTS or value.lower().endswith(_FILES))):
            raise FaultyItem(f"lists is {value!r}. Use {OWN_LISTS}, or a file with a concept set for every target.")
        return value

    def _lists(
        self, axes: dict[str, tuple[Any, ...]], node: yaml.Node | None, tasks: Sequence[Task]
    ) -> dict[str, tuple[ConceptSet, ...]]:
        """The concept sets in the files of the axis `lists`; each must have one for every target."""
        found: dict[str, tuple[ConceptSet, ...]] = {}
        for name in axes.get(LISTS, ()):
            if name == OWN_LISTS:
                continue
            try:
                found[name] = tuple(read_sets(self._path.parent / name))
            except ConceptError as error:
                self._fault(node, str(error))
                continue
            there = {fold(concepts.target) for concepts in found[name]}
            if missing := [c.target for task in tasks for c in task.sets if fold(c.target) not in there]:
                self._fault(node, f"{name} has no concept set of: {', '.join(dict.fromkeys(missing))}.")
        return found

    def _attacks(self, node: yaml.Node | None) -> tuple[AttackEntry, ...]:
        entries = self._each(node, self._attack, ())
        names = [entry.attack for entry in entries]
        for name in {name for name in names if names.count(name) > 1}:
            self._fault(node, f"attack {name!r} stands twice. Keep one of them.")
        return entries

    def _attack(self, node: yaml.Node) -> AttackEntry:
        given: dict[str, Any] = {}
        parts = {"attack": node}
        if isinstance(node, yaml.MappingNode):
            parts = self._mapping(node, tuple(f.name for f in fields(AttackEntry)), "setting")
        for key, part in parts.items():
            given[key] = value_of(part) if key == "attack" else self._count(part, key, 0 if key == "seed" else 1)
        name = given.get("attack")
        if name not in ATTACKS:
            raise FaultyItem(f"attack is {name!r}. Use one of: {', '.join(ATTACKS)}.{_near(name, tuple(ATTACKS))}")
        return AttackEntry(**given)

    def _evaluation(self, node: yaml.Node | None) -> Evaluation:
        if node is None:
            return Evaluation()
        plain = Evaluation()
        given: dict[str, Any] = {}
        for name, part in self._mapping(node, tuple(f.name for f in fields(Evaluation)), "setting").items():
            value, default = value_of(part), getattr(plain, name)
            if name == "threshold":
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                    self._fault(part, f"threshold is {value!r}. Use a probability from 0 to 1.")
                else:
                    given[name] = float(value)
                continue
            wanted = (int, float) if isinstance(default, float) else type(default)
            least = 0 if name in ("seed", "guidance") else 1
            if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
                self._fault(part, f"{name} is {value!r}. Use something like {default!r}.")
            elif not isinstance(value, str | bool) and value < least:
                self._fault(part, f"{name} is {value!r}. Use {least} or more.")
            else:
                given[name] = type(default)(value)
        return Evaluation(**given)

    def _pair(self, node: yaml.Node) -> tuple[str, str]:
        names = [str(value_of(item)) for item in items_of(node)]
        if len(names) != 2:
            raise FaultyItem(f"compare takes pairs of rows, such as [esd, esd+crce], and this is {value_of(node)!r}.")
        return (names[0], names[1])


def _near(given: object, allowed: Sequence[str]) -> str:
    return did_you_mean(str(given), allowed)
