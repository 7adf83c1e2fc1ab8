"""Concept sets from whatever names one: an atlas entry, a file, or any other concept, for which a set is suggested."""

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crce.concepts import ConceptSet, atlas, find_concepts, read_sets
from crce.concepts.concept_set import fold
from crce.concepts.faults import likely_slip
from crce.concepts.library import SUFFIXES, atlas_kind
from crce.errors import ConceptError, SuggestError
from crce.suggest.phrases import brief, parse_concept
from crce.suggest.record import Record, record_beside


logger = logging.getLogger(__name__)

Concept = str | Path | ConceptSet


class Resolved(NamedTuple):
    """A concept set and where it came from."""

    concepts: ConceptSet
    record: Record | None = None  # of the suggestion that made it
    suggested: bool = False  # just now, because the concept is neither in the atlas nor a file


def resolve_concept(concept: Concept) -> ConceptSet:
    """The concept set behind a name, a file or a set.

    Args:
        concept: an atlas target in any case; a YAML, JSON or CorefConcept file, with `#` and the target if it contains
            several sets; any other concept, with a sense in brackets if it has several ("bat (animal)"), for which a
            set is suggested as `crce.suggest.suggest` does by default; or a concept set, which is returned as it is.

    Raises:
        ConceptError: the name is probably a typo or a coref of the atlas, or the file can't be read or contains
            several sets.
        SuggestError: no set can be suggested.
    """
    found = resolve_concepts([concept])
    if len(found) > 1:
        names = ", ".join(each.concepts.target for each in found)
        example = f"{concept}#{found[0].concepts.target}"
        raise ConceptError(f"{concept} contains {len(found)} concept sets. Name one, e.g. '{example}': {names}.")
    return found[0].concepts


def resolve_concepts(given: Sequence[Concept | Resolved]) -> list[Resolved]:
    """The concept sets behind several names, files or sets, with the records of those that were suggested.

    A YAML file of several sets means all of them. All is checked before a set is suggested, which may cost money.

    Args:
        given: each as `resolve_concept` takes it, or resolved already.

    Raises:
        ConceptError: as `resolve_concept`, or a target is given twice.
        SuggestError: no set can be suggested for a concept; its `exchanges` are the language model's answers so far.
    """
    pairs = [(concept, _known(concept)) for concept in given]
    seen: set[str] = set()
    for concept, found in pairs:
        for target in [parse_concept(str(concept))[0]] if found is None else [each.concepts.target for each in found]:
            if fold(target) in seen:
                raise ConceptError(f"'{target}' is given twice. Give one concept set of it.")
            seen.add(fold(target))
    return [each for c, found in pairs for each in ([_suggested(str(c))] if found is None else found)]


def erased_earlier(run: Path, resolved: Sequence[Resolved]) -> list[Resolved]:
    """The sets that an earlier run erased and that are not among `resolved`, with the records of that run.

    Raises:
        RunError: `run` is no run folder, or its training has not finished.
    """
    from crce.training import Erasure

    targets = {fold(each.concepts.target) for each in resolved}
    earlier = [c for c in Erasure.load(run).sets if fold(c.target) not in targets]
    return [Resolved(c, record_beside(run / "concepts.yaml", c)) for c in earlier]


def _known(concept: Concept | Resolved) -> list[Resolved] | None:
    """The given set, or those of the atlas or a file; None for a concept whose set has to be suggested."""
    if isinstance(concept, (Resolved, ConceptSet)):
        return [concept if isinstance(concept, Resolved) else Resolved(concept)]
    file = Path(concept if os.path.isfile(concept) else str(concept).partition("#")[0])
    suffix = file.suffix.lower()
    is_file = isinstance(concept, Path) or suffix in SUFFIXES or os.path.exists(file)
    if os.path.isfile(concept) and suffix in (".yaml", ".yml"):
        return [Resolved(c, record_beside(file, c)) for c in read_sets(file)]
    try:
        concepts = find_concepts(concept)
    except ConceptError:
        if is_file or not _is_new(str(concept)):
            raise
        return None
    return [Resolved(concepts, record_beside(file, concepts) if suffix in SUFFIXES else None)]


def _suggested(concept: str) -> Resolved:
    from crce.suggest.suggestion import suggest

    try:
        suggestion = suggest(concept)
    except SuggestError as error:
        if "--" in str(error):
            command = f"crce suggest {shlex.quote(brief(concept))} --kind KIND --out FILE.yaml"
            error.args = (f"{error} Those are flags of crce suggest: {command}, then crce erase FILE.yaml.",)
        raise
    concepts, record = suggestion.concepts, suggestion.record
    for warning in record.warnings:
        logger.warning("%s", warning)
    if not concepts.train_retains:
        logger.warning("without retains, neighbours of '%s' are likely to change too", concepts.target)
    return Resolved(concepts, record, suggested=True)


def _is_new(concept: str) -> bool:
    """Whether a name that is neither in the atlas nor a file is a new concept, and not a typo."""
    from crce.suggest.wordnet import load_wordnet

    target, sense = parse_concept(concept) if concept.strip() else ("", None)
    if not target or sense is not None:
        return bool(target)
    owners = {fold(r.text): (r.text, c.target) for c in atlas().values() for r in c.corefs}
    senses = load_wordnet().senses(target)
    if own := owners.get(fold(target)):
        # Gandalf is a wizard with a name of his own; "kitten" and "President Lincoln" are words for their targets
        return own[0][0].isupper() and bool(senses) and not any(own[1] in sense.words for sense in senses)
    return likely_slip(target, [*map(fold, atlas()), *owners]) is None or bool(senses or atlas_kind(target))
