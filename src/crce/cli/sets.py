"""The concept sets that a verb is given at the command line: resolved, with a note for each that was suggested."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import typer

from crce.cli.suggest import keep_answers
from crce.concepts.library import atlas_entry
from crce.errors import ConceptError, SuggestError
from crce.suggest.phrases import brief
from crce.suggest.resolve import Resolved, resolve_concepts


def find_sets(given: Sequence[str]) -> list[Resolved]:
    """The concept sets behind the arguments, as `crce.suggest.resolve_concepts` finds them.

    Raises:
        ConceptError: an argument is probably a typo, a file can't be read, a target is given twice, or a name of
            several words was given without quotes.
        SuggestError: no set can be suggested for a concept.
    """
    _refuse_split_name(given)
    try:
        resolved = resolve_concepts(given)
    except SuggestError as error:
        keep_answers(error)
        raise
    for concepts, record, suggested in resolved:
        if not suggested or record is None:
            continue
        name = record.request.name
        typer.echo(
            f"'{brief(name)}' is not in the atlas: {len(concepts.corefs)} corefs and {len(concepts.retains)} "
            f"retains were suggested by {record.suggester}. To look at them first: crce suggest {shlex.quote(name)}",
            err=True,
        )
    return resolved


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
