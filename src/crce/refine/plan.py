"""The concept set of the next round: what leaked becomes a coref and what broke a retain, with phrases around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.errors import SuggestError
from crce.refine.failures import Finding
from crce.refine.record import Change
from crce.refine.split import Halves
from crce.suggest.candidates import SIDES, Candidate, Example, Request, Side, Suggester
from crce.suggest.cleaning import clean
from crce.suggest.phrases import key


if TYPE_CHECKING:
    from crce.demo.embedding import Embedder

NEIGHBOURS = 3  # new phrases around one that leaked or broke
MOST = 6  # new phrases on a side in one round: more would thin out what each step sees of the others
UNRELATED = "evaluation"  # source of a phrase that no concept set held


@dataclass(frozen=True)
class Plan:
    """What the next round trains.

    Attributes:
        concepts: its concept set.
        changes: how it differs from the one before.
        notes: what could not be done, and why.
    """

    concepts: ConceptSet
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


class Planner:
    """Turns findings into the next concept set.

    Args:
        suggester: is asked for phrases around those that leaked or broke.
        halves: the test half, from which every new phrase keeps away.
        embedder: tells which phrases are near.
        sense: which meaning of the target was erased; None when there is nothing to tell apart.
        avoid: pairs (side, phrase) that a person has rejected for this target.
        examples: decisions of a person about other phrases.
    """

    def __init__(
        self,
        suggester: Suggester,
        halves: Halves,
        embedder: Embedder,
        *,
        sense: str | None = None,
        avoid: frozenset[tuple[Side, str]] = frozenset(),
        examples: tuple[Example, ...] = (),
    ) -> None:
        self._suggester = suggester
        self._halves = halves
        self._embedder = embedder
        self._sense = sense
        self._avoid = avoid
        self._examples = examples
        self._asked: dict[str, list[Candidate] | SuggestError] = {}

    def plan(self, concepts: ConceptSet, findings: Sequence[Finding]) -> Plan:
        """The next concept set.

        Args:
            concepts: the set whose evaluation the findings are from.
            findings: what leaked and what broke, the worst first.

        Raises:
            SuggestError: the language model behind the suggester can't be reached, refuses, or answers nonsense.
        """
        notes: list[str] = []
        changes = self._known(concepts, findings, notes)
        promoted = {fold(c.text) for c in changes if c.outcome == "promoted"}
        # A retain that the suggester takes for a name of the target can't be kept; cleaning sees both proposals.
        of_target = self._ask(concepts.target, concepts, notes, sense=self._sense)
        proposed = {finding: self._around(finding, concepts, of_target, notes) for finding in findings}
        request = self._request(concepts.target, concepts, self._sense)
        kept, _ = clean([*of_target, *(c for own in proposed.values() for c in own)], request, self._embedder)
        known = [*(r.text for r in concepts.corefs + concepts.retains), concepts.erase_from, concepts.anchor]
        taboo = {key(text) for text in known if text}
        new = (c for c in kept if key(c.text) not in taboo and not self._halves.touched_by(c.text))
        usable = {(c.side, key(c.text)): c for c in new}
        for side in SIDES:
            own = [finding for finding in findings if finding.side == side]
            queues = [[c for c in proposed[f] if (c.side, key(c.text)) in usable] for f in own]
            added = 0
            taken: dict[Finding, int] = dict.fromkeys(own, 0)
            used = {key(c.text) for c in changes}
            for finding, candidate in _in_turn(own, queues):
                if added == MOST or taken[finding] == NEIGHBOURS or key(candidate.text) in used:
                    continue
                used.add(key(candidate.text))
                # What was promoted no longer measures; the nearest new phrase takes its place in the probe half.
                held_out = fold(finding.text) in promoted and not taken[finding]
                taken[finding] += 1
                added += not held_out
                changes.append(
                    self._new(usable[side, key(candidate.text)], finding, "held-out" if held_out else "added")
                )
            notes += [
                f"No new phrase to hold out in place of {f.text!r}: the probe half is smaller by one."
                for f in own
                if fold(f.text) in promoted and not taken[f]
            ]
        return Plan(_changed(concepts, changes), tuple(changes), tuple(dict.fromkeys(notes)))

    # ---- phrases that are known already -----------------------------------------------------------------------------

    def _known(self, concepts: ConceptSet, findings: Iterable[Finding], notes: list[str]) -> list[Change]:
        """Promote what is of the probe half or unrelated, and raise the certainty of what is trained already."""
        related = {fold(r.text): r for r in concepts.corefs + concepts.retains}
        changes = []
        for finding in findings:
            own = related.get(fold(finding.text))
            reason = f"{finding.verb}: {finding.found}"
            if finding.held_out or finding.group == "unrelated":
                if touched := self._halves.touched_by(finding.text):
                    notes.append(
                        f"{finding.text!r} {reason}, but is too near to {touched!r} of the test half to train."
                    )
                    continue
                source = own.source if own else UNRELATED
                outcome: Literal["promoted", "added"] = "promoted" if own else "added"
                changes.append(Change(finding.text, finding.side, outcome, finding.certainty, source, reason))
            elif own is not None and own.certainty < 1:
                changes.append(Change(own.text, finding.side, "raised", 1.0, own.source, reason))
        return changes

    # ---- phrases around them ----------------------------------------------------------------------------------------

    def _around(
        self, finding: Finding, concepts: ConceptSet, of_target: list[Candidate], notes: list[str]
    ) -> list[Candidate]:
        """Candidates near a finding, for its side: what the suggester has around it, then the target's by nearness."""
        if finding.group == "unrelated":
            return []
        own_side = [c for c in of_target if c.side == finding.side]
        if finding.group == "target":
            return own_side
        sense = concepts.target if finding.side == "coref" else None
        own = self._ask(finding.text, concepts, notes, sense=sense)
        # Another name of a coref is one of the target; other names of a retain and its neighbours are to be kept.
        own = [c for c in own if c.side == "coref" or finding.side == "retain"]
        own.sort(key=lambda c: c.side != "coref")
        near = [replace(c, side=finding.side, certainty=round(c.certainty * finding.certainty, 2)) for c in own]
        if own_side:
            similarity = self._embedder.similarity([finding.text], [c.text for c in own_side])[0].tolist()
            order = sorted(range(len(own_side)), key=lambda i: -similarity[i])
            near += [own_side[i] for i in order]
        return near

    def _ask(self, phrase: str, concepts: ConceptSet, notes: list[str], sense: str | None = None) -> list[Candidate]:
        """What the suggester proposes for a phrase; asked once in a refinement. A note where it knows nothing."""
        if phrase not in self._asked:
            try:
                self._asked[phrase] = self._suggester.propose(self._request(phrase, concepts, sense))
            except SuggestError as error:
                # The lexicon says so of what it does not know, and a round can do without it; a language model takes
                # every phrase, so that its errors are faults, and those of the next phrases too.
                if getattr(self._suggester, "chat", None) is not None:
                    raise
                self._asked[phrase] = error
        answer = self._asked[phrase]
        if isinstance(answer, SuggestError):
            notes.append(f"The {self._suggester.name} suggester has nothing around {phrase!r}: {answer}")
            return []
        return list(answer)

    def _request(self, phrase: str, concepts: ConceptSet, sense: str | None = None) -> Request:
        return Request(phrase, concepts.kind, sense, avoid=self._avoid, examples=self._examples)

    def _new(self, candidate: Candidate, finding: Finding, outcome: Literal["added", "held-out"]) -> Change:
        reason = f"near {finding.text!r}, which {finding.verb}"
        if candidate.reason:
            reason += f"; {candidate.reason}"
        return Change(candidate.text, candidate.side, outcome, candidate.certainty, candidate.source, reason)


def _in_turn(
    findings: Sequence[Finding], queues: Sequence[Sequence[Candidate]]
) -> Iterable[tuple[Finding, Candidate]]:
    """The first candidate of every finding, then the second of every finding, ..."""
    for row in zip_longest(*queues):
        for finding, candidate in zip(findings, row, strict=True):
            if candidate is not None:
                yield finding, candidate


def _changed(concepts: ConceptSet, changes: Iterable[Change]) -> ConceptSet:
    sides: dict[Side, dict[str, Related]] = {
        "coref": {fold(r.text): r for r in concepts.corefs},
        "retain": {fold(r.text): r for r in concepts.retains},
    }
    for change in changes:
        related = Related(change.text, change.certainty, change.source, change.outcome == "held-out")
        sides[change.side][fold(change.text)] = related
    return replace(concepts, corefs=tuple(sides["coref"].values()), retains=tuple(sides["retain"].values()))
