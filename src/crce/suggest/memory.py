"""Decisions of a person about proposed phrases, remembered from one suggestion to the next.

The file is a log in JSON lines, one per user: `$CRCE_DECISIONS`, else `decisions.jsonl` in the user's data folder.
Nothing in it is ever rewritten. A line either records a decision or takes back the newest one about the same phrase
(`"accepted": null`), after which the one before it is valid again; that is how an undo reaches the file. A line that a
crash left unfinished is skipped.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, NamedTuple

from platformdirs import user_data_path
from pydantic import AfterValidator, Field, StrictBool, TypeAdapter, ValidationError

from crce.concepts.concept_set import KINDS, Kind, fold, text_fault, tidy
from crce.concepts.faults import did_you_mean
from crce.errors import SuggestError, first_line
from crce.files import append_line, read_bytes, write_text
from crce.suggest.candidates import SIDES, Candidate, Example, Side
from crce.suggest.phrases import name_of


logger = logging.getLogger(__name__)

Key = tuple[str, str, Side, str]


def _text(value: str) -> str:
    if reason := text_fault(value):
        raise ValueError(reason)
    return tidy(value)


Text = Annotated[str, AfterValidator(_text)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, le=1 + 1e-6)]  # a cosine may be rounded to above 1
Share = Annotated[Number, Field(ge=-1e-6)]


@dataclass(frozen=True)
class Decision:
    """A person's answer to one phrase on one side.

    Attributes:
        target: what the phrase was proposed for.
        accepted: whether the phrase belongs on that side.
        certainty: the certainty it was proposed with, not the one that the person set.
        source: who proposed it for this side; "user" if the person did.
        similarity, closeness: as of a `Candidate`; None if not measured.
        sense: which meaning of the target, as in "bat (animal)".
        when: the time of the decision, ISO 8601; ignored in comparisons.
    """

    target: Text
    kind: Kind
    text: Text
    side: Side
    accepted: StrictBool
    certainty: Share
    source: Text
    similarity: Annotated[Number, Field(ge=-1 - 1e-6)] | None = None
    closeness: Share | None = None
    sense: Text | None = None
    when: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"), compare=False)

    @property
    def key(self) -> Key:
        """What the decision is about; of two decisions about the same, the newer is valid."""
        return name_of(self.target), fold(self.sense or ""), self.side, fold(self.text)


_DECISION = TypeAdapter(Decision)


class Imported(NamedTuple):
    """How many decisions of a file are new, were known already, and contradict the user's own (which are kept)."""

    added: int
    known: int
    contradicting: int


class Memory:
    """The decisions of one user, in the file at `path`, which need not exist yet; None means the user's own."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get("CRCE_DECISIONS") or user_data_path("crce") / "decisions.jsonl")

    def decisions(self) -> list[Decision]:
        """Every valid decision, oldest first.

        Raises:
            SuggestError: a line can't be read; the message names it. Nothing is changed.
        """
        stacks: dict[Key, list[tuple[int, Decision]]] = {}
        for number, decision, taken_back in self._read():
            stack = stacks.setdefault(decision.key, [])
            if not taken_back:
                stack.append((number, decision))
            elif stack:
                stack.pop()
        newest = dict(stack[-1] for stack in stacks.values() if stack)
        return [newest[number] for number in sorted(newest)]

    def rejected(self, target: str, sense: str | None = None) -> frozenset[tuple[Side, str]]:
        """The pairs (side, phrase) that the person rejected for this target, in this sense or without one."""
        return frozenset((d.side, d.text) for d in self._about(target, sense) if not d.accepted)

    def accepted(self, target: str, sense: str | None = None) -> tuple[Candidate, ...]:
        """The phrases that the person accepted or wrote for this target, in this sense or without one."""
        why = "accepted in an earlier review"
        known = (d for d in self._about(target, sense) if d.accepted)
        return tuple(Candidate(d.text, d.side, d.certainty, d.source, why, held_out=False) for d in known)

    def _about(self, target: str, sense: str | None) -> Iterator[Decision]:
        """The valid decisions about a target, also as a plural."""
        senses = {"", fold(sense or "")}
        return (d for d in self.decisions() if d.key[0] == name_of(target) and d.key[1] in senses)

    def examples(self, kind: Kind, n: int = 6) -> tuple[Example, ...]:
        """Up to `n` decisions about targets of this kind, the newest, with every sort of answer among them."""
        groups: dict[tuple[Side, bool], list[Decision]] = {(s, a): [] for a in (True, False) for s in SIDES}
        for decision in reversed(self.decisions()):
            if decision.kind == kind:
                groups[decision.side, decision.accepted].append(decision)
        turns = [d for turn in zip_longest(*groups.values()) for d in turn if d is not None]
        return tuple(Example(d.target, d.text, d.side, d.accepted) for d in turns[: max(n, 0)])

    def update(self, before: Iterable[Decision], after: Iterable[Decision]) -> None:
        """Record that the decisions of a review changed from `before` to `after`: what is missing is taken back.

        Raises:
            RunError: the file can't be written.
        """
        old, new = ({d.key: d for d in decisions} for decisions in (before, after))
        lines = [_line(d, taken_back=True) for key, d in old.items() if new.get(key) != d]
        lines += [_line(d) for key, d in new.items() if old.get(key) != d]
        self._append(lines)

    def export(self, path: Path | str) -> int:
        """Write every valid decision to a new file that `import_` reads, and return their number.

        Raises:
            SuggestError: the file exists, or a line of the memory can't be read.
            RunError: the file can't be written.
        """
        if Path(path).exists():
            raise SuggestError(f"{path} exists, and may hold what is nowhere else. Choose another name, or delete it.")
        decisions = self.decisions()
        write_text(Path(path), "".join(map(_line, decisions)))
        return len(decisions)

    def import_(self, path: Path | str) -> Imported:
        """Add the decisions of an exported file; one that contradicts a decision of the user is not added.

        Raises:
            SuggestError: the file is missing, or a line of it or of the memory can't be read (then nothing is added).
            RunError: the memory can't be written.
        """
        if not Path(path).is_file():
            raise SuggestError(f"There is no file {path}. Name a file that `crce feedback --export` wrote.")
        own = {d.key: d for d in self.decisions()}
        given = Memory(path).decisions()
        added = [d for d in given if d.key not in own]
        contradicting = sum(d.key in own and own[d.key].accepted != d.accepted for d in given)
        self._append(map(_line, added))
        return Imported(len(added), len(given) - len(added) - contradicting, contradicting)

    def forget(self) -> None:
        """Delete the file, if there is one.

        Raises:
            OSError: it can't be deleted.
        """
        self.path.unlink(missing_ok=True)

    def _append(self, lines: Iterable[str]) -> None:
        """Add whole lines in one write, so that two reviews at a time do not mix theirs."""
        if text := "".join(lines):
            append_line(self.path, text.removesuffix("\n"))

    def _bytes(self) -> bytes:
        try:
            return read_bytes(self.path) if self.path.exists() else b""
        except OSError as error:
            raise SuggestError(f"Cannot read {self.path}: {first_line(error)}.") from error

    def _read(self) -> Iterator[tuple[int, Decision, bool]]:
        """The lines of the file: number, decision, and whether it takes the decision back."""
        for number, raw in enumerate(self._bytes().splitlines(), start=1):
            if not raw.strip():
                continue
            if raw.startswith(b"{") and b"}" not in raw:  # only the beginning of an object
                logger.warning("%s:%d: this line was torn while it was written, and is skipped.", self.path, number)
                continue
            try:
                value = json.loads(raw.decode("utf-8-sig"), parse_constant=lambda name: math.nan)
                taken_back = isinstance(value, dict) and value.get("accepted", 0) is None
                decision = _DECISION.validate_python({**value, "accepted": False} if taken_back else value)
                if "when" not in value:  # a new decision is made now, one that is read was not
                    raise ValueError("has no when")
            except (ValueError, RecursionError) as error:
                cure = "Correct or delete this line; the others are kept as they are."
                raise SuggestError(f"{self.path}:{number}: {_fault(error)}. {cure}") from error
            yield number, decision, taken_back


def _line(decision: Decision, *, taken_back: bool = False) -> str:
    value = {name: v for name, v in asdict(decision).items() if v is not None}
    return json.dumps(value | ({"accepted": None} if taken_back else {}), ensure_ascii=False) + "\n"


def _fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        if missing := [str(each["loc"][0]) for each in error.errors() if each["type"] == "missing"]:
            return f"has no {' and no '.join(missing)}"
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else "the line"
        hint = did_you_mean(str(first["input"]), KINDS) if name == "kind" else ""
        return f"{name} is {first['input']!r:.60}: {first['msg'].rstrip('.')}{hint.rstrip('.')}"
    return f"is not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else str(error)
