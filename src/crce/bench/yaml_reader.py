"""Reads YAML nodes and notes every fault with its line, so that all of them can be told together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import yaml

from crce.concepts.faults import did_you_mean
from crce.concepts.nodes import line_of
from crce.errors import ConfigError


T = TypeVar("T")


class FaultyItem(Exception):
    """An item of a list can't be read; the text says why."""


class NodeReader:
    """Turns nodes into values; what is wrong is noted and read over.

    Args:
        name: of the file, for the faults.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._faults: list[tuple[int, str]] = []

    def refuse_faulty(self) -> None:
        """
        Raises:
            ConfigError: faults were noted; all of them are listed.
        """
        if not self._faults:
            return
        lines = [f"{self._name}:{line}: {text}" for line, text in sorted(self._faults)]
        many = f"{self._name} has {len(lines)} faults:"
        raise ConfigError(lines[0] if len(lines) == 1 else "\n  ".join([many, *lines]))

    def _fault(self, node: yaml.Node | None, text: str) -> None:
        self._faults.append((line_of(node) or 1 if node is not None else 1, text))

    def _mapping(self, node: yaml.Node, allowed: Sequence[str], what: str) -> dict[str, yaml.Node]:
        """The known keys of a mapping with their nodes."""
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"this must be `{what}: value` lines, and it is {value_of(node)!r}.")
            return {}
        parts: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(value_of(key_node))
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
        for item in items_of(node):
            try:
                value = read(item)
            except FaultyItem as fault:
                self._fault(item, str(fault))
                continue
            if value in values:
                self._fault(item, f"{value_of(item)!r} stands twice in this list. Keep one of them.")
            else:
                values.append(value)
        return tuple(values)

    def _truths(self, node: yaml.Node | None, default: tuple[bool, ...]) -> tuple[bool, ...]:
        values = self._each(node, value_of, default)
        if not values or any(not isinstance(value, bool) for value in values):
            self._fault(
                node, f"crce is {value_of(node) if node else None!r}. Use true, false, or [false, true] for both."
            )
            return default
        return values

    def _count(self, node: yaml.Node, what: str, least: int = 0) -> int:
        value = value_of(node)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise FaultyItem(f"{what} is {value!r}. Use a whole number, {least} or more.")
        return value


def items_of(node: yaml.Node | None) -> list[yaml.Node]:
    if node is None:
        return []
    return node.value if isinstance(node, yaml.SequenceNode) else [node]


def value_of(node: yaml.Node) -> Any:
    """The plain value of a node."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()
