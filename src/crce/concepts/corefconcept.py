"""Concept sets in the published CorefConcept form (JSON), read with every oddity reported.

A file maps a group to its concepts:

    {"object": [{"type": "object", "concept": "cat",
                 "train-coref": ["kitty", ...], "train-coref-certainty": ["High", ...], "test-coref": [...], ...}]}

The four lists (train-coref, test-coref, train-retain, test-retain) have their certainties beside them; `test-` phrases
are held out. The types "object", "celebrity" and "IP" are the kinds object, person and character. Concept names are
used as targets unchanged: "bank (riverbank)" is prompted with its brackets.

Repaired on reading, because nothing is lost: white space; a certainty that is missing (read as Normal, 0.6) or has no
phrase (dropped); a missing list (empty); a phrase twice on one side (the first stays, so a training phrase wins over
a held-out one); the target among its own corefs (dropped). Kept verbatim and noted: U+FFFD, left by a wrong decoding;
commas and slashes, since the phrase is one phrase. A concept with any other fault is not read.
"""

from pathlib import Path
from typing import Any, Literal, cast

from crce.concepts.concept_set import (
    CERTAINTY_WORDS,
    KINDS,
    ConceptSet,
    Kind,
    Placed,
    Related,
    clashes,
    fold,
    parse_certainty,
    text_fault,
    tidy,
)
from crce.concepts.faults import Fault, Outcome, did_you_mean, error_from
from crce.concepts.nodes import json_value, read_text
from crce.errors import ConceptError, shown


MISSING_CERTAINTY = CERTAINTY_WORDS["Normal"]  # the middle word: neither trusted fully nor dropped

_SOURCE = "corefconcept"
_TYPES: dict[str, str] = {"person": "celebrity", "character": "IP"}  # the published names of our kinds
_KINDS: dict[str, str] = {**{kind: kind for kind in KINDS}, "celebrity": "person", "ip": "character"}
_LISTS: dict[str, tuple[Literal["coref", "retain"], bool]] = {
    "train-coref": ("coref", False),
    "test-coref": ("coref", True),
    "train-retain": ("retain", False),
    "test-retain": ("retain", True),
}
_KEYS = ("type", "concept", *(name + suffix for name in _LISTS for suffix in ("", "-certainty")))


def is_corefconcept(value: object) -> bool:
    """Whether a JSON value looks like a CorefConcept file rather than like one concept set."""
    groups = value.values() if isinstance(value, dict) else ()
    items = (item for group in groups if isinstance(group, list) for item in group)
    return any(isinstance(item, dict) and "concept" in item for item in items)


def read_corefconcept(path: Path | str) -> tuple[list[ConceptSet], list[Fault]]:
    """Read every usable concept of a CorefConcept file.

    Returns:
        The sets in the order of the file, and everything odd about it. A concept that has a fault with outcome
        "error" is not among the sets.

    Raises:
        ConceptError: the file can't be read, or is not in this form at all.
    """
    return parse_corefconcept(read_text(Path(path)), Path(path).name)


def parse_corefconcept(text: str, file: str) -> tuple[list[ConceptSet], list[Fault]]:
    """As `read_corefconcept`, for the text of a file."""
    value, repeated_keys = json_value(text, file)
    if repeated_keys:
        raise error_from(file, repeated_keys)
    if not isinstance(value, dict) or not all(isinstance(entries, list) for entries in value.values()):
        raise ConceptError(
            f"{file} is not in the CorefConcept form. It must map a group to a list of concepts: "
            '{"object": [{"concept": "cat", "train-coref": [...], ...}]}.'
        )
    faults: list[Fault] = []
    sets: dict[str, ConceptSet] = {}
    for group, entries in value.items():
        for i, entry in enumerate(entries):
            reader = _EntryReader(file, group, i)
            concepts = reader.concept_set(entry)
            faults += reader.faults
            if concepts is not None and sets.setdefault(fold(concepts.target), concepts) is not concepts:
                text = "is in the file twice; the first is used. Rename or delete one."
                faults.append(Fault(file, text, concept=concepts.target, field=group, index=i))
    return list(sets.values()), faults


class _EntryReader:
    def __init__(self, file: str, group: str, index: int) -> None:
        self.file, self.group, self.index = file, group, index
        self.concept: str | None = None
        self.faults: list[Fault] = []

    def fault(self, text: str, field: str | None = None, index: int | None = None, outcome: Outcome = "error") -> None:
        if self.concept is None:  # nothing to call the entry by but its place in the group
            text, field, index = f"{field}: {text}" if field else text, self.group, self.index
        self.faults.append(Fault(self.file, text, outcome, concept=self.concept, field=field, index=index))

    def concept_set(self, entry: Any) -> ConceptSet | None:
        if not isinstance(entry, dict):
            self.fault(f"{shown(entry)} is not a concept. Write an object with the keys {', '.join(_KEYS)}.")
            return None
        name = entry.get("concept")
        if not isinstance(name, str) or text_fault(name):
            self.fault(f"{shown(name)} is not a concept's name. Write the phrase to erase.", "concept")
            return None
        self.concept = self.text(name, "concept")
        for key in entry:
            if key not in _KEYS:
                hint = did_you_mean(key, [known for known in _KEYS if known not in entry])
                # a misspelt list must not get lost
                self.fault(f"unknown key, not read.{hint}", key, outcome="error" if hint else "note")
        kind = self.kind(entry.get("type", self.group))
        placed = [phrase for name in _LISTS for phrase in self.phrases(entry, name)]
        kept = dict(enumerate(placed))
        for clash in clashes(self.concept, placed):
            side, related, place = placed[clash.at]
            field, _, index = place.rstrip("]").partition("[")
            text = f"{related.text!r} {clash.text}"
            if clash.sort == "duplicate" or (clash.sort == "target" and side == "coref"):
                del kept[clash.at]
                self.fault(f"{text} It was dropped here.", field, int(index), "repaired")
            else:
                self.fault(text, field, int(index))
        if any(fault.outcome == "error" for fault in self.faults):
            return None
        corefs, retains = (tuple(p.related for p in kept.values() if p.side == s) for s in ("coref", "retain"))
        return ConceptSet(tidy(name), kind, corefs, retains)

    def kind(self, given: object) -> Kind:
        kind = _KINDS.get(given.casefold()) if isinstance(given, str) else None
        if kind is None:
            known = ", ".join(dict.fromkeys(_TYPES.get(kind, kind) for kind in KINDS))
            text = f"{shown(given)} is not a known type ({known}); read as kind other."
            self.fault(text, "type", outcome="repaired")
        return cast(Kind, kind or "other")

    def phrases(self, entry: dict[str, Any], name: str) -> list[Placed]:
        texts, certainties = (self.items(entry, name + suffix) for suffix in ("", "-certainty"))
        if len(certainties) != len(texts):
            self.fault(
                f"phrases: {len(texts)}, certainties: {len(certainties)}; a missing certainty is read as Normal, one "
                "without a phrase is dropped. Check that each is beside its phrase.",
                name,
                outcome="repaired",
            )
        side, held_out = _LISTS[name]
        placed = []
        for i, text in enumerate(texts):
            text = self.text(text, name, i)
            certainty = self.certainty(certainties[i], name, i) if i < len(certainties) else MISSING_CERTAINTY
            if text is not None and certainty is not None:
                placed.append(Placed(side, Related(text, certainty, _SOURCE, held_out), f"{name}[{i}]"))
        return placed

    def items(self, entry: dict[str, Any], key: str) -> list[Any]:
        items = entry.get(key, [])
        if key not in entry and key in _LISTS:
            self.fault("the list is missing; read as empty.", key, outcome="repaired")
        if isinstance(items, list):
            return items
        self.fault(f"{shown(items)} is not a list. Put it in brackets: [...].", key)
        return []

    def text(self, text: object, field: str, index: int | None = None) -> str | None:
        if not isinstance(text, str):
            self.fault(f"{shown(text)} is not text. Write a phrase in double quotes.", field, index)
            return None
        if reason := text_fault(text):
            self.fault(reason, field, index)
            return None
        if tidy(text) != text:
            self.fault(f"{text!r} has white space to spare; read as {tidy(text)!r}.", field, index, "repaired")
        if "\ufffd" in text:
            cure = "it was lost in an earlier decoding. Kept unchanged: correct it by hand."
            self.fault(f"{text!r} contains U+FFFD in place of a letter; {cure}", field, index, "note")
        if "," in text or "/" in text:
            self.fault(f"{text!r} contains a comma or a slash; kept as one phrase.", field, index, "note")
        return tidy(text)

    def certainty(self, value: object, name: str, index: int) -> float | None:
        if value is None:
            self.fault("the certainty is null; read as Normal.", f"{name}-certainty", index, "repaired")
            return MISSING_CERTAINTY
        try:
            return parse_certainty(value)
        except ValueError as error:
            self.fault(str(error), f"{name}-certainty", index)
            return None
