"""The split of held-out phrases into a probe half, to learn from, and a test half, which only measures.

A held-out phrase that leaked makes a good coref, but once it is trained it no longer measures generalisation. So the
held-out lists are split once, before the first round. The probe half shows what to add, and its phrases may be
promoted to training. The test half never is: neither its phrases, nor equivalent phrases, nor what leaked or broke in
it enters a concept set. Every round is scored on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crce.concepts import ConceptSet, Related
from crce.concepts.concept_set import fold
from crce.errors import RunError
from crce.evaluate.prompts import ERASING
from crce.evaluate.scores import MEASURED
from crce.evaluate.settings import ConceptSetSettings
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
    sides: list[tuple[str, ...]] = []
    for group, related in held_out(concepts).items():
        scored = [p["text"] for p in report["groups"][group]["prompts"] if p["left_out"] is None]
        probe = {fold(text) for text in scored[1::2]}
        sides.append(tuple(r.text for r in related if fold(r.text) not in probe))
    split = Split(concepts.target, *sides)
    score(report, split)
    return split


def score(report: Mapping[str, Any], split: Split) -> dict[str, dict[str, Any]]:
    """The summary of a report over the target, the test half, and what is unrelated.

    Raises:
        RunError: one of them can't be measured.
    """
    recognised: list[list[Recognition]] = []
    alpha = ConceptSetSettings(eval_minutes=report["settings"].get("eval_minutes")).alpha
    groups = {"target": "the target", "coref_held_out": "a held-out coref", "retain_held_out": "a held-out retain"}
    for group in MEASURED:
        what, whole = groups.get(group), group in ("target", "unrelated")
        prompts = [p for p in report["groups"][group]["prompts"] if whole or split.holds(p["text"])]
        asked = [(p["words"], p["class"]) for p in prompts if p["left_out"] is None]
        how = {"erasing": group in ERASING}
        own = [recognise(w["base"], w["erased"], c, **how, probe_words=w.get("probe", ())) for w, c in asked]
        recognised.append([replace(each, alpha=alpha) for each in own])
        if what and not own:
            nothing = "" if group == "target" else ": the concept set holds none"
            why = next((f": {p['left_out']}" for p in prompts if p["left_out"]), nothing)
            cure = "Use a judge that knows it, or hold out other phrases"
            if report["judge"] is None:
                cure = f"No judge knows the images of the model {report['model']}"
            measured = "Refining measures the target, held-out corefs and held-out retains"
            raise RunError(f"{measured}, but can't measure {what}{why}. {cure}.")
    return {name: measure.as_json() for name, measure in summarise(recognised).items()}
