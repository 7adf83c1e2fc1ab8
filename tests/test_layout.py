"""The layout of the package: a room imports only from the floors below it, and no name means two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import crce


PACKAGE = Path(crce.__file__).parent
FLOORS = (
    ("errors", "lazy"),
    ("files", "concepts", "llm", "bounds"),
    ("registry", "demo"),
    ("backbones",),
    ("config", "methods"),  # the settings of an erasure and those of its methods
    ("training",),
    ("sampling", "judges"),
    ("evaluate", "export"),
    ("attacks", "suggest"),
    ("api",),
    ("refine", "bench", "plugins"),
    ("cli", "web"),
)
TOGETHER = {
    "bounds",
    "config",
    "methods",
    "files",
    "concepts",
    "llm",
    "cli",
    "web",
}  # may import others of their own floor
LONGEST = 300  # lines of a module


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path], only_at_import: bool = False) -> Iterator[str]:
    """The modules of the package that a module imports, also for types alone unless `only_at_import`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if only_at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "crce":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def test_a_room_imports_only_from_floors_below_it():
    known = modules()
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    upwards = []
    for name, path in known.items():
        room = name.split(".")[1] if "." in name else ""
        if room in ("", "__main__"):
            continue
        for imported in imports(path, known):
            other = imported.split(".")[1] if "." in imported else room
            together = {room, other} <= TOGETHER and floor[room] == floor[other]
            if other != room and floor[other] >= floor[room] and not together:
                upwards.append(f"{name} -> {imported}")
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    graph = {name: set(imports(path, known, only_at_import=True)) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_modules_need_each_other_even_inside_functions():
    known = {name: path for name, path in modules().items() if path.name != "__init__.py"}  # faces hand names on
    graph = {name: set(imports(path, known)) & known.keys() - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_module_is_longer_than_a_reader_holds_in_the_head():
    long = {name: n for name, path in modules().items() if (n := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_no_two_classes_have_one_name():
    homes = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
    assert not {name: places for name, places in homes.items() if len(places) > 1}
