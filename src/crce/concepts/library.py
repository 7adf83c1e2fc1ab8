"""Concept sets from files and from the bundled atlas."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from crce.concepts.concept_set import ConceptSet, Kind, fold, name_key
from crce.concepts.corefconcept import is_corefconcept, parse_corefconcept
from crce.concepts.documents import dump_concepts, dump_json, parse_json_sets, parse_sets
from crce.concepts.faults import Fault, did_you_mean, error_from, likely_slip
from crce.concepts.nodes import json_value, read_text
from crce.errors import ConceptError
from crce.files import write_text


logger = logging.getLogger(__name__)

NAMED: tuple[Kind, ...] = ("person", "character", "style")  # kinds whose names have variants
SUFFIXES = (".yaml", ".yml", ".json")
ATLAS = Path(__file__).parent / "atlas"


def read_concepts(path: Path | str) -> ConceptSet:
    """Read one concept set from a file.

    Args:
        path: a YAML file, a JSON file with the same keys, or a CorefConcept JSON file. If the file contains several
            sets, `#` and the target follow: `object.json#cat`.

    Raises:
        ConceptError: lists every fault of the file, or the targets to choose from.
    """
    path = Path(path)
    wanted: str | None = None
    if "#" in path.name and not os.path.isfile(path):
        name, _, wanted = path.name.partition("#")
        path = path.with_name(name)
    sets, faults = _read(path)
    names = ", ".join(concepts.target for concepts in sets)
    if wanted is None:
        if len(sets) > 1:
            example = f"{path}#{sets[0].target}"
            raise ConceptError(f"{path.name} contains {len(sets)} concept sets. Name one, e.g. '{example}': {names}.")
        _refuse(path, faults)
        wanted = sets[0].target
    own = [fault for fault in faults if fault.concept is not None and fold(fault.concept) == fold(wanted)]
    for concepts in sets:
        if fold(concepts.target) == fold(wanted):
            for fault in own:
                logger.log(logging.INFO if fault.outcome == "note" else logging.WARNING, "%s", fault)
            return concepts
    _refuse(path, own)
    hint = did_you_mean(wanted, [concepts.target for concepts in sets])
    raise ConceptError(f"{path.name} has no concept '{wanted}'.{hint} It contains: {names}.")


def read_sets(path: Path | str) -> tuple[ConceptSet, ...]:
    """Every concept set of a YAML, JSON or CorefConcept file, in its order.

    Raises:
        ConceptError: lists every fault of the file; of a CorefConcept file those that make a set unusable.
    """
    sets, faults = _read(Path(path))
    _refuse(Path(path), faults)
    return tuple(sets)


def _refuse(path: Path, faults: Sequence[Fault]) -> None:
    if errors := [fault for fault in faults if fault.outcome == "error"]:
        raise error_from(path.name, errors)


def _read(path: Path) -> tuple[list[ConceptSet], list[Fault]]:
    """The sets of a file, and the faults of a CorefConcept file; other files must have none."""
    text = read_text(path)
    if path.suffix.lower() != ".json":
        return parse_sets(text, path.name), []
    if is_corefconcept(json_value(text, path.name)[0]):
        return parse_corefconcept(text, path.name)
    return parse_json_sets(text, path.name), []


def write_sets(path: Path | str, sets: Sequence[ConceptSet]) -> None:
    """Write concept sets as YAML: one as it is, several as a list.

    Raises:
        RunError: the file can't be written.
    """
    write_text(Path(path), dump_concepts(sets))


def write_concepts(path: Path | str, concepts: ConceptSet) -> None:
    """Write a concept set as YAML, or as JSON where the name ends in `.json`.

    Raises:
        RunError: the file can't be written.
    """
    write_text(Path(path), dump_for(Path(path), concepts))


def dump_for(path: Path, concepts: ConceptSet) -> str:
    """The text of a concept set as `write_concepts` writes it to a file of that name."""
    return dump_json(concepts) if path.suffix.lower() == ".json" else dump_concepts(concepts)


def find_concepts(name_or_path: str | Path) -> ConceptSet:
    """The concept set of an atlas entry (any case) or of a file, as `read_concepts` takes it.

    A bare name is looked up in the atlas first; write `./cat` for a file that is called like an entry.

    Raises:
        ConceptError: neither; the message suggests names, and says how to write a set.
    """
    if isinstance(name_or_path, Path):
        return read_concepts(name_or_path)
    if entry := atlas_entry(name_or_path):
        return entry
    file = name_or_path if os.path.isfile(name_or_path) else name_or_path.partition("#")[0]
    if os.path.isfile(file) or os.path.isdir(file) or Path(file).suffix.lower() in SUFFIXES:
        return read_concepts(name_or_path)
    raise ConceptError(
        f"'{name_or_path}' is neither in the atlas nor a file.{_suggestion(name_or_path)} "
        "`crce ls` lists the atlas. For your own set, write 'target: ...', 'corefs: [...]', 'retains: [...]' in a "
        "YAML file and name that file."
    )


def atlas() -> dict[str, ConceptSet]:
    """The bundled concept sets by target, sorted."""
    return {concepts.target: concepts for concepts in _atlas(ATLAS)}


def atlas_entry(name: str) -> ConceptSet | None:
    """The bundled concept set of a target, or None; `name_key` says what is one name.

    A person, a character or a style has its other full, short and framed names too: "Vincent van Gogh", "Dali".
    """
    return None if os.path.dirname(name) else _names().get(name_key(name))  # "./cat" is a file


def atlas_kind(name: str) -> Kind | None:
    """The kind of a person, a character or a style that only the retains of the atlas name, or None."""
    for concepts in atlas().values():
        for related in concepts.retains if concepts.kind in NAMED else ():
            if related.text[0].isupper() and name_key(related.text) == name_key(name):
                return concepts.kind
    return None


@functools.cache
def _names() -> dict[str, ConceptSet]:
    """The bundled sets by the keys of their names, targets before corefs."""
    names = {name_key(concepts.target): concepts for concepts in atlas().values()}
    for concepts in atlas().values():
        names.setdefault(name_key(concepts.target.partition(" from ")[0]), concepts)  # "Elsa from Frozen"
        own = set(fold(concepts.target).split())
        for related in concepts.corefs if concepts.kind in NAMED and concepts.target[0].isupper() else ():
            words, framed = set(fold(related.text).split()), fold(related.text).endswith(" style")
            full = len(own) > 1 and own <= words and related.text[0].isupper() and related.certainty >= 0.8
            if words <= own or full or (framed and words & own):
                names.setdefault(name_key(related.text), concepts)
    return names


@functools.cache
def _atlas(folder: Path) -> tuple[ConceptSet, ...]:
    files = sorted(folder.glob("*.yaml"))
    sets = [c for file in files for c in parse_sets(read_text(file), file.name, phrase_source="atlas")]
    return tuple(sorted(sets, key=lambda concepts: fold(concepts.target)))


def _suggestion(name: str) -> str:
    """The atlas entry whose coref `name` is, else the target or coref that it is a slip of; empty without one."""
    targets_of: dict[str, list[str]] = {}
    for concepts in atlas().values():
        for related in concepts.corefs:
            targets_of.setdefault(fold(related.text), []).append(concepts.target)
    if targets := targets_of.get(fold(name)):
        known = " and ".join(f"'{target}'" for target in targets)
        return f" '{name}' is a coref of {known}: use {'one of them' if len(targets) > 1 else known}."
    near = likely_slip(name, [*atlas(), *targets_of])
    if near is None or near in atlas():
        return f" Did you mean '{near}'?" if near else ""
    return f" Did you mean '{targets_of[near][0]}', of which '{near}' is a coref?"
