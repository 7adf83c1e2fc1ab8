"""Concept sets: a target to erase, its corefs and its retains."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from crce.concepts.faults import did_you_mean
from crce.errors import HIDDEN, ConceptError, escaped, shown


Kind = Literal["object", "character", "person", "style", "explicit", "other"]
KINDS: tuple[str, ...] = get_args(Kind)
MOST_PHRASES = 5000  # of a set; those that people write have a hundred
LONGEST_PHRASE = 4000  # characters; text encoders read the first few hundred
CERTAINTY_WORDS: dict[str, float] = {"Very High": 1.0, "High": 0.8, "Normal": 0.6, "Low": 0.4, "Very Low": 0.2}

_PLURAL = re.compile(r"(?<=\w\w)(?:(?<=ss|sh|ch|ns)es|(?<=x)es|(?<=[^o]us)es|(?<![su])s)$")


@dataclass(frozen=True)
class Related:
    """A coref (another way to call the target) or a retain (a near but different thing).

    Attributes:
        text: the phrase as it appears in a prompt; runs of white space become one space.
        certainty: how sure its source is that it belongs on its side, in [0, 1]; the weight of its loss term.
        source: who proposed it, e.g. "user", "atlas", "corefconcept".
        held_out: kept out of training, used only to evaluate.

    Raises:
        ConceptError: the text is empty, or the certainty is not a number in [0, 1].
    """

    text: str
    certainty: float = 1.0
    source: str = "user"
    held_out: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _checked_text(self.text, "a coref or retain"))
        object.__setattr__(self, "source", _checked_text(self.source, f"the source of {self.text!r}"))
        if isinstance(self.certainty, str):
            raise ConceptError(f"{self.text!r} has certainty {self.certainty!r}. Use a number from 0 to 1.")
        try:
            object.__setattr__(self, "certainty", parse_certainty(self.certainty))
        except ValueError as error:
            raise ConceptError(f"{self.text!r}: {error}") from error


@dataclass(frozen=True)
class ConceptSet:
    """A target with its corefs and retains.

    Corefs and retains keep their order, training phrases before held-out ones.

    Attributes:
        target: the phrase to erase.
        kind: what sort of thing the target is.
        corefs: phrases erased with the target.
        retains: phrases kept while the target is erased.
        erase_from: erase the target only from this wider prompt (ESD's `erase_from`).
        anchor: what the target becomes; None means the empty prompt.

    Raises:
        ConceptError: a phrase is repeated or on both sides, the target is among its corefs or retains, ...; the
            message lists every fault.
    """

    target: str
    kind: Kind = "object"
    corefs: tuple[Related, ...] = ()
    retains: tuple[Related, ...] = ()
    erase_from: str | None = None
    anchor: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _checked_text(self.target, "the target"))
        for name in ("erase_from", "anchor"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _checked_text(getattr(self, name), name))
        placed = []
        for side in ("coref", "retain"):
            for i, related in enumerate(getattr(self, f"{side}s")):
                if not isinstance(related, Related):
                    cure = "Use Related('a phrase', certainty=0.8)."
                    raise ConceptError(f"{side}s[{i}] of '{self.target}' is {related!r}. {cure}")
                placed.append(Placed(side, related, f"{side}s[{i}]"))
        faults = [] if self.kind in KINDS else [f"kind {unknown_kind(self.kind)}"]
        clashing = ((placed[clash.at], clash.text) for clash in clashes(self.target, placed))
        faults += [f"{phrase.place} {phrase.related.text!r} {text}" for phrase, text in clashing]
        if direction := direction_fault(self.target, self.erase_from, self.anchor, placed):
            faults.append(direction)
        if faults:
            raise ConceptError("\n  ".join([f"The concept set of '{self.target}' can't be used:", *faults]))
        for name in ("corefs", "retains"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name), key=lambda r: r.held_out)))

    @property
    def train_corefs(self) -> tuple[Related, ...]:
        return tuple(r for r in self.corefs if not r.held_out)

    @property
    def train_retains(self) -> tuple[Related, ...]:
        return tuple(r for r in self.retains if not r.held_out)

    @property
    def held_out_corefs(self) -> tuple[Related, ...]:
        return tuple(r for r in self.corefs if r.held_out)

    @property
    def held_out_retains(self) -> tuple[Related, ...]:
        return tuple(r for r in self.retains if r.held_out)

    def train(self, side: Literal["coref", "retain"], text: str) -> ConceptSet:
        """The set with a phrase trained on this side: one that it has is no longer held out, another is added."""
        own = {fold(r.text): r for r in (self.corefs if side == "coref" else self.retains)}
        trained = replace(own.pop(fold(text), Related(text)), held_out=False)
        related = (*own.values(), trained)
        return replace(self, corefs=related) if side == "coref" else replace(self, retains=related)


def fold(text: str) -> str:
    """The form in which two phrases count as the same: case, spacing and Unicode composition ignored."""
    return unicodedata.normalize("NFC", tidy(text)).casefold()


def name_key(text: str) -> str:
    """The form in which two texts are one name: as `fold`, and accents, articles, hyphens, spaces, plurals ignored."""
    plain = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", fold(text))))
    words = re.findall(r"[^\W_]+", re.sub(r"^(?:an?|the) (?=\S)|['’`]", "", plain))
    return "".join(_PLURAL.sub("", re.sub(r"(?<=\w\w)ies?$", "y", word)) for word in words) or fold(text)


def tidy(text: str) -> str:
    """`text` with every run of white space as one space, and none at the ends."""
    return " ".join(text.split())


def text_fault(text: str) -> str | None:
    """Why `text` can't be a phrase, or None."""
    tidied = tidy(text)
    if not tidied:
        return "is empty. Write the phrase as it would appear in a prompt, or delete the entry."
    if len(tidied) > LONGEST_PHRASE:
        return f"{shown(text)} has {len(tidied)} characters. Use {LONGEST_PHRASE} at most."
    if found := HIDDEN.search(tidied):
        what = "a control" if unicodedata.category(found[0]) in ("Cc", "Cs") else "an invisible"
        return f"{ascii(tidied)} contains {what} character ({escaped(found[0])}). Type the phrase again."
    if not any(unicodedata.category(c)[0] in "LNPS" for c in tidied):
        return f"{ascii(tidied)} has no letter, number or sign. Type the phrase again."
    return None


def parse_certainty(value: object) -> float:
    """The number in [0, 1] behind a certainty given as a word (any case) or a number.

    Raises:
        ValueError: neither; the message names the value and the allowed ones.
    """
    allowed = f"Use {', '.join(CERTAINTY_WORDS)}, or a number from 0 to 1."
    if isinstance(value, str):
        words = {fold(word): number for word, number in CERTAINTY_WORDS.items()}
        if fold(value) in words:
            return words[fold(value)]
        hint = did_you_mean(value, list(CERTAINTY_WORDS))
        raise ValueError(f"certainty {shown(value)} is not known. {allowed}{hint}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"certainty {shown(value)} is neither a word nor a number. {allowed}")
    if not 0 <= value <= 1:
        raise ValueError(f"certainty {shown(value)} is outside [0, 1]. {allowed}")
    return float(value)


def certainty_word(certainty: float) -> str | float:
    """The word for exactly this certainty, else the number itself."""
    return next((word for word, number in CERTAINTY_WORDS.items() if number == certainty), certainty)


def unknown_kind(given: str) -> str:
    """The message that `given` is no kind, with the allowed ones and the nearest."""
    return f"{shown(given)} is not known. Use one of: {', '.join(KINDS)}.{did_you_mean(str(given), KINDS)}"


class Placed(NamedTuple):
    """A related phrase with its side and the place it was read from, e.g. "line 12"."""

    side: Literal["coref", "retain"]
    related: Related
    place: str


class Clash(NamedTuple):
    """The phrase at position `at` can't stay where it is."""

    at: int
    sort: Literal["duplicate", "both sides", "target", "too many"]
    text: str


def clashes(target: str | None, placed: Sequence[Placed]) -> Iterator[Clash]:
    """Every phrase that repeats an earlier one, on its own side or the other, or the target (None: not known)."""
    first: dict[str, Placed] = {}
    if len(placed) > MOST_PHRASES:
        yield Clash(MOST_PHRASES, "too many", f"is one of {len(placed)} phrases. Keep {MOST_PHRASES} at most.")
        return
    for i, (side, related, _) in enumerate(placed):
        key = fold(related.text)
        if target is not None and (key == fold(target) or (side == "retain" and name_key(key) == name_key(target))):
            why = "which is erased anyway" if side == "coref" else "and can't be erased and kept"
            yield Clash(i, "target", f"is the target itself, {why}. Delete it.")
            continue
        earlier = first.setdefault(key, placed[i])
        if earlier is placed[i]:
            continue
        if earlier.side != side:
            text = f"is also a {earlier.side} ({earlier.place}) and can't be erased and kept. Delete it on one side."
            yield Clash(i, "both sides", text)
        elif earlier.related.held_out != related.held_out:
            text = f"is both a training and a held-out {side} ({earlier.place}). "
            yield Clash(i, "duplicate", text + "Keep one: what is held out is never trained.")
        else:
            yield Clash(i, "duplicate", f"is already a {side} ({earlier.place}). Keep one of them.")


def common_kind(sets: Iterable[ConceptSet]) -> str | None:
    """The kind of all the sets; None if they differ, or there are none."""
    kinds = {concepts.kind for concepts in sets}
    return kinds.pop() if len(kinds) == 1 else None


def target_names(sets: Sequence[ConceptSet]) -> str:
    """The targets in words: "cat, dog", or "cat, dog, fox, 2 more"."""
    more = [f"{len(sets) - 3} more"] if len(sets) > 3 else []
    return ", ".join([concepts.target for concepts in sets[:3]] + more)


def direction_fault(
    target: str | None, erase_from: str | None, anchor: str | None, placed: Sequence[Placed]
) -> str | None:
    """Why `erase_from` and `anchor` can't be used with this target and these phrases, or None."""
    if erase_from is not None and anchor is not None:
        return (
            f"erase_from {erase_from!r} and anchor {anchor!r} can't be used together: the first says where the target "
            "is erased, the second what it becomes. Keep one."
        )
    erased = {fold(text) for text in (target or "", *(p.related.text for p in placed if p.side == "coref"))}
    if anchor is not None and fold(anchor) in erased:
        return f"anchor {anchor!r} is itself erased (it is the target or a coref). Name something that is kept."
    return None


def _checked_text(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise ConceptError(f"{what} is {text!r}, a {type(text).__name__}. Use a str.")
    if reason := text_fault(text):
        raise ConceptError(f"{what} {reason}")
    return tidy(text)
