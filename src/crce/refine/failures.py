"""Failures of an erasure outside the test half: phrases that leaked, and phrases that broke."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.errors import RunError
from crce.evaluate.prompts import ERASING
from crce.evaluate.verdict import ERASED_WELL
from crce.judges import is_known
from crce.refine.split import Split, held_out
from crce.suggest.candidates import Side


if TYPE_CHECKING:
    from crce.training import Erasure

Group = Literal["target", "coref", "coref_held_out", "retain", "retain_held_out", "unrelated"]


@dataclass(frozen=True)
class Failure:
    """A phrase that leaked (the target or a coref that still appears) or broke (one that should be kept).

    Attributes:
        text: the phrase.
        group: its group of the evaluation.
        certainty: its certainty in the concept set; 1 for the target and unrelated phrases.
        found: how the images changed, in words.
    """

    text: str
    group: Group
    certainty: float
    found: str

    @property
    def side(self) -> Side:
        """The side of the concept set that should grow."""
        return "coref" if self.group in ERASING else "retain"

    @property
    def verb(self) -> str:
        """What happened, in a word."""
        return "leaked" if self.side == "coref" else "broke"

    @property
    def held_out(self) -> bool:
        """Whether it is in the probe half."""
        return self.group in ("coref_held_out", "retain_held_out")


def find_failures(concepts: ConceptSet, report: Mapping[str, Any], split: Split) -> list[Failure]:
    """All failures outside the test half, the target first, then the worst first."""
    certainties = {fold(r.text): r.certainty for r in concepts.corefs + concepts.retains}
    found = []
    for prompt in report["groups"]["target"]["prompts"]:
        if prompt["left_out"] is None and 1 - prompt["erased"] / prompt["base"] < ERASED_WELL:
            found.append(Failure(prompt["text"], "target", 1.0, _shown(prompt)))
    for change in (*report["leaks"], *report["broken"]):
        if not split.holds(change["text"]):
            certainty = certainties.get(fold(change["text"]), 1.0)
            found.append(Failure(change["text"], change["group"], certainty, _shown(change)))
    return found


def read_report(folder: Path) -> dict[str, Any]:
    """The report.json of a run.

    Raises:
        RunError: it can't be read, or is not a report.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = {"groups", "leaks", "broken", "judge", "settings", "revision"} - report.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"Cannot read {path}: {error}. Make it again: crce evaluate {folder}") from error
    if missing:
        raise RunError(f"{path} is not a report: {min(missing)!r} is missing. Make it again: crce evaluate {folder}")
    return report


def covers(report: dict[str, Any], erasure: Erasure, images: int | None) -> bool:
    """Whether a report of this run is scored and covers all held-out phrases, with the wanted number of images."""
    if report["revision"] != erasure.info["revision"] or report["judge"] is None:
        return False
    if not is_known(report["judge"]["name"]) or images not in (None, report["settings"]["images_per_prompt"]):
        return False
    return all(
        [p["text"] for p in report["groups"][name]["prompts"]] == [r.text for r in related]
        for name, related in held_out(erasure.concepts).items()
    )


def _shown(counts: Mapping[str, Any]) -> str:
    return f"recognised in {counts['erased']} of {counts['n']} images, {counts['base']} before"
