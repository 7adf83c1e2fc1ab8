"""What a suggester is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from crce.concepts.concept_set import Kind


Side = Literal["coref", "retain"]
SIDES: tuple[Side, ...] = ("coref", "retain")


@dataclass(frozen=True)
class Candidate:
    """A phrase proposed for one side of a concept set.

    Attributes:
        text: the phrase as it would stand in a prompt.
        side: coref (another way to call the target) or retain (a near but different thing).
        certainty: how sure the suggester is that it belongs on that side, in [0, 1].
        source: who proposed it: "atlas", "wordnet", "nearest", or "provider:model" of a language model.
        reason: one line for the person who reviews it.
        held_out: whether it is better held out (True) or trained (False); None where either will do.
    """

    text: str
    side: Side
    certainty: float
    source: str
    reason: str
    held_out: bool | None = None


@dataclass(frozen=True)
class Example:
    """A decision of a person about a phrase, shown to a language model as an example.

    Attributes:
        target: the target the phrase was proposed for.
        text: the phrase.
        side: the side it was proposed for.
        accepted: whether it stayed on that side.
    """

    target: str
    text: str
    side: Side
    accepted: bool


@dataclass(frozen=True)
class Request:
    """What a suggester is asked for.

    Attributes:
        target: the phrase to erase, as it stands in a prompt.
        kind: what sort of thing the target is.
        sense: which meaning of the phrase, as in "bat (animal)"; None when there is nothing to tell apart.
        corefs: how many corefs are wanted; a suggester proposes more where it can.
        retains: how many retains are wanted.
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


class Suggester(Protocol):
    """Proposes corefs and retains for a target.

    Attributes:
        name: how it is chosen, e.g. "lexicon" or "openai:gpt-4o-mini".
    """

    name: str

    def propose(self, request: Request) -> list[Candidate]:
        """Raw candidates, most certain first; they may repeat or contradict each other.

        Raises:
            SuggestError: it knows nothing about the target, or can't be reached.
        """
        ...
