"""YAML and JSON text as one kind of tree (YAML nodes), which keeps line numbers and repeated keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from crce.concepts.faults import Fault, did_you_mean, error_from
from crce.errors import ConceptError


_TAGS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one parses the atlas ten times faster


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        ConceptError: the file is missing, a folder, not readable or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        siblings = [file.name for file in path.parent.glob("*") if file.suffix.lower() in (".yaml", ".yml", ".json")]
        hint = did_you_mean(path.name, siblings) or " Check the path, or name an entry of the atlas."
        raise ConceptError(f"There is no file {path}.{hint}") from error
    except IsADirectoryError as error:
        inside = path / "concepts.yaml"
        cure = f"Use {inside}." if inside.is_file() else "Name a YAML or JSON file."
        raise ConceptError(f"{path} is a folder, not a concept file. {cure}") from error
    except (OSError, ValueError) as error:
        raise ConceptError(f"Cannot read {path}: {error}. Check the path and the file's permissions.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{data[error.start]:02x} is not UTF-8 text. Save the file as UTF-8 in your editor."
        raise error_from(path.name, [Fault(path.name, text, line=line)]) from error


def yaml_node(text: str, file: str) -> yaml.Node | None:
    """The root node of a YAML text; None when it holds nothing.

    Raises:
        ConceptError: not YAML, with the line at which the parser gave up.
    """
    try:
        return yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deeply"
        reason = (
            f"not valid YAML: {what}. Indent with spaces, close every quote and bracket, "
            "and put phrases that hold ': ', '#' or a leading symbol in quotes."
        )
        raise error_from(file, [Fault(file, reason, line=mark.line + 1 if mark else None)]) from error


def json_value(text: str, file: str) -> tuple[Any, list[Fault]]:
    """The value of a JSON text, and a fault for every key that an object holds twice.

    Raises:
        ConceptError: not JSON, with the line at which the parser gave up.
    """
    faults: list[Fault] = []

    def pairs_to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        faults.extend(Fault(file, f"key {key!r} stands twice in one object. Keep one.") for key in repeated)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=pairs_to_dict), faults
    except (ValueError, RecursionError) as error:
        reason = f"not valid JSON: {getattr(error, 'msg', error)}. Check the quotes, commas and brackets there."
        raise error_from(file, [Fault(file, reason, line=getattr(error, "lineno", None))]) from error


def node_from(value: Any) -> yaml.Node:
    """A YAML node, without line numbers, for a value that came from JSON."""
    if isinstance(value, dict):
        pairs = [(node_from(key), node_from(item)) for key, item in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs)
    if isinstance(value, list):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [node_from(item) for item in value])
    text = value if isinstance(value, str) else json.dumps(value)
    return yaml.ScalarNode(f"tag:yaml.org,2002:{_TAGS[type(value)]}", text)


def line_of(node: yaml.Node) -> int | None:
    """The line a node starts on, from 1; None for a node that came from JSON."""
    return node.start_mark.line + 1 if node.start_mark else None


def tag_of(node: yaml.Node) -> str:
    """The short name of a node's type: map, seq, str, bool, int, float, null, timestamp, ..."""
    return node.tag.removeprefix("tag:yaml.org,2002:")
