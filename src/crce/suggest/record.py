"""suggest.json: the questions and answers behind a concept set, and the decision about each phrase."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FieldSerializationInfo, ValidationError, field_serializer

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.documents import dump_json, parse_json_sets
from crce.errors import ConceptError, SuggestError
from crce.files import free_file, read_bytes, slug, write_json
from crce.suggest.candidates import Candidate, Request, Side
from crce.suggest.grounding import Grounded


logger = logging.getLogger(__name__)

SUFFIX = ".suggest.json"
IN_RUN = "suggest.json"  # the name of a run's only record; of several, each is called after its target
_KEYS = {
    "proposed": ("text", "side", "certainty", "source", "reason", "held_out"),
    "decisions": ("text", "side", "outcome", "certainty", "reason", "source"),
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuggestionSettings(_Model):
    """How many phrases are wanted, and how they are chosen."""

    corefs: int = Field(ge=0)
    retains: int = Field(ge=0)
    held_out: int = Field(ge=0)
    diversity: float = Field(ge=0, le=1)
    verify: Literal["question"] | None = None
    ground: str | None = None  # the text-to-image model
    prompts: str | None = None
    retries: int | None = None  # if an answer can't be read; None without a language model
    seed: int = 0


class Verified(_Model):
    """The answer to the second question about a phrase."""

    text: str
    side: Side
    stated: float  # its certainty before
    certainty: float  # after: see `crce.suggest.verification`; 0 where the answer contradicts the proposal
    answer: str  # "always", "sometimes", "never", "nonsense" or "unanswered"
    reason: str


class Score(_Model):
    """The score of a phrase by the earlier decisions of the person who asked."""

    text: str
    side: Side
    score: float


class Record(_Model):
    """Everything about one suggestion, enough to repeat it offline."""

    crce: str  # version that made it
    suggester: str
    provider: str | None = None  # of the language model, as are the next two; None without one
    model: str | None = None
    prompt_hash: str | None = None  # of the prompt that asked for phrases
    request: Request
    settings: SuggestionSettings
    proposed: tuple[Candidate, ...]  # as they were proposed
    exchanges: tuple[dict[str, Any], ...] = ()  # every question to the language model and its answer
    verified: tuple[Verified, ...] = ()  # the answers to the second questions
    grounding: dict[str, Grounded] = {}  # what the text-to-image model generates for each phrase
    scores: tuple[Score, ...] = ()  # by earlier decisions; empty with too few of them
    decisions: tuple[Candidate, ...] = ()  # the outcome of each phrase, and why
    warnings: tuple[str, ...] = ()  # what the person who asked should know
    concepts: dict[str, Any] = {}  # the concept set, with the keys of its YAML form

    @field_serializer("request")
    def _request(self, request: Request) -> dict[str, Any]:
        # a set has no order of its own, and the same record must be the same file
        return {**vars(request), "avoid": sorted(request.avoid), "examples": [vars(e) for e in request.examples]}

    @field_serializer("proposed", "decisions")
    def _candidates(self, candidates: tuple[Candidate, ...], info: FieldSerializationInfo) -> list[dict[str, Any]]:
        return [{name: getattr(candidate, name) for name in _KEYS[info.field_name]} for candidate in candidates]

    @property
    def concept_set(self) -> ConceptSet:
        """The concept set that was made.

        Raises:
            ConceptError: someone has edited it into one that can't be used.
        """
        (concepts,) = parse_json_sets(json.dumps(self.concepts), "suggest.json")
        return concepts

    @property
    def proposals(self) -> list[Candidate]:
        """The phrases as they were chosen for the set, with their measurements."""
        closeness = {fold(text): measured.closeness for text, measured in self.grounding.items()}
        return [replace(c, closeness=closeness.get(fold(c.text))) for c in self.decisions if c.outcome != "dropped"]


def plain_concepts(concepts: ConceptSet) -> dict[str, Any]:
    """The set as a record stores it: with the keys of its YAML form."""
    return json.loads(dump_json(concepts))


def write_record(path: str | Path, record: Record) -> None:
    """Write a record as JSON, atomically.

    Raises:
        RunError: the file can't be written.
    """
    write_json(Path(path), record.model_dump())


def read_record(path: str | Path) -> Record:
    """Read a record.

    Raises:
        SuggestError: the file is missing or unreadable, or not a record; every fault is named.
    """
    fault = f"{path} is not a record of a suggestion"
    try:
        record = Record.model_validate(json.loads(read_bytes(Path(path))))
        _ = record.concept_set  # read now, so that its faults are those of the file
        return record
    except ConceptError as error:
        raise SuggestError(f"{path}: the concept set in it can't be used. {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise SuggestError(f"{fault}: {'; '.join(faults[:5])}{more}. Make one: crce suggest CONCEPT") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SuggestError(f"{fault}: it can't be read ({error}). Make one: crce suggest CONCEPT") from error


def record_path(path: Path) -> Path:
    """The path of a concept set's record: `cat.suggest.json` beside `cat.yaml`."""
    return path.with_suffix(SUFFIX)


def record_beside(path: Path, concepts: ConceptSet) -> Record | None:
    """The record of the suggestion that made this set, if it is beside the set's file, or in its run, and readable."""
    beside = record_path(path)
    if (path.parent / "run.json").is_file():
        own = path.with_name(f"suggest-{slug(concepts.target)}.json")
        beside = own if own.is_file() else path.with_name(IN_RUN)
    if not beside.is_file():
        return None
    try:
        record = read_record(beside)
    except SuggestError as error:
        logger.warning("The record beside the set is not used: %s", error)
        return None
    return record if fold(record.concept_set.target) == fold(concepts.target) else None


def write_records(folder: Path, records: Sequence[Record]) -> None:
    """Write the records of a run's suggested sets into its folder: suggest.json, or one suggest-TARGET.json for each.

    Raises:
        RunError: a file can't be written.
    """
    for record in records:
        several = free_file(folder / f"suggest-{slug(record.concept_set.target)}", ".json")
        write_record(several if len(records) > 1 else folder / IN_RUN, record)
