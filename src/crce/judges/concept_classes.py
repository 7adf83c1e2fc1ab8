"""Classes taken from concept sets, for judges without classes of their own.

A target with its corefs is one class, each retain is one, and everyday things are added as further classes: a judge
that must choose one class would otherwise name one of the run's concepts for every image.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import Self

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.errors import ConfigError


# Everyday things that any text-to-image model knows.
EVERYDAY = tuple(
    "a bowl of fruit, a mountain lake, a red bicycle, a wooden chair, a city street at night, a sunflower, "
    "a sailing boat, a stone bridge".split(", ")
)


@dataclass(frozen=True)
class ConceptClasses:
    """By class the phrases that name it, the class itself first, and the kind of its concept set."""

    phrases: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]


class ConceptSetJudge:
    """The shared part of judges that take their classes from concept sets."""

    name: str
    classes: list[str]  # those of the concept sets given to `about`; none before
    _known = ConceptClasses({}, {})

    def class_of(self, text: str) -> str | None:
        """The class that a phrase of the concept sets names; None for other phrases."""
        folded = fold(text)
        return next((name for name, texts in self._known.phrases.items() if folded in map(fold, texts)), None)

    def _check_classes(self) -> None:
        """Raise a `ConfigError` where it has none yet."""
        if not self.classes:
            raise ConfigError(f"The judge {self.name} has no classes yet. Give it concept sets: judge.about(sets).")

    def _with(self, known: ConceptClasses) -> Self:
        judge = copy.copy(self)
        judge._known = known
        judge.classes = list(known.phrases)
        return judge


def concept_classes(sets: Sequence[ConceptSet], unrelated: Sequence[str] = ()) -> ConceptClasses:
    """The classes of concept sets, of unrelated phrases, and of everyday things that share no word with them.

    A retain is a class of its own, unless another set erases it.
    """
    named = [([c.target, *(r.text for r in c.corefs)], c.kind) for c in sets]
    named += [([related.text], c.kind) for c in sets for related in c.retains]
    used = [text for texts, _ in named for text in texts]
    named += [([text], "object") for text in (*unrelated, *everyday([*used, *unrelated]))]
    phrases: dict[str, tuple[str, ...]] = {}
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    for texts, kind in named:
        if new := [text for text in texts if fold(text) not in seen]:
            seen.update(map(fold, new))
            phrases[texts[0]], kinds[texts[0]] = tuple(new), kind
    return ConceptClasses(phrases, kinds)


def everyday(phrases: Sequence[str]) -> list[str]:
    """The everyday things that share no word with any of the phrases."""
    used = {word for phrase in phrases for word in phrase.casefold().split()} - {"a", "at"}
    return [text for text in EVERYDAY if used.isdisjoint(text.split())]
