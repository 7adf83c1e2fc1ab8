"""YAML and JSON as one kind of tree, and a base class for readers that collect faults with their lines.

The nodes of the tree are PyYAML's, which keep line numbers and repeated keys.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from crce.concepts.faults import Fault, did_you_mean, error_from
from crce.errors import ConceptError, shown
from crce.files import read_bytes


LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one parses the atlas ten times faster

MOST_DIGITS = 100  # of a number
MOST_NODES = 500_000  # of a file; what it refers to several times counts each time
DEEPEST = 40  # lists within lists; no file of crce needs half of it

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
MOST_LISTED = 10  # known keys that a fault lists although one of them is near


def read_text(path: Path, what: str = "concept file") -> str:
    """The text of a UTF-8 file, with or without a byte order mark; errors say that it should be a `what`.

    Raises:
        ConceptError: the file is missing, a folder, not readable, not UTF-8, or holds control characters.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        siblings = [file.name for file in path.parent.glob("*") if file.suffix.lower() in (".yaml", ".yml", ".json")]
        cure = " Check the path, or name an entry of the atlas." if what == "concept file" else " Check the path."
        raise ConceptError(f"There is no file {path}.{did_you_mean(path.name, siblings) or cure}") from error
    except IsADirectoryError as error:
        inside = path / "concepts.yaml"
        cure = f"Use {inside}." if inside.is_file() else "Name a YAML or JSON file."
        raise ConceptError(f"{path} is a folder, not a {what}. {cure}") from error
    except (OSError, ValueError) as error:
        raise ConceptError(f"Cannot read {path}: {error}. Check the path and the file's permissions.") from error
    try:
        text = data.decode("utf-8-sig")
        found, why = _CONTROL.search(text), "is a control character. Delete it."
        start = found and len(text[: found.start()].encode())
    except UnicodeDecodeError as error:
        start, why = error.start, "is not UTF-8 text. Save the file as UTF-8 in your editor."
    if start is None:
        return text
    line = data.count(b"\n", 0, start) + 1
    raise error_from(path.name, [Fault(path.name, f"byte 0x{data[start]:02x} {why}", line=line)])


def yaml_node(text: str, file: str) -> yaml.Node | None:
    """The root node of a YAML text; None if it is empty.

    Raises:
        ConceptError: not YAML, with the line at which the parser gave up.
    """
    try:
        return _bounded(yaml.compose(text, Loader=LOADER), file)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deeply"
        reason = (
            f"not valid YAML: {what}. Indent with spaces, close every quote and bracket, "
            "and put phrases that contain ': ', '#' or a leading symbol in quotes."
        )
        raise error_from(file, [Fault(file, reason, line=mark.line + 1 if mark else None)]) from error


def json_value(text: str, file: str) -> tuple[Any, list[Fault]]:
    """The value of a JSON text, and a fault for every repeated key of an object.

    Raises:
        ConceptError: not JSON, with the line at which the parser gave up.
    """
    faults: list[Fault] = []

    def pairs_to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        faults.extend(Fault(file, f"key {key!r} is given twice in one object. Keep one.") for key in repeated)
        return dict(pairs)

    try:
        return _bounded(json.loads(text, object_pairs_hook=pairs_to_dict), file), faults
    except (ValueError, RecursionError) as error:
        reason = f"not valid JSON: {getattr(error, 'msg', error)}. Check the quotes, commas and brackets there."
        raise error_from(file, [Fault(file, reason, line=getattr(error, "lineno", None))]) from error


def _bounded(root: Any, file: str) -> Any:
    """A tree of nodes or of JSON values, unless it is so deep or so large that what reads it would not end."""
    left, seen = [(root, 0)], 0
    while left:
        value, depth = left.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_NODES:
            what = f"is nested deeper than {DEEPEST} levels" if depth > DEEPEST else f"holds over {MOST_NODES} values"
            raise ConceptError(f"{file} {what}, with all that it refers to. Make it smaller.")
        if isinstance(value, yaml.ScalarNode) and tag_of(value) != "str" and len(value.value) > MOST_DIGITS:
            raise ConceptError(f"{file}:{line_of(value)}: {describe(value)} is too long for a number or a date.")
        if isinstance(value, yaml.CollectionNode):
            value = [n for item in value.value for n in (item if isinstance(item, tuple) else (item,))]
        if isinstance(value, list | dict):
            left.extend((each, depth + 1) for each in (value.values() if isinstance(value, dict) else value))
    return root


def line_of(node: yaml.Node) -> int | None:
    """The line a node starts on, from 1; None for a node that came from JSON."""
    return node.start_mark.line + 1 if node.start_mark else None


def tag_of(node: yaml.Node) -> str:
    """The short name of a node's type: map, seq, str, bool, int, float, null, timestamp, ..."""
    return node.tag.removeprefix("tag:yaml.org,2002:")


def value_of(node: yaml.Node) -> Any:
    """The plain Python value of a node.

    Raises:
        yaml.YAMLError: an unknown tag, a value that does not fit its tag, or a key that is given twice.
    """
    try:
        return _Constructor().construct_document(node)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        problem = f"{describe(node)} can't be read: {error}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


class _Constructor(yaml.constructor.SafeConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):  # PyYAML takes the last
            key, _ = Counter(str(key.value) for key, _ in node.value).most_common(1)[0]
            raise ValueError(f"key {shown(key)} is given twice. Keep one")
        return mapping


def items_of(node: yaml.Node | None) -> list[yaml.Node]:
    """The items of a list; a single value is a list of one, and no node an empty list."""
    if node is None:
        return []
    return node.value if isinstance(node, yaml.SequenceNode) else [node]


def describe(node: yaml.Node) -> str:
    """A node in a few words, for messages."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping of keys to values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if tag_of(node) == "null" else shown(node.value)


class NodeReader:
    """Base of readers that turn nodes into objects; faults are collected, so that all are reported together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.target: str | None = None  # of the concept set being read, for faults of files without line numbers

    def fault(self, node: yaml.Node | None, text: str) -> None:
        self.faults.append(Fault(self.file, text, line=line_of(node) if node else None, concept=self.target))

    def mapping(self, node: yaml.Node, known: Sequence[str], what: str) -> dict[str, yaml.Node]:
        """The values under the known keys, in the order of the file; a repeated or unknown key is a fault."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{describe(node)} is not {what}. Write 'key: value' lines with keys {', '.join(known)}.")
            return {}
        first: dict[str, yaml.Node] = {}
        values: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else describe(key_node)
            if first.setdefault(key, key_node) is not key_node:
                earlier = f"first on line {line_of(first[key])}"
                self.fault(key_node, f"key {shown(key)} is given twice ({earlier}). Keep one.")
            elif key in known:
                values[key] = value
            else:
                near = did_you_mean(key, known)
                listed = "" if near and len(known) > MOST_LISTED else f" Known keys: {', '.join(known)}."
                hint = near or self.key_hint(node, known, key, value)
                self.fault(key_node, f"unknown key {shown(key)} in {what}.{listed}{hint}")
        return values

    def key_hint(self, node: yaml.MappingNode, known: Sequence[str], key: str, value: yaml.Node) -> str:
        """A sentence to append to the fault of an unknown key that resembles no known one."""
        return ""
