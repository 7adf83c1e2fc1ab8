"""The request to a suggester, and the candidates that it proposes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from crce.concepts.concept_set import ConceptSet, Kind, Related, fold, name_key


Side = Literal["coref", "retain"]
SIDES: tuple[Side, ...] = ("coref", "retain")
Outcome = Literal["train", "held-out", "dropped"]


@dataclass(frozen=True)
class Candidate:
    """A phrase proposed for one side of a concept set.

    Attributes:
        text: the phrase as it would appear in a prompt.
        side: coref (another name of the target) or retain (a similar but different thing).
        certainty: how sure its source is that it belongs on that side, in [0, 1].
        source: who proposed it: "atlas", "wordnet", "wikidata", "user", or "provider:model" of a language model.
        reason: one line for the person who reviews it; of a dropped candidate, why it was dropped.
        held_out: whether it is better held out (True) or trained (False); None if either will do.
        outcome: what became of it; None while that is open.
        similarity: cosine similarity of its embedding and the target's; None if not measured.
        closeness: how much the text-to-image model treats it as the target, in [0, 1]; None if not measured.
    """

    text: str
    side: Side
    certainty: float
    source: str
    reason: str = ""
    held_out: bool | None = None
    outcome: Outcome | None = None
    similarity: float | None = None
    closeness: float | None = None

    def noted(self, note: str) -> Candidate:
        """The candidate with a note after its reason."""
        return replace(self, reason="; ".join(part for part in (self.reason, note) if part))

    def dropped(self, reason: str) -> Candidate:
        """The candidate as dropped for a reason, in words that follow "because"."""
        return replace(self, outcome="dropped", reason=reason)


@dataclass(frozen=True)
class Example:
    """A decision of a person about a phrase, shown to a language model as an example."""

    target: str
    text: str
    side: Side
    accepted: bool


@dataclass(frozen=True)
class Request:
    """What a suggester is asked for.

    Attributes:
        target: the phrase to erase, as it appears in a prompt.
        sense: which meaning of the phrase, as in "bat (animal)"; None if it has only one.
        corefs, retains: how many of them are wanted; a suggester proposes more if it can.
        avoid: pairs (side, phrase) that a person has rejected; they are not proposed again.
        examples: decisions of a person about other phrases.
    """

    target: str
    kind: Kind
    sense: str | None = None
    corefs: int = 12
    retains: int = 12
    avoid: frozenset[tuple[Side, str]] = frozenset()
    examples: tuple[Example, ...] = ()

    @property
    def name(self) -> str:
        """The concept as a person types it: "bat (animal)"."""
        return f"{self.target} ({self.sense})" if self.sense else self.target

    @property
    def wanted(self) -> dict[Side, int]:
        return {"coref": self.corefs, "retain": self.retains}

    def takes(self, text: str, side: Side) -> bool:
        """Whether a phrase is neither the target nor rejected for this side."""
        rejected = {fold(phrase) for avoided, phrase in self.avoid if avoided == side}
        same = name_key if side == "retain" else fold  # a target in another spelling can be a coref, never a retain
        return fold(text) not in rejected and same(text) != same(self.target)


def sides_of(concepts: ConceptSet) -> list[tuple[Side, Related]]:
    """The phrases of a concept set with their sides, corefs first."""
    return [*(("coref", r) for r in concepts.corefs), *(("retain", r) for r in concepts.retains)]


class Suggester(Protocol):
    """Proposes corefs and retains for a target.

    One that knows what sort of thing a target is may have a method `infer_kind(target, sense)` too; it is asked where
    the user does not say.
    """

    name: str  # by which it is chosen, e.g. "lexicon" or "openai:gpt-4o-mini"

    def propose(self, request: Request) -> list[Candidate]:
        """Raw candidates, the most certain first; they may repeat or contradict each other.

        Raises:
            SuggestError: it knows nothing about the target, or can't be reached.
        """
