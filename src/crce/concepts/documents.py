"""The form in which people write concept sets: YAML, or the same in JSON.

A file contains one set, or a list of them:

    target: cat
    kind: object                      # object, character, person, style, explicit, other
    corefs:
      - {text: house cat, certainty: Very High}
      - {text: kitty, certainty: 0.8, source: WordNet}
      - kitten                        # certainty Very High
      - {text: domestic cat, held_out: true}
    retains:
      - dog

Either side may be written short, by certainty, with training and held-out phrases apart:

    corefs: {Very High: [house cat, kitty], Normal: [tabby]}
    corefs_held_out: {Very High: [domestic cat]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, cast

import yaml
from yaml.representer import SafeRepresenter

from crce.concepts.concept_set import (
    KINDS,
    ConceptSet,
    Kind,
    Placed,
    Related,
    certainty_word,
    clashes,
    direction_fault,
    fold,
    parse_certainty,
    text_fault,
    tidy,
    unknown_kind,
)
from crce.concepts.faults import error_from
from crce.concepts.nodes import NodeReader, describe, items_of, json_value, line_of, tag_of, value_of, yaml_node
from crce.errors import ConceptError


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


def parse_concepts(text: str, source: str) -> ConceptSet:
    """Read one concept set from YAML text, which faults call by the name of its `source`.

    Raises:
        ConceptError: lists every fault with its line.
    """
    sets = parse_sets(text, source)
    if len(sets) != 1:
        raise ConceptError(f"{source} contains {len(sets)} concept sets. Give one.")
    return sets[0]


def parse_sets(text: str, file: str, *, phrase_source: str = "user") -> list[ConceptSet]:
    """Read the concept set, or the list of them, of a YAML text, which faults call by the name of its `file`.

    Phrases that don't name a source have `phrase_source`.

    Raises:
        ConceptError: lists every fault with its line.
    """
    return _sets_from(yaml_node(text, file), _Reader(file, phrase_source))


def parse_json_sets(text: str, file: str) -> list[ConceptSet]:
    """As `parse_sets`, for JSON; faults name the concept and the phrase, not the line."""
    value, repeated_keys = json_value(text, file)
    reader = _Reader(file, "user")
    reader.faults += repeated_keys
    try:
        root = SafeRepresenter(sort_keys=False).represent_data(value)  # nodes without lines
    except RecursionError as error:
        raise ConceptError(f"{file} is nested too deeply. Write one concept set, or a list of them.") from error
    return _sets_from(root, reader)


def dump_concepts(concepts: ConceptSet | Sequence[ConceptSet]) -> str:
    """One set as it is, several as a list, as YAML; `parse_concepts` and `parse_sets` read it back equal."""
    texts = [_yaml(c) for c in ([concepts] if isinstance(concepts, ConceptSet) else concepts)]
    return texts[0] if len(texts) == 1 else "".join("- " + t.rstrip().replace("\n", "\n  ") + "\n" for t in texts)


@lru_cache(maxsize=4096)  # a run writes its sets several times, and for many of them PyYAML takes long
def _yaml(concepts: ConceptSet) -> str:
    return yaml.dump(
        _plain(concepts),
        Dumper=_Dumper,
        default_flow_style=None,  # keys in a block, each phrase on one line
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


def dump_json(concepts: ConceptSet) -> str:
    """The set as JSON, with the keys of the YAML form."""
    return json.dumps(_plain(concepts), indent=2, ensure_ascii=False) + "\n"


def _sets_from(root: yaml.Node | None, reader: _Reader) -> list[ConceptSet]:
    if not items_of(root):
        raise ConceptError(f"{reader.file} is empty. Write at least 'target: ...', the phrase to erase.")
    sets: dict[str, ConceptSet] = {}
    for node in items_of(root):
        concepts = reader.concept_set(node)
        if concepts is not None and sets.setdefault(fold(concepts.target), concepts) is not concepts:
            reader.target = None  # the message names it
            reader.fault(node, f"target '{concepts.target}' is given twice. Keep one set.")
    if reader.faults:
        raise error_from(reader.file, reader.faults)
    return list(sets.values())


def _plain(concepts: ConceptSet) -> dict[str, Any]:
    def entry(related: Related) -> dict[str, Any]:
        value: dict[str, Any] = {"text": related.text, "certainty": certainty_word(related.certainty)}
        value |= {"source": related.source} if related.source != "user" else {}
        return value | ({"held_out": True} if related.held_out else {})

    value = {name: getattr(concepts, name) for name in ("target", "kind", "erase_from", "anchor")}
    value = {name: text for name, text in value.items() if text is not None}
    return value | {"corefs": [entry(r) for r in concepts.corefs], "retains": [entry(r) for r in concepts.retains]}


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # list items are indented below their key


class _Reader(NodeReader):
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
