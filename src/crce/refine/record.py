"""The record of a refinement, from which it also resumes.

RUN/refine.json   settings, test half, and for each round its changes, their reasons and its scores
RUN/round-1, ...  run folders, with a report, and suggest-exchanges.json if a language model was asked
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from crce import __version__
from crce.concepts import ConceptSet, read_concepts
from crce.concepts.concept_set import fold
from crce.errors import RunError, SuggestError
from crce.files import read_json, write_json
from crce.refine.split import Split
from crce.suggest.candidates import Side
from crce.suggest.record import IN_RUN, read_record


FILE = "refine.json"
EXCHANGES = "suggest-exchanges.json"  # questions to a language model and its answers, in the folder of a round

Outcome = Literal["added", "promoted", "raised", "held-out"]
Stopped = Literal["no gain", "nothing to learn", "all rounds done"]


@dataclass(frozen=True)
class PhraseChange:
    """A phrase that a round treats differently from the previous one."""

    text: str
    side: Side
    outcome: Outcome  # "promoted" is from the probe half to training, "raised" is its certainty
    certainty: float
    source: str
    reason: str


@dataclass(frozen=True)
class Round:
    """One erasure of a refinement; number 0 is the run itself.

    The summary is that of report.json, on the test half; empty until measured.
    """

    number: int
    folder: Path
    concepts: ConceptSet
    changes: tuple[PhraseChange, ...] = ()  # from the concept set of the round that it started from
    notes: tuple[str, ...] = ()  # e.g. on phrases that the suggester does not know
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    gain: float | None = None  # in H over the best round before; None for number 0 and until measured

    def added(self, side: Side) -> tuple[PhraseChange, ...]:
        """The phrases of a side that are new in training."""
        return tuple(c for c in self.changes if c.side == side and c.outcome in ("added", "promoted"))

    @property
    def H(self) -> float:
        """H on the test half, or H3 where nothing unrelated can be measured; 0 until measured."""
        found = (self.summary[name]["value"] for name in ("H", "H3") if name in self.summary)
        return next((value for value in found if value is not None), 0.0)


@dataclass(frozen=True)
class RefineSettings:
    """Settings of all rounds; those of the sampler are as in report.json."""

    suggester: str
    judge: str
    images_per_prompt: int
    min_gain: float
    seed: int
    steps: int | None  # None: those of the model, with its solver
    guidance: float
    threshold: float | None = None  # of the judge


@dataclass(frozen=True)
class Refinement:
    """All rounds so far."""

    root: Path  # of the run that is refined
    adapter: str  # hash of that run's weights
    settings: RefineSettings
    split: Split
    rounds: tuple[Round, ...]
    best: int = 0  # number of the round with the highest H on the test half
    stopped: Stopped | None = None  # why there are no more rounds

    @property
    def best_round(self) -> Round:
        return self.rounds[self.best]

    def with_round(self, changed: Round) -> Refinement:
        """A copy with a round added, or replaced if its number exists."""
        return replace(self, rounds=(*self.rounds[: changed.number], changed))

    def write(self) -> None:
        """Write refine.json into the root, atomically."""
        rounds = [asdict(r) | {"folder": r.folder.name if r.number else "."} for r in self.rounds]
        for entry in rounds:
            del entry["concepts"]  # they are in the folder of the round
        value = {"crce": __version__, "adapter": self.adapter, "settings": asdict(self.settings)}
        value["test_half"] = {"corefs": self.split.corefs, "retains": self.split.retains}
        write_json(self.root / FILE, value | {"rounds": rounds, "best": self.best, "stopped": self.stopped})


def read_refinement(root: Path | str) -> Refinement:
    """Read a run's refine.json.

    Raises:
        RunError: there is none, or it can't be read.
    """
    root = Path(root)
    path = root / FILE
    if not path.is_file():
        raise RunError(f"{root} has no {FILE}. Refine a finished run: crce refine {quote(str(root))}")
    cure = f"Move it and {root}/round-* away to refine this run from the start."
    try:
        value = read_json(path, dict[str, Any], cure)
        rounds = []
        for r in value["rounds"]:
            folder = root / r["folder"]  # "." for number 0
            changes = tuple(PhraseChange(**change) for change in r["changes"])
            concepts = read_concepts(folder / "concepts.yaml")
            rounds.append(Round(r["number"], folder, concepts, changes, tuple(r["notes"]), r["summary"], r["gain"]))
        test = value["test_half"]
        split = Split(rounds[0].concepts.target, tuple(test["corefs"]), tuple(test["retains"]))
        settings = RefineSettings(**value["settings"])
        return Refinement(root, value["adapter"], settings, split, tuple(rounds), value["best"], value["stopped"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"Cannot read {path}: {type(error).__name__} {error}. {cure}") from error


def erased_sense(root: Path, target: str) -> str | None:
    """The sense of the target that was erased, from the record of the run, or of the run that `root` is a round of.

    Raises:
        RunError: the record can't be read.
    """
    places = [root / IN_RUN, *([root.parent / IN_RUN] if (root.parent / FILE).exists() else [])]
    path = next(filter(Path.is_file, places), None)
    if path is None:
        return None
    try:
        request = read_record(path).request
    except SuggestError as error:
        unread = f"{path} says which sense of '{target}' was erased, and can't be read."
        raise RunError(f"{unread} Move it away to refine without it. {error}") from error
    return request.sense if fold(request.target) == fold(target) else None


def append_exchanges(folder: Path, exchanges: list[dict[str, Any]]) -> None:
    """Append the questions and answers of a round to the file in its folder; a round may be planned twice."""
    path = folder / EXCHANGES
    if exchanges:
        earlier = read_json(path, list[dict[str, Any]], "Move it away.") if path.exists() else []
        write_json(path, [*earlier, *exchanges])


def inherited_split(root: Path, concepts: ConceptSet) -> Split | None:
    """The split of the refinement that `root` is a round of: its test half is never trained here either."""
    if not (root.parent / FILE).exists():
        return None
    earlier = read_refinement(root.parent)
    if all(r.folder.name != root.name for r in earlier.rounds[1:]):
        return None
    held_out = {fold(r.text) for r in concepts.held_out_corefs + concepts.held_out_retains}
    sides = (earlier.split.corefs, earlier.split.retains)
    return Split(concepts.target, *(tuple(text for text in side if fold(text) in held_out) for side in sides))
