"""From YAML nodes to concept sets; every fault is collected with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import yaml

from crce.concepts.concept_set import (
    KINDS,
    ConceptSet,
    Kind,
    Placed,
    Related,
    clashes,
    direction_fault,
    parse_certainty,
    text_fault,
    tidy,
    unknown_kind,
)
from crce.concepts.nodes import NodeReader, describe, line_of, tag_of, value_of


_SIDES: dict[str, tuple[Literal["coref", "retain"], bool]] = {
    "corefs": ("coref", False),
    "corefs_held_out": ("coref", True),
    "retains": ("retain", False),
    "retains_held_out": ("retain", True),
}
_SET_KEYS = ("target", "kind", "erase_from", "anchor", *_SIDES)
_ENTRY_KEYS = ("text", "certainty", "source", "held_out")
_READ_AS = {"null": "nothing", "bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
_Entry = tuple[yaml.Node, Placed]


class ConceptReader(NodeReader):
    """Reads the concept sets of one file; phrases that name no source have `phrase_source`."""

    def __init__(self, file: str, phrase_source: str) -> None:
        super().__init__(file)
        self.phrase_source = phrase_source

    def concept_set(self, node: yaml.Node) -> ConceptSet | None:
        """The set at `node`, or None if it has faults."""
        before = len(self.faults)
        self.target = None
        pairs = self.mapping(node, _SET_KEYS, "a concept set")
        if "target" in pairs:
            self.target = self._phrase(pairs["target"], "target")
        elif isinstance(node, yaml.MappingNode):
            self.fault(node, "the set has no target. Add a line 'target: ...' with the phrase to erase.")
        kind = self._phrase(pairs["kind"], "kind") if "kind" in pairs else "object"
        if kind is not None and kind.casefold() not in KINDS:
            self.fault(pairs["kind"], f"kind {unknown_kind(kind)}")
        erase_from, anchor = (
            self._phrase(pairs[key], key) if key in pairs and tag_of(pairs[key]) != "null" else None
            for key in ("erase_from", "anchor")
        )
        entries = [entry for key in _SIDES if key in pairs for entry in self._side(key, pairs[key])]
        entries.sort(key=lambda entry: line_of(entry[0]) or 0)  # of two that clash, the later line is named
        placed = [entry[1] for entry in entries]
        for clash in clashes(self.target, placed):
            side, related, _ = placed[clash.at]
            self.fault(entries[clash.at][0], f"{side} '{related.text}' {clash.text}")
        if direction := direction_fault(self.target, erase_from, anchor, placed):
            self.fault(pairs["anchor"], direction)
        if len(self.faults) > before:
            return None
        corefs, retains = (tuple(p.related for p in placed if p.side == side) for side in ("coref", "retain"))
        kind = cast(Kind, str(kind).casefold())
        return ConceptSet(str(self.target), kind, corefs, retains, erase_from, anchor)

    def _phrase(self, node: yaml.Node, what: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, f"{what} is {describe(node)}. Write one phrase.")
        elif tag_of(node) == "str":
            reason = text_fault(node.value)
            if reason is None:
                return tidy(node.value)
            self.fault(node, f"{what} {reason}")
        elif not node.value:
            self.fault(node, f"{what} {text_fault('')}")
        else:
            read_as = _READ_AS.get(tag_of(node), f"a {node.tag}")
            self.fault(node, f'{what} {node.value} is read as {read_as}, not text. Put it in quotes: "{node.value}".')
        return None

    def _side(self, key: str, node: yaml.Node) -> Iterator[_Entry]:
        """The phrases under one of the keys of `_SIDES`: a list, or lists by certainty; nothing is an empty list."""
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                yield from self._entry(key, item, f"{key}[{i}]")
        elif isinstance(node, yaml.MappingNode):
            first: dict[float, yaml.Node] = {}
            for key_node, items in node.value:
                certainty = self._certainty(key_node, key)
                if certainty is not None and first.setdefault(certainty, key_node) is not key_node:
                    self.fault(key_node, f"{key}: certainty {certainty} is given twice. Put its phrases in one list.")
                what = f"{key}: {key_node.value if isinstance(key_node, yaml.ScalarNode) else describe(key_node)}"
                if isinstance(items, yaml.SequenceNode):
                    for i, item in enumerate(items.value):
                        yield from self._related(key, item, self._phrase(item, f"{what}[{i}]"), certainty)
                elif tag_of(items) != "null":
                    self.fault(items, f"{what} is {describe(items)}. Write a list of phrases: [one phrase, another].")
        elif tag_of(node) != "null":
            self.fault(node, f"{key} is {describe(node)}. Write a list of phrases, one a line after '- '.")

    def _entry(self, key: str, node: yaml.Node, what: str) -> Iterator[_Entry]:
        """One item of a list: a bare phrase, or a mapping of `_ENTRY_KEYS`."""
        if not isinstance(node, yaml.MappingNode):
            yield from self._related(key, node, self._phrase(node, what), 1.0)
            return
        before = len(self.faults)
        pairs = self.mapping(node, _ENTRY_KEYS, what)
        text = self._phrase(pairs["text"], f"{what}: text") if "text" in pairs else None
        if "text" not in pairs and len(self.faults) == before:
            self.fault(node, f"{what} has no text. Write {{text: a phrase, certainty: High}}.")
        side, side_held_out = _SIDES[key]
        what = f"{side} '{text}'" if text else what
        certainty = self._certainty(pairs["certainty"], what) if "certainty" in pairs else 1.0
        source = self._phrase(pairs["source"], f"{what}: source") if "source" in pairs else None
        held_out = _scalar(pairs["held_out"]) if "held_out" in pairs else False
        if not isinstance(held_out, bool):
            given = describe(pairs["held_out"])
            self.fault(pairs["held_out"], f"{what}: held_out is {given}. Use true or false, without quotes.")
        if side_held_out and "held_out" in pairs and not held_out:
            self.fault(pairs["held_out"], f"{what}: held_out is false under {key}. Delete it, or move it to {side}s.")
        for entry, (_, related, place) in self._related(key, node, text, certainty):
            related = replace(related, source=source or related.source, held_out=bool(held_out) or related.held_out)
            yield entry, Placed(side, related, place)

    def _related(self, key: str, node: yaml.Node, text: str | None, certainty: float | None) -> Iterator[_Entry]:
        if text is None:
            return
        side, held_out = _SIDES[key]
        # a certainty of None has its fault already: the phrase is kept, so that its clashes are found too
        line, related = line_of(node), Related(text, certainty or 0.0, self.phrase_source, held_out)
        yield node, Placed(side, related, f"line {line}" if line else key)

    def _certainty(self, node: yaml.Node, what: str) -> float | None:
        try:
            return parse_certainty(_scalar(node))
        except ValueError as error:
            self.fault(node, f"{what}: {error}")
            return None

    def key_hint(self, node: yaml.MappingNode, known: Sequence[str], key: str, value: yaml.Node) -> str:
        """For `- Batman: The Movie` and `{text: cat, dog}`, in which YAML finds a key that nobody meant."""
        if known is not _ENTRY_KEYS or not isinstance(value, yaml.ScalarNode):
            return ""
        if len(node.value) == 1 and value.value:
            return f" If this is one phrase, put it in quotes: {f'{key}: {value.value}'!r}."
        if node.flow_style and not value.value:
            return " If it belongs to the phrase before it, put that phrase, with its comma, in quotes."
        return ""


def _scalar(node: yaml.Node) -> Any:
    """The Python value of a scalar; for all else its description, which no caller takes for a value."""
    if not isinstance(node, yaml.ScalarNode):
        return describe(node)
    try:
        return value_of(node)
    except (yaml.YAMLError, ValueError):  # an explicit tag that its text does not fit, e.g. `!!int many`
        return node.value
