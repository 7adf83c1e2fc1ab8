"""What a refinement did, round by round, and refine.json, which holds it and from which it goes on.

RUN/refine.json   the settings, the test half, and for each round what was changed, why, and what came of it
RUN/round-1, ...  each a run folder like any other, with its report, and suggest-exchanges.json if a language model
                  was asked for it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from crce import __version__
from crce.concepts import ConceptSet, read_concepts
from crce.concepts.concept_set import fold
from crce.errors import RunError, SuggestError
from crce.files import write_json
from crce.refine.split import Halves
from crce.suggest.candidates import Side


FILE = "refine.json"
SUGGESTED = "suggest.json"  # the record of the suggestion that a run was erased with
EXCHANGES = "suggest-exchanges.json"  # in a round's folder: what a language model was asked for it, and answered

Outcome = Literal["added", "promoted", "raised", "held-out"]
Stopped = Literal["no gain", "nothing to learn", "all rounds done"]


@dataclass(frozen=True)
class Change:
    """A phrase that a round treats otherwise than the one before.

    Attributes:
        text: the phrase.
        side: coref or retain.
        outcome: added to training, promoted to it from the probe half, raised in certainty, or newly held out.
        certainty: its certainty now.
        source: who proposed it.
        reason: what was found, for the person who reads along.
    """

    text: str
    side: Side
    outcome: Outcome
    certainty: float
    source: str
    reason: str

    @property
    def trained(self) -> bool:
        """Whether the training sees the phrase for the first time."""
        return self.outcome in ("added", "promoted")


@dataclass(frozen=True)
class Round:
    """One erasure of a refinement; number 0 is the run it began with.

    Attributes:
        number: 0, 1, ...
        folder: its run folder.
        concepts: its concept set.
        changes: how the set differs from that of the round it started from.
        notes: what else there is to know, e.g. what the suggester did not know.
        summary: `erased`, `coref_erased`, `kept` and `H` on the test half, as in report.json; empty until measured.
        gain: H less that of the best round before; None for number 0 and until measured.
    """

    number: int
    folder: Path
    concepts: ConceptSet
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    gain: float | None = None

    @property
    def added_corefs(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.trained and c.side == "coref")

    @property
    def added_retains(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.trained and c.side == "retain")

    @property
    def H(self) -> float:
        """H on the test half; 0 until measured."""
        return self.summary["H"]["value"] if self.summary else 0.0


@dataclass(frozen=True)
class Settings:
    """What all rounds share. Those of the drawing are as in report.json."""

    suggester: str
    judge: str
    images_per_prompt: int
    min_gain: float
    seed: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class Refinement:
    """All rounds so far.

    Attributes:
        root: folder of the run that is refined.
        adapter: hash of that run's weights.
        settings: what all rounds share.
        halves: the test half, which is never trained.
        rounds: number 0 and those that followed.
        best: number of the round with the highest H on the test half.
        stopped: why there is no further round; None while it goes on.
    """

    root: Path
    adapter: str
    settings: Settings
    halves: Halves
    rounds: tuple[Round, ...]
    best: int = 0
    stopped: Stopped | None = None

    @property
    def best_round(self) -> Round:
        return self.rounds[self.best]

    def with_round(self, changed: Round) -> Refinement:
        """With a round added, or in place of the one of its number."""
        return replace(self, rounds=(*self.rounds[: changed.number], changed))

    def write(self) -> None:
        """Write refine.json into the root, atomically."""
        rounds = [
            {
                "number": r.number,
                "folder": "." if r.number == 0 else r.folder.name,
                "changes": [asdict(change) for change in r.changes],
                "notes": list(r.notes),
                "summary": r.summary,
                "gain": r.gain,
            }
            for r in self.rounds
        ]
        value = {
            "crce": __version__,
            "adapter": self.adapter,
            "settings": asdict(self.settings),
            "test_half": {"corefs": list(self.halves.corefs), "retains": list(self.halves.retains)},
            "rounds": rounds,
            "best": self.best,
            "stopped": self.stopped,
        }
        write_json(self.root / FILE, value)


def read_refinement(root: Path | str) -> Refinement:
    """Read a run's refine.json.

    Raises:
        RunError: there is none, or it can't be read.
    """
    root = Path(root)
    path = root / FILE
    if not path.is_file():
        raise RunError(f"{root} holds no {FILE}. Refine a finished run: crce refine {root}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        rounds = []
        for r in value["rounds"]:
            folder = root if r["number"] == 0 else root / r["folder"]
            changes = tuple(Change(**change) for change in r["changes"])
            concepts = read_concepts(folder / "concepts.yaml")
            rounds.append(Round(r["number"], folder, concepts, changes, tuple(r["notes"]), r["summary"], r["gain"]))
        test = value["test_half"]
        halves = Halves(rounds[0].concepts.target, tuple(test["corefs"]), tuple(test["retains"]))
        return Refinement(
            root,
            value["adapter"],
            Settings(**value["settings"]),
            halves,
            tuple(rounds),
            value["best"],
            value["stopped"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RunError(
            f"Cannot read {path}: {type(error).__name__} {error}. Move it and {root}/round-* away to refine this "
            "run anew."
        ) from error


def erased_sense(root: Path, target: str) -> str | None:
    """Which meaning of the target was erased, from the record of the run, or of the run that `root` is a round of.

    Raises:
        RunError: the record can't be read.
    """
    from crce.suggest.record import read_record

    path = root / SUGGESTED
    if not path.is_file() and (root.parent / FILE).exists():
        path = root.parent / SUGGESTED
    if not path.is_file():
        return None
    try:
        request = read_record(path).request
    except SuggestError as error:
        raise RunError(
            f"{path} tells which sense of '{target}' was erased, and can't be read. Move it away to refine without. "
            f"{error}"
        ) from error
    return request.sense if fold(request.target) == fold(target) else None


def append_exchanges(folder: Path, exchanges: list[dict[str, Any]]) -> None:
    """Add what a language model was asked for a round to the file of its folder; a round may be planned twice."""
    path = folder / EXCHANGES
    if exchanges:
        try:
            earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        except (OSError, ValueError) as error:
            raise RunError(f"Cannot read {path}: {error}. Move it away.") from error
        write_json(path, [*earlier, *exchanges])


def inherited_halves(root: Path, concepts: ConceptSet) -> Halves | None:
    """The test half of the refinement that `root` is a round of: what was test there is never trained here either."""
    if not (root.parent / FILE).exists():
        return None
    earlier = read_refinement(root.parent)
    if all(r.folder.name != root.name for r in earlier.rounds[1:]):
        return None
    held_out = {fold(r.text) for r in concepts.held_out_corefs + concepts.held_out_retains}
    corefs, retains = (
        tuple(text for text in side if fold(text) in held_out)
        for side in (earlier.halves.corefs, earlier.halves.retains)
    )
    return Halves(concepts.target, corefs, retains)
