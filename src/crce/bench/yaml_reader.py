"""Lists and checked objects from YAML nodes, with every fault at its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import TypeVar

import yaml
from pydantic import ValidationError

from crce.concepts.faults import did_you_mean
from crce.concepts.nodes import NodeReader, value_of


T = TypeVar("T")


class ItemError(Exception):
    """An item of a list can't be used; the text says why."""


class ObjectReader(NodeReader):
    """Reads lists and objects; a faulty item is left out and its fault recorded."""

    def each(
        self, node: yaml.Node | None, read: Callable[[yaml.Node], T | None], default: tuple[T, ...], key: str
    ) -> tuple[T, ...]:
        """The items of a list, read one by one; a single value is a list of one, and no value may repeat.

        Args:
            node: the list; None gives the default.
            read: makes a value of an item; None where it has recorded a fault.
            default: the values without a list; if there are any, an empty list is a fault.
            key: the key of the list, for faults.
        """
        if node is None:
            return default
        values: list[T] = []
        items = items_of(node)
        if not items and default:
            self.fault(node, f"{key} is empty. Name at least one value, or leave {key} out.")
        for item in items:
            try:
                value = read(item)
            except ItemError as error:
                self.fault(item, str(error))
                continue
            if value in values:
                self.fault(item, f"{value_of(item)!r} is listed twice. Keep one of them.")
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
                name, text = str(fault["loc"][0]), fault["msg"]
                given = "missing" if fault["type"] == "missing" else repr(fault["input"])
                self.fault(parts.get(name, node), f"{name} is {given}: {text[0].lower()}{text[1:]}.")
            return None


def items_of(node: yaml.Node | None) -> list[yaml.Node]:
    """The items of a list; a single value is a list of one, and no node an empty list."""
    if node is None:
        return []
    return node.value if isinstance(node, yaml.SequenceNode) else [node]


def unknown_value(what: str, given: object, allowed: Sequence[str]) -> str:
    """A fault that lists the allowed values."""
    return f"{what} is {given!r}. Use one of: {', '.join(allowed)}.{did_you_mean(str(given), allowed)}"
