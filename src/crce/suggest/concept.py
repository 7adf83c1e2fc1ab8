"""A concept as it is typed: a phrase, and in brackets which meaning of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from crce.concepts.concept_set import text_fault, tidy
from crce.errors import SuggestError


MAX_LENGTH = 200  # characters; a concept has a name, and a page of text in its place is a mistake or an attack
_WITH_SENSE = re.compile(r"^(?P<target>.*\S)\s*\((?P<sense>[^()]*)\)$")


class Parts(NamedTuple):
    """A concept as it is typed: "bat (animal)" is the target "bat" in the sense "animal"."""

    target: str
    sense: str | None


def parts(concept: str) -> Parts:
    """The target and the sense of a concept as it is typed.

    Raises:
        SuggestError: there is no target, it is too long, or it holds a control character.
    """
    if len(tidied := tidy(concept)) > MAX_LENGTH:
        raise SuggestError(
            f"The concept {brief(tidied)!r} has {len(tidied)} characters. Use at most {MAX_LENGTH}: a phrase as "
            "it would stand in a prompt."
        )
    if reason := text_fault(concept):
        raise SuggestError(f"The concept {reason}")
    found = _WITH_SENSE.match(tidy(concept))
    if found is None:
        return Parts(tidy(concept), None)
    return Parts(found["target"], tidy(found["sense"]) or None)


def brief(text: str) -> str:
    """A concept as an error shows it: cut to 60 characters."""
    return text if len(text) <= 60 else text[:57] + "..."
