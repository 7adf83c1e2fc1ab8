"""Drafts: concept sets that a person is looking over, before they are erased.

A draft is a folder: draft.json with what was asked and every command of the review so far, start.yaml with the set as
it was suggested, and its record beside it.
"""

import logging
import secrets
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crce.cli.commands import apply, parse
from crce.concepts import parse_concepts, read_concepts, write_concepts
from crce.concepts.concept_set import text_fault
from crce.concepts.library import atlas_entry
from crce.errors import ConceptError, ConfigError, CRCEError
from crce.files import read_json, write_json
from crce.suggest.memory import Memory
from crce.suggest.record import record_beside, record_path, write_record
from crce.suggest.review import Review


logger = logging.getLogger(__name__)

RECORD, START = "draft.json", "start.yaml"


@dataclass(frozen=True)
class Draft:
    """A concept set in the making."""

    name: str  # of its folder
    concept: str  # as the user typed it
    kind: str | None  # None leaves it to the atlas or the suggester
    model: str  # the text-to-image model that it is meant for
    suggester: str | None  # None takes the default
    commands: tuple[str, ...] = ()  # of the review
    error: str | None = None  # why there is no set

    __pydantic_config__ = {"extra": "forbid"}  # of a record in a file


class Drafts:
    """The drafts of one folder of runs."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._lock = threading.RLock()
        self._working: set[str] = set()

    def create(self, concept: str, *, kind: str | None, model: str, suggester: str | None) -> Draft:
        """A draft of what is called `concept`; its set comes from the atlas, or is being suggested."""
        draft = self._new(concept, kind=kind, model=model, suggester=suggester)
        entry = atlas_entry(concept) if suggester is None and kind is None else None
        if entry is not None:
            write_concepts(self.folder(draft) / START, entry)
        else:
            self._suggest(draft)
        return draft

    def upload(self, text: str, name: str, *, model: str) -> Draft:
        concepts = parse_concepts(text, name)
        draft = self._new(concepts.target, kind=concepts.kind, model=model, suggester=None)
        write_concepts(self.folder(draft) / START, concepts)
        return draft

    def get(self, name: str) -> Draft:
        """The draft of a name; a ConfigError if there is none."""
        path = self._home / name / RECORD
        if not name.isalnum() or not path.is_file():
            raise ConfigError("There is no such draft any more. Start from the concept again.")
        record = read_json(path, Draft, f"Delete {path.parent}.")
        draft = Draft(**{**record, "commands": tuple(record["commands"])})
        if draft.error is None and not (self.folder(draft) / START).is_file():
            self._suggest(draft)  # the server was killed while it waited for the suggestion
        return draft

    def latest(self, most: int) -> list[Draft]:
        """The drafts, the newest first."""
        found: list[Draft] = []
        paths = sorted(self._home.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in paths[:most]:
            with suppress(CRCEError):  # it was deleted meanwhile, or is damaged
                found.append(self.get(path.parent.name))
        return found

    def delete(self, draft: Draft) -> None:
        shutil.rmtree(self.folder(draft), ignore_errors=True)

    def ready(self, draft: Draft) -> bool:
        return (self.folder(draft) / START).is_file()

    def review(self, draft: Draft) -> Review:
        start = self.folder(draft) / START
        concepts = read_concepts(start)
        record = record_beside(start, concepts)
        sense = record.request.sense if record else None
        review = Review.start(concepts, proposals=record.proposals if record else (), sense=sense)
        for command in draft.commands:
            review = apply(review, *parse(command))
        return review

    def obey(self, draft: Draft, command: str) -> Review:
        """Carry out one command of the review, and remember the decision for later suggestions."""
        with self._lock:
            draft = self.get(draft.name)
            before = self.review(draft)
            after = apply(before, *parse(command))
            self._write(replace(draft, commands=(*draft.commands, command)))
            Memory().update(before.decisions(), after.decisions())
            return after

    def save(self, draft: Draft, path: Path) -> None:
        """Write the set as it is now, and the record of its suggestion beside it."""
        concepts = self.review(draft).concepts
        write_concepts(path, concepts)
        if record := record_beside(self.folder(draft) / START, concepts):
            write_record(record_path(path), record)

    def folder(self, draft: Draft) -> Path:
        return self._home / draft.name

    def _new(self, concept: str, **given: Any) -> Draft:
        if reason := text_fault(concept):
            raise ConceptError(f"The concept {reason}")
        draft = Draft(secrets.token_hex(6), concept.strip(), **given)
        self._write(draft)
        return draft

    def _write(self, draft: Draft) -> None:
        write_json(self.folder(draft) / RECORD, asdict(draft))

    def _fail(self, draft: Draft, why: str) -> None:
        with self._lock:
            if (self.folder(draft) / RECORD).is_file():  # else it was deleted meanwhile
                self._write(replace(draft, error=why))

    def _suggest(self, draft: Draft) -> None:
        """Ask for the set of a draft, in a thread, as a language model takes its time."""
        with self._lock:
            if draft.name in self._working:
                return
            self._working.add(draft.name)
        threading.Thread(target=self._work, args=[draft], daemon=True).start()

    def _work(self, draft: Draft) -> None:
        from crce.suggest import suggest

        try:
            suggestion = suggest(draft.concept, kind=draft.kind, suggester=draft.suggester)
            start = self.folder(draft) / START
            if not (self.folder(draft) / RECORD).is_file():  # it was deleted meanwhile
                return
            write_record(record_path(start), suggestion.record)
            write_concepts(start, suggestion.concepts)
        except CRCEError as error:
            self._fail(draft, str(error))
        except Exception as error:
            logger.exception("suggesting for %r failed", draft.concept)
            self._fail(draft, f"unexpected {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._working.discard(draft.name)
