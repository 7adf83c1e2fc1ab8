"""Faults of a concept file with their places; they are collected and shown together."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from crce.errors import ConceptError


MOST_SHOWN = 50  # faults of a file in one error

# the concept can't be used; it was read in a way that loses nothing; it was kept unchanged, and is worth a look
Outcome = Literal["error", "repaired", "note"]


@dataclass(frozen=True)
class Fault:
    """One oddity of a concept file."""

    file: str
    text: str  # the given value, the allowed ones, and the cure
    outcome: Outcome = "error"
    line: int | None = None  # from 1; None where the format has no lines of its own (JSON)
    concept: str | None = None  # the target of the set
    field: str | None = None  # the key, e.g. "train-coref"
    index: int | None = None  # in that field's list, from 0

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.file}:{self.line}: {self.text}"
        field = self.field if self.index is None else f"{self.field}[{self.index}]"
        return ": ".join(part for part in (self.file, self.concept, field, self.text) if part)


def error_from(file: str, faults: Iterable[Fault]) -> ConceptError:
    """One error that lists every fault, in the order of the file."""
    ordered = sorted(faults, key=lambda fault: fault.line or 0)
    if len(ordered) == 1:
        return ConceptError(str(ordered[0]))
    which = "" if len(ordered) <= MOST_SHOWN else f", of which the first {MOST_SHOWN} are"
    return ConceptError("\n  ".join([f"{file} has {len(ordered)} faults{which}:", *map(str, ordered[:MOST_SHOWN])]))


def listed(names: Sequence[object], most: int) -> str:
    """Names in a sentence; of many the first, and how many more there are."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def likely_slip(given: str, names: Iterable[str], letters: int = 1) -> str | None:
    """The name of which `given` is a slip: one or so many `letters` off, or of a name under five letters one letter
    that was typed twice, or two neighbours that changed places."""
    wanted = given.casefold()
    near = {name.casefold(): name for name in names if abs(len(name) - len(given)) <= letters}
    if len(given) < 5:
        slips = [wanted[:i] + wanted[i + 1 :] for i in range(1, len(wanted)) if wanted[i] == wanted[i - 1]]
        slips += [wanted[: i - 1] + wanted[i] + wanted[i - 1] + wanted[i + 1 :] for i in range(1, len(wanted))]
        return next((near[slip] for slip in slips if slip in near and slip != wanted), None)
    found = difflib.get_close_matches(wanted, near, n=1, cutoff=1 - (0.7 + letters / 2) / len(given))
    return near[found[0]] if found else None


def did_you_mean(given: str, allowed: Sequence[str]) -> str:
    """A sentence to append to a message, e.g. " Did you mean 'corefs'?", or nothing when no word is near."""
    by_folded = {word.casefold(): word for word in allowed}
    near = difflib.get_close_matches(given[:100].casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""
