"""The split of held-out phrases into a probe half, to learn from, and a test half, which only measures.

A held-out phrase that leaked makes a good coref, but once it is trained it no longer measures generalisation. So the
held-out lists are split once, before the first round. The probe half shows what to add, and its phrases may be
promoted to training. The test half never is: neither its phrases, nor equivalent phrases, nor what leaked or broke in
it enters a concept set. Every round is scored on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.errors import RunError
from crce.evaluate.stats import Recognition, recognise, summarise
from crce.suggest.phrases import words


def held_out(concepts: ConceptSet) -> dict[str, tuple[Related, ...]]:
    """The held-out phrases of a set by their group of the evaluation."""
    return {"coref_held_out": concepts.held_out_corefs, "retain_held_out": concepts.held_out_retains}


@dataclass(frozen=True)
class Split:
    """The held-out phrases of the test half; every other one belongs to the probe half."""

    target: str  # the erased phrase
    corefs: tuple[str, ...]
    retains: tuple[str, ...]

    def holds(self, text: str) -> bool:
        """Whether a phrase is in the test half."""
        return fold(text) in map(fold, self.corefs + self.retains)

    def overlap(self, text: str) -> str | None:
        """The phrase of the test half that `text` repeats, or whose distinctive words it contains; None if none.

        With the target "cat" and "Siamese cat" in the test half, "siamese kitten" overlaps and "tabby cat" doesn't.
        """
        if self.holds(text):
            return text
        given, target = set(words(text)), set(words(self.target))
        for phrase in self.corefs + self.retains:
            own = set(words(phrase))
            if ((own - target) or own) <= given:
                return phrase
        return None


def split_held_out(concepts: ConceptSet, report: Mapping[str, Any]) -> Split:
    """Split the held-out lists: every second phrase that the report scored goes to the probe half.

    Phrases that could not be scored teach nothing; they stay in the test half, and so out of training.

    Raises:
        RunError: no phrase of one of the lists could be scored.
    """
    sides: dict[str, tuple[str, ...]] = {}
    for group, related in held_out(concepts).items():
        scored = [p["text"] for p in report["groups"][group]["prompts"] if p["left_out"] is None]
        probe = {fold(text) for text in scored[1::2]}
        sides[group] = tuple(r.text for r in related if fold(r.text) not in probe)
    split = Split(concepts.target, sides["coref_held_out"], sides["retain_held_out"])
    score(report, split)
    return split


def score(report: Mapping[str, Any], split: Split) -> dict[str, dict[str, Any]]:
    """`erased`, `coref_erased`, `kept` and `H` over the target and the test half, as in the summary of a report.

    Raises:
        RunError: one of them can't be measured.
    """
    groups = report["groups"]
    prompts = {
        "erased": groups["target"]["prompts"],
        "coref_erased": [p for p in groups["coref_held_out"]["prompts"] if split.holds(p["text"])],
        "kept": [p for p in groups["retain_held_out"]["prompts"] if split.holds(p["text"])],
    }
    recognised: dict[str, list[Recognition]] = {}
    for name, asked in prompts.items():
        recognised[name] = [
            recognise(p["words"]["base"], p["words"]["erased"], p["class"], erasing=name != "kept")
            for p in asked
            if p["left_out"] is None
        ]
        if not recognised[name]:
            raise RunError(_unmeasured(report, name, asked))
    measures = summarise(*recognised.values(), seed=report["settings"]["seed"])
    return {name: measure.as_json() for name, measure in measures.items()}


def _unmeasured(report: Mapping[str, Any], name: str, prompts: list[dict[str, Any]]) -> str:
    what = {"erased": "the target", "coref_erased": "a held-out coref", "kept": "a held-out retain"}[name]
    cure = "Use a judge that knows it, or hold out other phrases"
    if report["judge"] is None:
        cure = f"No judge knows the images of the model {report['model']}"
    reasons = [p["left_out"] for p in prompts if p["left_out"]]
    why = f": {reasons[0]}" if reasons else ": the concept set holds none" if name != "erased" else ""
    return (
        f"Refining measures the target, held-out corefs and held-out retains, but can't measure {what}{why}. {cure}."
    )
