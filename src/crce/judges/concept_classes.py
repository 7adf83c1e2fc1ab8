"""Classes taken from concept sets, for judges without classes of their own.

A target with its corefs is one class, each retain is one, and everyday things are added as further classes: a judge
that must choose one class would otherwise name one of the run's concepts for every image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold


if TYPE_CHECKING:
    from typing_extensions import Self

# Everyday things that any text-to-image model knows.
EVERYDAY = (
    "a bowl of fruit",
    "a mountain lake",
    "a red bicycle",
    "a wooden chair",
    "a city street at night",
    "a sunflower",
    "a sailing boat",
    "a stone bridge",
)


@dataclass(frozen=True)
class ConceptClasses:
    """Classes and the phrases that name them.

    Attributes:
        phrases: by class the phrases that name it, the class itself first.
        kinds: by class the kind of its concept set.
    """

    phrases: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        return list(self.phrases)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names, or None."""
        folded = fold(text)
        return next((name for name, texts in self.phrases.items() if folded in map(fold, texts)), None)


class ConceptSetJudge:
    """The shared part of judges that take their classes from concept sets.

    Attributes:
        classes: those of the concept sets given to `about`; none before.
    """

    classes: list[str]
    _known = ConceptClasses({}, {})

    def class_of(self, text: str) -> str | None:
        """The class that a phrase of the concept sets names; None for other phrases."""
        return self._known.class_of(text)

    def _with(self, known: ConceptClasses) -> Self:
        """A copy with these classes."""
        judge = copy.copy(self)
        judge._known = known
        judge.classes = known.names
        return judge


def concept_classes(sets: Sequence[ConceptSet], unrelated: Sequence[str] = ()) -> ConceptClasses:
    """The classes of concept sets, of unrelated phrases, and of everyday things that share no word with them.

    A retain is a class of its own, unless another set erases it.
    """
    phrases: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    seen: set[str] = set()

    def add(name: str, texts: Sequence[str], kind: str) -> None:
        new = [text for text in texts if fold(text) not in seen]
        seen.update(map(fold, new))
        if new:
            phrases[name] = new
            kinds[name] = kind

    for concepts in sets:
        add(concepts.target, [concepts.target, *(r.text for r in concepts.corefs)], concepts.kind)
    for concepts in sets:
        for related in concepts.retains:
            add(related.text, [related.text], concepts.kind)
    used = [text for texts in phrases.values() for text in texts]
    for text in (*unrelated, *everyday([*used, *unrelated])):
        add(text, [text], "object")
    return ConceptClasses({name: tuple(texts) for name, texts in phrases.items()}, kinds)


def everyday(phrases: Sequence[str]) -> list[str]:
    """The everyday things that share no word with any of the phrases."""
    used = {word for phrase in phrases for word in phrase.casefold().split()} - {"a", "at"}
    return [text for text in EVERYDAY if used.isdisjoint(text.split())]
