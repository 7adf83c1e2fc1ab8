"""What `crce erase` is given, as concept sets: from the atlas, from files, or suggested; with their records."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from crce.cli.suggest import keep_answers, record_beside
from crce.concepts import ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold
from crce.concepts.library import SUFFIXES, atlas_entry
from crce.errors import ConceptError, SuggestError
from crce.files import free_file, slug


if TYPE_CHECKING:
    from crce.suggest import Record

RECORD = "suggest.json"  # in a run folder: the record of its only suggested set


class Found(NamedTuple):
    """A concept set, and the record of the suggestion that made it, if one did."""

    concepts: ConceptSet
    record: Record | None


def find_sets(given: Sequence[str]) -> list[Found]:
    """The set, or the sets of a YAML file, behind each argument; what is in no atlas and no file is suggested.

    Raises:
        ConceptError: an argument is a slip of the pen, a file can't be read, or a target stands twice.
        SuggestError: nothing can be suggested for a concept.
    """
    _refuse_split_name(given)
    # Whatever can be wrong is found before a language model is asked for anything.
    known = [_found(concept) for concept in given]
    _refuse_twice(given, known)
    sets: list[Found] = []
    for concept, found in zip(given, known, strict=True):
        sets += [_suggested(concept)] if found is None else found
    return sets


def erased_along(run: Path, found: Sequence[Found]) -> list[Found]:
    """What an earlier run erased and is not among the sets: it is erased along, with the records of that run.

    Raises:
        RunError: it is no run folder, or its training hasn't finished.
    """
    from crce.training import Erasure

    targets = {fold(f.concepts.target) for f in found}
    earlier = [c for c in Erasure.load(run).sets if fold(c.target) not in targets]
    return [Found(c, record_beside(run / "concepts.yaml", c)) for c in earlier]


def write_records(folder: Path, records: Sequence[Record]) -> None:
    """Write the records of the suggested sets into their run: suggest.json, or one suggest-TARGET.json for each.

    Raises:
        RunError: a file can't be written.
    """
    if not records:
        return
    from crce.suggest import write_record

    if len(records) == 1:
        write_record(folder / RECORD, records[0])
        return
    for record in records:
        write_record(free_file(folder / f"suggest-{slug(record.concept_set.target)}", ".json"), record)


def _found(concept: str) -> list[Found] | None:
    """The sets of the atlas or of a file; None for a concept that is to be suggested."""
    from crce.suggest.concept import MAX_LENGTH, parts

    file = Path(concept if os.path.isfile(concept) else concept.partition("#")[0])
    is_file = file.suffix.lower() in SUFFIXES or os.path.exists(file)
    if len(concept) > MAX_LENGTH and not is_file:
        parts(concept)
    if os.path.isfile(concept) and file.suffix.lower() in (".yaml", ".yml"):
        return [Found(c, record_beside(file, c)) for c in read_sets(file)]
    try:
        concepts = find_concepts(concept)
    except ConceptError:
        if is_file or not _is_new(concept):
            raise
        return None
    return [Found(concepts, record_beside(file, concepts) if file.suffix.lower() in SUFFIXES else None)]


def _refuse_split_name(given: Sequence[str]) -> None:
    """`crce erase Mickey Mouse` means one target, and the shell makes two of it.

    Raises:
        ConceptError: several arguments in a row are the name of one target of the atlas.
    """
    for start in range(len(given)):
        for end in range(start + 2, len(given) + 1):
            name = " ".join(given[start:end])
            entry = atlas_entry(name)
            if entry is not None and not all(atlas_entry(part) for part in given[start:end]):
                raise ConceptError(
                    f"{' and '.join(map(repr, given[start:end]))} are given as separate concepts, but together they "
                    f"are '{entry.target}' of the atlas. Put it in quotes: crce erase {shlex.quote(entry.target)}."
                )


def _refuse_twice(given: Sequence[str], known: Sequence[list[Found] | None]) -> None:
    """Raises ConceptError if two arguments have one target."""
    from crce.suggest.concept import parts

    seen: set[str] = set()
    for concept, found in zip(given, known, strict=True):
        for target in [parts(concept).target] if found is None else [f.concepts.target for f in found]:
            if fold(target) in seen:
                raise ConceptError(f"'{target}' is given twice. Give one concept set of it.")
            seen.add(fold(target))


def _suggested(concept: str) -> Found:
    from crce.suggest import suggest
    from crce.suggest.concept import brief

    try:
        suggestion = suggest(concept)
    except SuggestError as error:
        keep_answers(concept, error)
        if "--" not in str(error):
            raise
        raise SuggestError(
            f"{error} Those are flags of crce suggest: crce suggest {shlex.quote(brief(concept))} --kind KIND "
            "--out FILE.yaml, then crce erase FILE.yaml."
        ) from error
    concepts, record = suggestion.concepts, suggestion.record
    for warning in record.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if not concepts.train_corefs:
        typer.echo(
            f"warning: without corefs, other names of '{concepts.target}' are likely to draw it still", err=True
        )
    if not concepts.train_retains:
        typer.echo(f"warning: without retains, what is near '{concepts.target}' is likely to change too", err=True)
    typer.echo(
        f"'{brief(concept)}' is not in the atlas: {len(concepts.corefs)} corefs and {len(concepts.retains)} "
        f"retains were suggested by {record.suggester}. To look at them first: crce suggest {shlex.quote(concept)}",
        err=True,
    )
    return Found(concepts, record)


def _is_new(concept: str) -> bool:
    """Whether a name that is neither in the atlas nor a file is meant as it stands, and is no slip of the pen."""
    if not concept.strip():
        return False
    from crce.suggest.concept import parts
    from crce.suggest.wordnet import load_wordnet

    target, sense = parts(concept)
    if sense is not None:
        return True
    names = {fold(name) for c in atlas().values() for name in (c.target, *(r.text for r in c.corefs))}
    if fold(target) in names:
        return False  # a coref: its target is what the atlas erases
    return not any(_is_slip(fold(target), name) for name in names) or bool(load_wordnet().senses(target))


def _is_slip(given: str, meant: str) -> bool:
    """Whether about one letter of `given` has to change to make `meant` of it."""
    if abs(len(given) - len(meant)) > 1:
        return False
    return SequenceMatcher(None, given, meant, autojunk=False).ratio() >= 1 - 1.5 / min(len(given), len(meant))
