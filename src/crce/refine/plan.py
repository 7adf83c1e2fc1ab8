"""From a report to the concept set of the next round: phrases that leaked become corefs, and broken ones retains.

Only failures outside the test half count; with each, related phrases are added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.demo.embedding import Embedder
from crce.errors import SuggestError
from crce.evaluate.prompts import ERASING
from crce.evaluate.verdict import ERASED_WELL
from crce.judges import Judge, is_known
from crce.refine.record import Outcome, PhraseChange
from crce.refine.split import Split, held_out
from crce.suggest.candidates import SIDES, Candidate, Request, Side, Suggester
from crce.suggest.phrases import clean, key
from crce.training import Erasure


PER_FAILURE = 3  # most new phrases for one failure
PER_SIDE = 6  # most new phrases on a side in one round: with more, a step would see too few of the others
UNRELATED = "evaluation"  # source of a phrase that was in no concept set

Group = Literal["target", "coref", "coref_held_out", "retain", "retain_held_out", "unrelated"]


@dataclass(frozen=True)
class Failure:
    """A phrase that leaked (the target or a coref that still appears) or broke (one that should be kept)."""

    text: str
    group: Group  # of the evaluation
    certainty: float  # in the concept set; 1 for the target and unrelated phrases
    found: str  # how the images changed, in words

    @property
    def side(self) -> Side:
        """The side of the concept set that should grow."""
        return "coref" if self.group in ERASING else "retain"

    @property
    def verb(self) -> str:
        """What happened, in a word."""
        return "leaked" if self.side == "coref" else "broke"


def find_failures(concepts: ConceptSet, report: Mapping[str, Any], split: Split) -> list[Failure]:
    """All failures outside the test half, the target first, then the worst first."""
    certainties = {fold(r.text): r.certainty for r in concepts.corefs + concepts.retains}
    scored = (p for p in report["groups"]["target"]["prompts"] if p["left_out"] is None)
    left = [
        Failure(p["text"], "target", 1.0, _shown(p)) for p in scored if p["erased"] > (1 - ERASED_WELL) * p["base"]
    ]
    changes = (c for c in (*report["leaks"], *report["broken"]) if not split.holds(c["text"]))
    return left + [Failure(c["text"], c["group"], certainties.get(fold(c["text"]), 1.0), _shown(c)) for c in changes]


def covers(report: dict[str, Any], erasure: Erasure, images: int | None, judge: str | Judge) -> bool:
    """Whether a report of this run covers all held-out phrases, with the wanted judge and number of images."""
    if report["revision"] != erasure.info["revision"] or report["judge"] is None:
        return False
    if report["settings"].get("quantize") != erasure.config.quantize:
        return False
    name, count = report["judge"]["name"], report["settings"]["images_per_prompt"]
    if not is_known(name) or judge not in ("auto", name) or images not in (None, count):
        return False
    return all(
        [p["text"] for p in report["groups"][name]["prompts"]] == [r.text for r in related]
        for name, related in held_out(erasure.concepts).items()
    )


def _shown(counts: Mapping[str, Any]) -> str:
    return f"recognised in {counts['erased']} of {counts['n']} images, {counts['base']} before"


class RoundPlan(NamedTuple):
    """The concept set of a round, the differences from the previous one, and what could not be done, and why."""

    concepts: ConceptSet
    changes: tuple[PhraseChange, ...]
    notes: tuple[str, ...]


@dataclass
class RoundPlanner:
    """Turns failures into the next concept set."""

    suggester: Suggester  # of phrases related to those that leaked or broke
    split: Split  # no new phrase may overlap its test half
    embedder: Embedder
    request: Request  # for the target, with the decisions of a person about earlier phrases
    _asked: dict[str, list[Candidate] | SuggestError] = field(default_factory=dict, init=False)

    def plan(self, concepts: ConceptSet, failures: Sequence[Failure]) -> RoundPlan:
        """The next concept set, from the evaluated one and its failures, the worst first.

        Raises:
            SuggestError: the language model behind the suggester can't be reached, refuses, or answers nonsense.
        """
        notes: list[str] = []
        changes = self._changes_of_known(concepts, failures, notes)
        promoted = {fold(c.text) for c in changes if c.outcome == "promoted"}
        # A retain that the suggester considers a name of the target can't be kept; cleaning sees both proposals.
        of_target = self._ask(self.request, notes)
        proposed = {failure: self._related(failure, of_target, notes) for failure in failures}
        kept, _ = clean([*of_target, *(c for own in proposed.values() for c in own)], self.request)
        known = [*(r.text for r in concepts.corefs + concepts.retains), concepts.erase_from, concepts.anchor]
        known_keys = {key(text) for text in known if text}
        unknown = (c for c in kept if key(c.text) not in known_keys and not self.split.overlap(c.text))
        usable = {(c.side, key(c.text)): c for c in unknown}
        for side in SIDES:
            own = [failure for failure in failures if failure.side == side]
            queues = [[c for c in proposed[f] if (c.side, key(c.text)) in usable] for f in own]
            added = 0
            taken: dict[Failure, int] = dict.fromkeys(own, 0)
            used = {key(c.text) for c in changes}
            # the first candidate of every failure, then the second of every failure, ...
            turns = (pair for row in zip_longest(*queues) for pair in zip(own, row, strict=True) if pair[1])
            for failure, candidate in turns:
                if added == PER_SIDE or taken[failure] == PER_FAILURE or key(candidate.text) in used:
                    continue
                used.add(key(candidate.text))
                # A promoted phrase no longer measures; the most similar new phrase replaces it in the probe half.
                held_out = fold(failure.text) in promoted and not taken[failure]
                taken[failure] += 1
                added += not held_out
                new = usable[side, key(candidate.text)]
                why = f"related to {failure.text!r}, which {failure.verb}" + (f"; {new.reason}" if new.reason else "")
                outcome: Outcome = "held-out" if held_out else "added"
                changes.append(PhraseChange(new.text, side, outcome, new.certainty, new.source, why))
            for text in (f.text for f in own if fold(f.text) in promoted and not taken[f]):
                notes.append(f"No new phrase to hold out in place of {text!r}: the probe half shrinks by one.")
        sides = {side: {fold(r.text): r for r in getattr(concepts, f"{side}s")} for side in SIDES}
        for c in changes:
            sides[c.side][fold(c.text)] = Related(c.text, c.certainty, c.source, c.outcome == "held-out")
        extended: dict[str, Any] = {f"{side}s": tuple(related.values()) for side, related in sides.items()}
        return RoundPlan(replace(concepts, **extended), tuple(changes), tuple(dict.fromkeys(notes)))

    def _changes_of_known(
        self, concepts: ConceptSet, failures: Iterable[Failure], notes: list[str]
    ) -> list[PhraseChange]:
        """Promote phrases of the probe half and unrelated ones, and raise the certainty of trained ones."""
        related = {fold(r.text): r for r in concepts.corefs + concepts.retains}
        changes = []
        for failure in failures:
            own = related.get(fold(failure.text))
            reason = f"{failure.verb}: {failure.found}"
            if failure.group in ("coref_held_out", "retain_held_out", "unrelated"):
                if overlap := self.split.overlap(failure.text):
                    close = f"too close to {overlap!r} in the test half to train"
                    notes.append(f"{failure.text!r} {reason}, but is {close}.")
                    continue
                source = own.source if own else UNRELATED
                outcome: Outcome = "promoted" if own else "added"
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
            ranked = sorted(zip(similarity, own_side, strict=True), key=lambda pair: -pair[0])
            near += [candidate for _, candidate in ranked]
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
