"""The classes of a judge that takes them from concept sets: what was erased, what was kept, and everyday things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.evaluate.groups import everyday


@dataclass(frozen=True)
class ConceptClasses:
    """Classes with the phrases that mean them.

    Attributes:
        phrases: by class the phrases that mean it, the class itself first.
        kinds: by class its kind, as concept sets know them.
    """

    phrases: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        return list(self.phrases)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase means, or None."""
        folded = fold(text)
        return next((name for name, texts in self.phrases.items() if folded in map(fold, texts)), None)


def concept_classes(sets: Sequence[ConceptSet], unrelated: Sequence[str] = ()) -> ConceptClasses:
    """The classes of some concept sets, and of unrelated phrases that are drawn beside them.

    A target's class holds its corefs. A retain is a class of its own, unless another set erases it. Everyday things
    that none of the phrases speak of stand beside them: without them, every picture of nothing known would have to
    be one of the others.
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
    spoken = [text for texts in phrases.values() for text in texts]
    for text in (*unrelated, *everyday([*spoken, *unrelated])):
        add(text, [text], "object")
    return ConceptClasses({name: tuple(texts) for name, texts in phrases.items()}, kinds)
