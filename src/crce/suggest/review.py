"""A person's review of a concept set, as pure operations.

    review = Review.start(concepts)
    review = review.reject(3).move(5).set_certainty(2, "High").add("coref", "moggy").undo()
    write_concepts("cat.yaml", review.concepts)
    memory.update([], review.decisions())

Every phrase has a number, which never changes. A rejected one leaves the concept set and can be accepted back. A
change accepts the phrase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import Placed, clashes, fold, parse_certainty
from crce.errors import ConceptError, SuggestError
from crce.suggest.candidates import SIDES, Candidate, Side, sides_of
from crce.suggest.memory import Decision, Key
from crce.suggest.phrases import name_of


@dataclass(frozen=True)
class Entry:
    """One phrase under review."""

    number: int  # by which the person refers to it
    side: Side  # where it is now
    related: Related  # the phrase as it is now
    status: Literal["open", "accepted", "rejected"]  # a rejected phrase is not in the concept set
    proposal: Candidate  # the phrase as it was proposed

    @property
    def as_proposed(self) -> bool:
        """Whether text and side are still those of the proposal."""
        return self.side == self.proposal.side and fold(self.related.text) == fold(self.proposal.text)

    @property
    def candidate(self) -> Candidate:
        """The proposal, or the person's own phrase where text or side were changed."""
        if self.as_proposed:
            return self.proposal
        own = Candidate(self.related.text, self.side, self.related.certainty, "user")
        if fold(own.text) != fold(self.proposal.text):
            return own
        # measured on the words, whatever their side
        return replace(own, similarity=self.proposal.similarity, closeness=self.proposal.closeness)

    def changed(self, *, side: Side | None = None, **values: Any) -> Entry:
        """The phrase with another side or other values, and so accepted; whoever proposed it so is its source."""
        entry = replace(self, side=side or self.side, related=replace(self.related, **values), status="accepted")
        if "text" in values or side:
            source = entry.proposal.source if entry.as_proposed else "user"
            entry = replace(entry, related=replace(entry.related, source=source))
        return entry


@dataclass(frozen=True)
class Review:
    """A concept set under review, with its history; every operation returns a new one.

    Attributes:
        base: the concept set the review started from.
        entries: the phrases, in the order of their numbers.
        sense: which meaning of the target is meant, as in "bat (animal)".
        past: the entries before each operation so far.
        future: the entries that `redo` restores, the next ones last.
    """

    base: ConceptSet
    entries: tuple[Entry, ...]
    sense: str | None = None
    past: tuple[tuple[Entry, ...], ...] = ()
    future: tuple[tuple[Entry, ...], ...] = ()

    @classmethod
    def start(
        cls,
        concepts: ConceptSet,
        *,
        proposals: Iterable[Candidate] = (),
        known: Iterable[Decision] = (),
        sense: str | None = None,
    ) -> Review:
        """A review of `concepts`, numbered from 1; `proposals` say how its phrases were proposed, if that is known.

        A phrase that was accepted by a decision of `known` for this `sense` of the target starts as accepted.
        """
        proposed = {(p.side, fold(p.text)): p for p in proposals}
        accepted = {d.key: d for d in known if d.accepted}
        entries = []
        for number, (side, r) in enumerate(sides_of(concepts), start=1):
            made = Candidate(r.text, side, r.certainty, r.source)
            d = accepted.get((name_of(concepts.target), fold(sense or ""), side, fold(r.text)))
            if d is not None:  # after an earlier review the file contains the changed phrase, and it the proposal
                made = Candidate(r.text, side, d.certainty, d.source, similarity=d.similarity, closeness=d.closeness)
            proposal = proposed.get((side, fold(r.text)), made)
            entries.append(Entry(number, side, r, "open" if d is None else "accepted", proposal))
        return cls(concepts, tuple(entries), sense)

    @property
    def concepts(self) -> ConceptSet:
        """The concept set as it is now: every phrase that is not rejected."""
        corefs, retains = (
            tuple(e.related for e in self.entries if e.side == side and e.status != "rejected") for side in SIDES
        )
        return replace(self.base, corefs=corefs, retains=retains)

    @property
    def open(self) -> tuple[Entry, ...]:
        """The phrases that the person has not decided about."""
        return tuple(e for e in self.entries if e.status == "open")

    def decisions(self) -> list[Decision]:
        """The decisions of the person, one per phrase and side.

        A phrase that was moved or edited gives two: its proposal was rejected, the changed phrase accepted.
        """
        found: dict[Key, Decision] = {}
        for entry in (e for e in self.entries if e.status != "open"):
            p, answers = entry.proposal, [(entry.candidate, entry.status == "accepted")]
            # rewording one's own phrase is no rejection of a proposal
            if not entry.as_proposed and (p.source != "user" or entry.side != p.side):
                answers.append((p, False))
            for c, accepted in answers:
                measured = (c.certainty, c.source, c.similarity, c.closeness)
                d = Decision(self.base.target, self.base.kind, c.text, c.side, accepted, *measured, self.sense)
                # a phrase of the set wins over a rejected one of the same words
                if accepted or d.key not in found:
                    found[d.key] = d
        return list(found.values())

    def accept(self, *numbers: int) -> Review:
        """Keep these phrases on their side; rejected ones come back."""
        return self._each(numbers, lambda e: replace(e, status="accepted"), revive=True)

    def reject(self, *numbers: int) -> Review:
        """Take these phrases out of the concept set."""
        return self._each(numbers, lambda e: replace(e, status="rejected"), revive=True)

    def move(self, *numbers: int) -> Review:
        """Put these phrases on the other side, with the certainty they have."""
        return self._each(numbers, lambda e: e.changed(side="retain" if e.side == "coref" else "coref"))

    def edit(self, number: int, text: str) -> Review:
        """Give a phrase other words."""
        return self._each([number], lambda e: e.changed(text=text))

    def set_certainty(self, number: int, certainty: float | str) -> Review:
        """Give a phrase another certainty, as a word or a number in [0, 1].

        Raises:
            ConceptError: neither.
        """
        value = _certainty(certainty)
        return self._each([number], lambda e: e.changed(certainty=value))

    def hold_out(self, *numbers: int) -> Review:
        """Keep these phrases out of training: they are used to evaluate."""
        return self._each(numbers, lambda e: e.changed(held_out=True))

    def train(self, *numbers: int) -> Review:
        """Use these phrases in training."""
        return self._each(numbers, lambda e: e.changed(held_out=False))

    def add(self, side: Side, text: str, certainty: float | str = 1.0, *, held_out: bool = False) -> Review:
        """Add a phrase of the person's own; it gets the next number.

        Raises:
            ConceptError: the text or the certainty can't be used, or the phrase is in the set already.
            SuggestError: there is no such side.
        """
        if side not in SIDES:
            raise SuggestError(f"There is no side {side!r}. Use one of: {', '.join(SIDES)}.")
        related = Related(text, _certainty(certainty), "user", held_out)
        proposal = Candidate(related.text, side, related.certainty, related.source)
        entry = Entry(len(self.entries) + 1, side, related, "accepted", proposal)
        for e in self.entries:
            if e.status == "rejected" and e.side == side and fold(e.related.text) == fold(related.text):
                raise ConceptError(f"'{related.text}' is number {e.number}, rejected. Accept {e.number} instead.")
        return self._with((*self.entries, entry))

    def undo(self) -> Review:
        """The review before its last operation.

        Raises:
            SuggestError: there was none.
        """
        if not self.past:
            raise SuggestError("There is nothing to undo.")
        return replace(self, entries=self.past[-1], past=self.past[:-1], future=(*self.future, self.entries))

    def redo(self) -> Review:
        """The review before the last `undo`.

        Raises:
            SuggestError: nothing was undone since the last operation.
        """
        if not self.future:
            raise SuggestError("There is nothing to redo.")
        return replace(self, entries=self.future[-1], past=(*self.past, self.entries), future=self.future[:-1])

    def entry(self, number: int) -> Entry:
        """The phrase of this number.

        Raises:
            SuggestError: there is none.
        """
        if 1 <= number <= len(self.entries):
            return self.entries[number - 1]
        allowed = f"Use a number from 1 to {len(self.entries)}." if self.entries else "Add a phrase first."
        raise SuggestError(f"There is no number {number}. {allowed}")

    def _each(self, numbers: Iterable[int], change: Callable[[Entry], Entry], *, revive: bool = False) -> Review:
        """Change these entries in one step; a rejected one only with `revive`."""
        wanted = {number: self.entry(number) for number in numbers}
        if not wanted:
            raise SuggestError("No number was given. Name a phrase by the number in front of it.")
        for number, entry in wanted.items():
            if entry.status == "rejected" and not revive:
                raise SuggestError(f"Number {number} is rejected. Accept {number} first.")
        return self._with(tuple(change(e) if e.number in wanted else e for e in self.entries))

    def _with(self, entries: tuple[Entry, ...]) -> Review:
        """These entries as the next step; self where nothing changes. A ConceptError if they make no valid set."""
        if entries == self.entries:
            return self
        placed = [Placed(e.side, e.related, f"number {e.number}") for e in entries if e.status != "rejected"]
        if (clash := next(clashes(self.base.target, placed), None)) is not None:
            raise ConceptError(f"'{placed[clash.at].related.text}' {clash.text}")
        changed = replace(self, entries=entries, past=(*self.past, self.entries), future=())
        changed.concepts  # noqa: B018  it raises ConceptError for the rest, such as a coref that is the anchor
        return changed


def _certainty(value: float | str) -> float:
    try:
        return parse_certainty(value)
    except ValueError as error:
        text = str(error)
        raise ConceptError(text[:1].upper() + text[1:]) from error
