"""The held-out phrases in two halves: one may be learned from, the other only measures.

A held-out phrase that leaked makes a good coref, but once it is trained it says nothing any more about phrases that
were not. So before the first round the held-out lists are split once. The probe half tells what to add, and its
phrases may be promoted to training. The test half never is: neither its phrases, nor any phrase that says the same,
nor what leaked or broke in it goes into a concept set. Every round is scored on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.errors import RunError
from crce.evaluate.stats import Measure, Recognition, recognise, summarise
from crce.suggest.phrases import words


def held_out(concepts: ConceptSet) -> dict[str, tuple[Related, ...]]:
    """The held-out phrases of a set by the group of the evaluation they stand in."""
    return {"coref_held_out": concepts.held_out_corefs, "retain_held_out": concepts.held_out_retains}


@dataclass(frozen=True)
class Halves:
    """The test half; every other held-out phrase is of the probe half.

    Attributes:
        target: the erased phrase.
        corefs: held-out corefs of the test half.
        retains: held-out retains of the test half.
    """

    target: str
    corefs: tuple[str, ...]
    retains: tuple[str, ...]

    def holds(self, text: str) -> bool:
        """Whether a phrase is one of the test half."""
        return fold(text) in self._folded

    def touched_by(self, text: str) -> str | None:
        """The phrase of the test half that `text` repeats, or holds all telling words of; None if there is none.

        With the target "cat" and "Siamese cat" in the test half, "siamese kitten" touches it and "tabby cat" doesn't.
        """
        if self.holds(text):
            return text
        own = set(words(text))
        return next((phrase for phrase, telling in self._telling.items() if telling <= own), None)

    @cached_property
    def _folded(self) -> frozenset[str]:
        return frozenset(fold(text) for text in self.corefs + self.retains)

    @cached_property
    def _telling(self) -> dict[str, frozenset[str]]:
        target = frozenset(words(self.target))
        by_phrase = {text: frozenset(words(text)) for text in self.corefs + self.retains}
        return {text: (own - target) or own for text, own in by_phrase.items()}


def split(concepts: ConceptSet, report: Mapping[str, Any]) -> Halves:
    """Split the held-out lists: of the phrases that the report scored, every second one goes to the probe half.

    Phrases that could not be scored teach nothing; they stay with the test half, and so out of training.

    Raises:
        RunError: nothing of one of the lists could be scored.
    """
    sides: dict[str, tuple[str, ...]] = {}
    for group, related in held_out(concepts).items():
        scored = [p["text"] for p in report["groups"][group]["prompts"] if p["left_out"] is None]
        probe = {fold(text) for text in scored[1::2]}
        sides[group] = tuple(r.text for r in related if fold(r.text) not in probe)
    halves = Halves(concepts.target, sides["coref_held_out"], sides["retain_held_out"])
    _recognised(report, halves)
    return halves


def score(report: Mapping[str, Any], halves: Halves) -> dict[str, Measure]:
    """`erased`, `coref_erased`, `kept` and `H` of a report, over the target and the test half alone.

    Raises:
        RunError: one of them can't be measured.
    """
    found = _recognised(report, halves)
    return summarise(found["erased"], found["coref_erased"], found["kept"], seed=report["settings"]["seed"])


def _recognised(report: Mapping[str, Any], halves: Halves) -> dict[str, list[Recognition]]:
    """What each measure is made of.

    Raises:
        RunError: one of them can't be measured.
    """
    prompts = {
        "erased": report["groups"]["target"]["prompts"],
        "coref_erased": [p for p in report["groups"]["coref_held_out"]["prompts"] if halves.holds(p["text"])],
        "kept": [p for p in report["groups"]["retain_held_out"]["prompts"] if halves.holds(p["text"])],
    }
    recognised = {name: _recognitions(group, erasing=name != "kept") for name, group in prompts.items()}
    missing = [name for name, found in recognised.items() if not found]
    if missing:
        raise RunError(_unmeasured(report, missing[0], prompts[missing[0]]))
    return recognised


def _recognitions(prompts: list[dict[str, Any]], *, erasing: bool) -> list[Recognition]:
    return [
        recognise(p["words"]["base"], p["words"]["erased"], p["class"], erasing=erasing)
        for p in prompts
        if p["left_out"] is None
    ]


def _unmeasured(report: Mapping[str, Any], name: str, prompts: list[dict[str, Any]]) -> str:
    what = {"erased": "the target", "coref_erased": "a held-out coref", "kept": "a held-out retain"}[name]
    cure = "Give a judge that knows it, or hold out other phrases"
    if report["judge"] is None:
        cure = f"No judge knows what the model {report['model']} draws"
    reasons = [p["left_out"] for p in prompts if p["left_out"]]
    why = f": {reasons[0]}" if reasons else ": the concept set holds none" if name != "erased" else ""
    return (
        f"Refining measures the target, held-out corefs and held-out retains, but can't measure {what}{why}. {cure}."
    )
