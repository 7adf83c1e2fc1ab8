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
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import yaml
from yaml.representer import SafeRepresenter

from crce.concepts.concept_set import ConceptSet, Related, certainty_word, fold
from crce.concepts.faults import error_from
from crce.concepts.nodes import items_of, json_value, yaml_node
from crce.concepts.reader import ConceptReader
from crce.errors import ConceptError


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
    return _sets_from(yaml_node(text, file), ConceptReader(file, phrase_source))


def parse_json_sets(text: str, file: str) -> list[ConceptSet]:
    """As `parse_sets`, for JSON; faults name the concept and the phrase, not the line."""
    value, repeated_keys = json_value(text, file)
    reader = ConceptReader(file, "user")
    reader.faults += repeated_keys
    try:
        root = SafeRepresenter(sort_keys=False).represent_data(value)  # nodes without lines
    except RecursionError as error:
        raise ConceptError(f"{file} is nested too deeply. Write one concept set, or a list of them.") from error
    return _sets_from(root, reader)


def dump_concepts(concepts: ConceptSet | Sequence[ConceptSet]) -> str:
    """One set as it is, several as a list, as YAML; `parse_concepts` and `parse_sets` read it back equal."""
    return _yaml((concepts,) if isinstance(concepts, ConceptSet) else tuple(concepts))


@lru_cache(maxsize=4)  # a run writes its sets several times, and for many of them PyYAML takes long
def _yaml(sets: tuple[ConceptSet, ...]) -> str:
    return yaml.dump(
        _plain(sets[0]) if len(sets) == 1 else [_plain(c) for c in sets],
        Dumper=_Dumper,
        default_flow_style=None,  # keys in a block, each phrase on one line
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


def dump_json(concepts: ConceptSet) -> str:
    """The set as JSON, with the keys of the YAML form."""
    return json.dumps(_plain(concepts), indent=2, ensure_ascii=False) + "\n"


def _sets_from(root: yaml.Node | None, reader: ConceptReader) -> list[ConceptSet]:
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
