"""The concept set of the next round: leaked phrases become corefs and broken ones retains, with related phrases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.errors import SuggestError
from crce.refine.failures import Failure
from crce.refine.record import PhraseChange
from crce.refine.split import Split
from crce.suggest.candidates import SIDES, Candidate, Request, Side, Suggester
from crce.suggest.phrases import clean, key


if TYPE_CHECKING:
    from crce.demo.embedding import Embedder

PER_FAILURE = 3  # most new phrases for one failure
PER_SIDE = 6  # most new phrases on a side in one round: with more, a step would see too few of the others
UNRELATED = "evaluation"  # source of a phrase that was in no concept set


@dataclass(frozen=True)
class RoundPlan:
    """The plan of a round.

    Attributes:
        concepts: its concept set.
        changes: the differences from the previous set.
        notes: what could not be done, and why.
    """

    concepts: ConceptSet
    changes: tuple[PhraseChange, ...]
    notes: tuple[str, ...]


@dataclass
class RoundPlanner:
    """Turns failures into the next concept set.

    Attributes:
        suggester: proposes phrases related to those that leaked or broke.
        split: the test half, which no new phrase may overlap.
        embedder: measures the similarity of phrases.
        request: the request for the target, with the decisions of a person about earlier phrases.
    """

    suggester: Suggester
    split: Split
    embedder: Embedder
    request: Request
    _asked: dict[str, list[Candidate] | SuggestError] = field(default_factory=dict, init=False)

    def plan(self, concepts: ConceptSet, failures: Sequence[Failure]) -> RoundPlan:
        """The next concept set.

        Args:
            concepts: the evaluated concept set.
            failures: its failures, the worst first.

        Raises:
            SuggestError: the language model behind the suggester can't be reached, refuses, or answers nonsense.
        """
        notes: list[str] = []
        changes = self._changes_of_known(concepts, failures, notes)
        promoted = {fold(c.text) for c in changes if c.outcome == "promoted"}
        # A retain that the suggester considers a name of the target can't be kept; cleaning sees both proposals.
        of_target = self._ask(self.request, notes)
        proposed = {failure: self._related(failure, of_target, notes) for failure in failures}
        kept, _ = clean([*of_target, *(c for own in proposed.values() for c in own)], self.request, self.embedder)
        known = [*(r.text for r in concepts.corefs + concepts.retains), concepts.erase_from, concepts.anchor]
        known_keys = {key(text) for text in known if text}
        new = (c for c in kept if key(c.text) not in known_keys and not self.split.overlap(c.text))
        usable = {(c.side, key(c.text)): c for c in new}
        for side in SIDES:
            own = [failure for failure in failures if failure.side == side]
            queues = [[c for c in proposed[f] if (c.side, key(c.text)) in usable] for f in own]
            added = 0
            taken: dict[Failure, int] = dict.fromkeys(own, 0)
            used = {key(c.text) for c in changes}
            for failure, candidate in _round_robin(own, queues):
                if added == PER_SIDE or taken[failure] == PER_FAILURE or key(candidate.text) in used:
                    continue
                used.add(key(candidate.text))
                # A promoted phrase no longer measures; the most similar new phrase replaces it in the probe half.
                held_out = fold(failure.text) in promoted and not taken[failure]
                taken[failure] += 1
                added += not held_out
                changes.append(_new(usable[side, key(candidate.text)], failure, "held-out" if held_out else "added"))
            notes += [
                f"No new phrase to hold out in place of {f.text!r}: the probe half shrinks by one."
                for f in own
                if fold(f.text) in promoted and not taken[f]
            ]
        return RoundPlan(_changed(concepts, changes), tuple(changes), tuple(dict.fromkeys(notes)))

    def _changes_of_known(
        self, concepts: ConceptSet, failures: Iterable[Failure], notes: list[str]
    ) -> list[PhraseChange]:
        """Promote phrases of the probe half and unrelated ones, and raise the certainty of trained ones."""
        related = {fold(r.text): r for r in concepts.corefs + concepts.retains}
        changes = []
        for failure in failures:
            own = related.get(fold(failure.text))
            reason = f"{failure.verb}: {failure.found}"
            if failure.held_out or failure.group == "unrelated":
                if overlap := self.split.overlap(failure.text):
                    notes.append(
                        f"{failure.text!r} {reason}, but is too close to {overlap!r} in the test half to train."
                    )
                    continue
                source = own.source if own else UNRELATED
                outcome: Literal["promoted", "added"] = "promoted" if own else "added"
                changes.append(PhraseChange(failure.text, failure.side, outcome, failure.certainty, source, reason))
            elif own is not None and own.certainty < 1:
                changes.append(PhraseChange(own.text, failure.side, "raised", 1.0, own.source, reason))
        return changes

    def _related(self, failure: Failure, of_target: list[Candidate], notes: list[str]) -> list[Candidate]:
        """Candidates for the side of a failure: those related to it, then the target's by similarity."""
        if failure.group == "unrelated":
            return []
        own_side = [c for c in of_target if c.side == failure.side]
        if failure.group == "target":
            return own_side
        sense = self.request.target if failure.side == "coref" else None
        own = self._ask(replace(self.request, target=failure.text, sense=sense), notes)
        # Another name of a coref is one of the target; other names and neighbours of a retain should be kept.
        own = [c for c in own if c.side == "coref" or failure.side == "retain"]
        own.sort(key=lambda c: c.side != "coref")
        near = [replace(c, side=failure.side, certainty=round(c.certainty * failure.certainty, 2)) for c in own]
        if own_side:
            similarity = self.embedder.similarity([failure.text], [c.text for c in own_side])[0].tolist()
            order = sorted(range(len(own_side)), key=lambda i: -similarity[i])
            near += [own_side[i] for i in order]
        return near

    def _ask(self, request: Request, notes: list[str]) -> list[Candidate]:
        """Candidates for a phrase, requested once per refinement; a note if the suggester has none."""
        phrase = request.target
        if phrase not in self._asked:
            try:
                self._asked[phrase] = self.suggester.propose(request)
            except SuggestError as error:
                # The lexicon raises for an unknown phrase, which a round can do without; a language model knows every
                # phrase, so its errors are real, and would recur for the next phrases.
                if getattr(self.suggester, "chat", None) is not None:
                    raise
                self._asked[phrase] = error
        answer = self._asked[phrase]
        if isinstance(answer, SuggestError):
            notes.append(f"The {self.suggester.name} suggester has nothing for {phrase!r}: {answer}")
            return []
        return list(answer)


def _new(candidate: Candidate, failure: Failure, outcome: Literal["added", "held-out"]) -> PhraseChange:
    reason = f"related to {failure.text!r}, which {failure.verb}"
    if candidate.reason:
        reason += f"; {candidate.reason}"
    return PhraseChange(candidate.text, candidate.side, outcome, candidate.certainty, candidate.source, reason)


def _round_robin(
    failures: Sequence[Failure], queues: Sequence[Sequence[Candidate]]
) -> Iterable[tuple[Failure, Candidate]]:
    """The first candidate of every failure, then the second of every failure, ..."""
    for row in zip_longest(*queues):
        for failure, candidate in zip(failures, row, strict=True):
            if candidate is not None:
                yield failure, candidate


def _changed(concepts: ConceptSet, changes: Iterable[PhraseChange]) -> ConceptSet:
    sides: dict[Side, dict[str, Related]] = {
        "coref": {fold(r.text): r for r in concepts.corefs},
        "retain": {fold(r.text): r for r in concepts.retains},
    }
    for change in changes:
        related = Related(change.text, change.certainty, change.source, change.outcome == "held-out")
        sides[change.side][fold(change.text)] = related
    return replace(concepts, corefs=tuple(sides["coref"].values()), retains=tuple(sides["retain"].values()))
