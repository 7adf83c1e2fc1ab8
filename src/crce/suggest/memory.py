"""What a person decided about proposed phrases, remembered from one suggestion to the next.

The file is a log in JSON lines, one per user: `$CRCE_DECISIONS`, else `decisions.jsonl` in the user's data folder.
Nothing in it is ever rewritten. A line either records a decision or takes back the newest one about the same phrase
(`"accepted": null`), after which the one before it stands again; that is how an undo reaches the file. A last line
that a crash tore is skipped, and marked as torn when the next one is written.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from crce.concepts.concept_set import Kind, fold
from crce.errors import SuggestError
from crce.files import write_text
from crce.suggest.candidates import SIDES, Example, Side
from crce.suggest.feedback import Decision, Key


logger = logging.getLogger(__name__)

_TORN = b"  # torn"  # stands at the end of what is left of a line


class Imported(NamedTuple):
    """How many decisions of a file are new, were held already, and contradict one's own (which stay)."""

    added: int
    known: int
    contradicting: int


class Memory:
    """The decisions of one user.

    Args:
        path: the file; None means `$CRCE_DECISIONS`, else `decisions.jsonl` in the user's data folder. It need not
            exist yet.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        if path is None:
            path = os.environ.get("CRCE_DECISIONS") or None
        if path is None:
            from platformdirs import user_data_path

            path = user_data_path("crce") / "decisions.jsonl"
        self.path = Path(path)

    def decisions(self) -> list[Decision]:
        """Every decision that stands, oldest first.

        Raises:
            SuggestError: a line can't be read; the message names it. Nothing is changed.
        """
        return _standing(self.path)

    def rejected(self, target: str, sense: str | None = None) -> frozenset[tuple[Side, str]]:
        """The pairs (side, phrase) that the person rejected for this target, each phrase as it was written.

        A rejection for one sense of the target says nothing about its other senses.
        """
        senses = {"", fold(sense or "")}
        return frozenset(
            (d.side, d.text)
            for d in self.decisions()
            if not d.accepted and d.key[0] == fold(target) and d.key[1] in senses
        )

    def examples(self, kind: Kind, n: int = 6) -> tuple[Example, ...]:
        """Up to `n` decisions about targets of this kind, the newest, with every sort of answer among them."""
        groups: dict[tuple[Side, bool], list[Decision]] = {
            (side, accepted): [] for accepted in (True, False) for side in SIDES
        }
        for decision in reversed(self.decisions()):
            if decision.kind == kind:
                groups[decision.side, decision.accepted].append(decision)
        longest = max(map(len, groups.values()))
        turns = [group[i] for i in range(longest) for group in groups.values() if i < len(group)]
        return tuple(Example(d.target, d.text, d.side, d.accepted) for d in turns[: max(n, 0)])

    def update(self, before: Iterable[Decision], after: Iterable[Decision]) -> None:
        """Record that the decisions of a review went from `before` to `after`: what vanished is taken back.

        Raises:
            SuggestError: the file can't be written.
        """
        old, new = ({d.key: d for d in decisions} for decisions in (before, after))
        lines = [_line(d, taken_back=True) for key, d in old.items() if new.get(key) != d]
        lines += [_line(d) for key, d in new.items() if old.get(key) != d]
        self._append(lines)

    def export(self, path: Path | str) -> int:
        """Write every decision that stands to a new file that `import_` reads, and say how many.

        Raises:
            SuggestError: the file exists, or a line of the memory can't be read.
            RunError: the file can't be written.
        """
        path = Path(path)
        if path.exists():
            raise SuggestError(f"{path} exists, and may hold what is nowhere else. Choose another name, or delete it.")
        decisions = self.decisions()
        write_text(path, "".join(_line(d) for d in decisions))
        return len(decisions)

    def import_(self, path: Path | str) -> Imported:
        """Add the decisions of an exported file; where one contradicts a decision held already, the latter stays.

        Raises:
            SuggestError: the file is missing, or one of its lines can't be read (then nothing is added), or the
                memory can't be read or written.
        """
        path = Path(path)
        if not path.is_file():
            raise SuggestError(f"There is no file {path}. Name a file that `crce feedback --export` wrote.")
        own = {d.key: d for d in self.decisions()}
        given = _standing(path)
        added = [d for d in given if d.key not in own]
        contradicting = sum(d.key in own and own[d.key].accepted != d.accepted for d in given)
        self._append([_line(d) for d in added])
        return Imported(len(added), len(given) - len(added) - contradicting, contradicting)

    def forget(self) -> None:
        """Delete the file; none is fine.

        Raises:
            SuggestError: it can't be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise SuggestError(
                f"Cannot delete {self.path}: {error.strerror or error}. Check its permissions."
            ) from error

    def _append(self, lines: list[str]) -> None:
        """Add whole lines in one write, so that two reviews at a time do not mix theirs."""
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                text = "".join(lines)
                if size := file.seek(0, os.SEEK_END):
                    file.seek(size - 1)
                    if file.read(1) != b"\n":  # a line torn by a crash must not swallow the next one
                        file.seek(0)
                        last = file.read().splitlines()[-1]
                        text = (_TORN.decode() if _is_torn(last) else "") + "\n" + text
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SuggestError(
                f"Cannot write {self.path}: {error.strerror or error}. "
                "Free some space, or set CRCE_DECISIONS to a file that can be written."
            ) from error


def _line(decision: Decision, *, taken_back: bool = False) -> str:
    value = {name: v for name, v in asdict(decision).items() if v is not None}
    if taken_back:
        value["accepted"] = None
    return json.dumps(value, ensure_ascii=False) + "\n"


def _standing(path: Path) -> list[Decision]:
    """The newest decision about each phrase of a log that was not taken back, oldest first."""
    stacks: dict[Key, list[tuple[int, Decision]]] = {}
    for number, decision, taken_back in _read(path):
        stack = stacks.setdefault(decision.key, [])
        if not taken_back:
            stack.append((number, decision))
        elif stack:
            stack.pop()
    newest = sorted((stack[-1] for stack in stacks.values() if stack), key=lambda item: item[0])
    return [decision for _, decision in newest]


def _read(path: Path) -> Iterator[tuple[int, Decision, bool]]:
    """The lines of a log: number, decision, and whether it takes the decision back."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SuggestError(f"Cannot read {path}: {error.strerror or error}. Check the file's permissions.") from error
    lines = data.splitlines()
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        unended = number == len(lines) and not data.endswith((b"\n", b"\r"))
        if raw.endswith(_TORN) or (unended and _is_torn(raw)):
            logger.warning("%s:%d: this line was torn while it was written, and is skipped.", path, number)
            continue
        try:
            decision, taken_back = _parsed(raw)
        except (ValueError, RecursionError, SuggestError) as error:
            what = f"is not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else str(error)
            raise SuggestError(
                f"{path}:{number}: {what.rstrip('.')}. Mend or delete this line; the others stay as they are."
            ) from error
        yield number, decision, taken_back


def _is_torn(raw: bytes) -> bool:
    """Whether a line is the beginning of one: JSON that ends too early, perhaps amid a character."""
    if not raw.startswith(b"{"):
        return False
    try:
        json.loads(raw.decode("utf-8", "ignore"))
    except json.JSONDecodeError as error:
        return error.msg != "Extra data"  # that is a whole line with something after it
    except RecursionError:
        return False
    return False


def _parsed(raw: bytes) -> tuple[Decision, bool]:
    value = json.loads(raw.decode("utf-8-sig"), parse_constant=lambda name: math.nan)
    if not isinstance(value, dict):
        raise ValueError("holds no decision")
    known = Decision.__dataclass_fields__
    needed = ("target", "kind", "text", "side", "accepted", "certainty", "source", "when")
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"has no {' and no '.join(missing)}")
    # a later version may say more about a decision: what it adds is no reason to refuse the rest
    value = {name: v for name, v in value.items() if name in known}
    taken_back = value["accepted"] is None
    return Decision(**{**value, "accepted": False if taken_back else value["accepted"]}), taken_back
