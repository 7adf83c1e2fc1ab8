"""What a person decided about one proposed phrase."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone

from crce.concepts.concept_set import KINDS, Kind, fold, text_fault, tidy, unknown_kind
from crce.errors import SuggestError
from crce.suggest.candidates import SIDES, Side


Key = tuple[str, str, Side, str]


def now() -> str:
    """This moment in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Decision:
    """A person's answer to one phrase on one side.

    Attributes:
        target: the target that the phrase was proposed for.
        kind: what sort of thing the target is.
        text: the phrase.
        side: the side in question.
        accepted: whether the phrase belongs there.
        certainty: the certainty it was proposed with, not the one the person gave it.
        source: who proposed it for this side; "user" where the person did.
        similarity: cosine of the embeddings of phrase and target; None where nobody measured it.
        closeness: how far the model draws the target for it, in [0, 1]; None where nobody measured it.
        sense: which meaning of the target, as in "bat (animal)".
        when: the time of the decision, ISO 8601; two decisions that differ in it alone are equal.

    Raises:
        SuggestError: a value is none of those allowed.
    """

    target: str
    kind: Kind
    text: str
    side: Side
    accepted: bool
    certainty: float
    source: str
    similarity: float | None = None
    closeness: float | None = None
    sense: str | None = None
    when: str = field(default_factory=now, compare=False)

    def __post_init__(self) -> None:
        for name in ("target", "text", "source", "sense"):
            value = getattr(self, name)
            if value is None and name == "sense":
                continue
            if not isinstance(value, str):
                raise SuggestError(f"{name} is {value!r}. Use a text.")
            if reason := text_fault(value):
                raise SuggestError(f"{name} {reason}")
            object.__setattr__(self, name, tidy(value))
        if self.kind not in KINDS:
            raise SuggestError(f"kind {unknown_kind(self.kind)}")
        if self.side not in SIDES:
            raise SuggestError(f"side is {self.side!r}. Use one of: {', '.join(SIDES)}.")
        if not isinstance(self.accepted, bool):
            raise SuggestError(f"accepted is {self.accepted!r}. Use true or false.")
        if not isinstance(self.when, str):
            raise SuggestError(f"when is {self.when!r}. Use a time such as {now()}.")
        for name, low in (("certainty", 0), ("closeness", 0), ("similarity", -1)):
            value = getattr(self, name)
            if value is None and name != "certainty":
                continue
            # the cosine of two equal phrases can come out a rounding error above 1
            fits = not isinstance(value, bool) and isinstance(value, (int, float)) and low - 1e-6 <= value <= 1 + 1e-6
            if not fits:
                raise SuggestError(f"{name} is {value!r}. Use a number from {low} to 1.")

    @property
    def key(self) -> Key:
        """What the decision is about; of two decisions about the same, the newer stands."""
        return fold(self.target), fold(self.sense or ""), self.side, fold(self.text)
