"""One target of a run, measured: drawn by both models, judged, compared, and written down."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.evaluate.groups import KEEPING, Group, Prompt, spread
from crce.evaluate.locality import embedding_distances, measure_locality
from crce.evaluate.observe import ModelPair, Observer, failures
from crce.evaluate.quality import make_pairs, measure_quality
from crce.evaluate.rates import compare_groups, comparisons_json, say_significance
from crce.evaluate.report import render
from crce.evaluate.scores import ScoredGroup, Words, score_group, summarise_groups
from crce.evaluate.targets import Target
from crce.evaluate.verdict import make_verdict
from crce.files import write_json, write_text
from crce.judges.judge import CalibratedJudge
from crce.sampling.pictures import Picture, write_strips
from crce.training import Erasure


if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.concepts import ConceptSet
    from crce.judges import Judge

CALIBRATION = 24  # pictures on each side, at most, that tell what a judge's answers are worth


@dataclass
class Gauge:
    """Measures the targets of a run one after the other.

    Attributes:
        erasure: the run.
        observer: the judge with its words.
        seed: of the bootstrap.
        quality: whether drift, quality and locality are measured too.
        models: the base and the erased model.
        common: what the reports of all targets say alike.
        loading: seconds that loading took.
    """

    erasure: Erasure
    observer: Observer
    seed: int
    quality: bool
    models: ModelPair
    common: Mapping[str, Any]
    loading: float

    def measure(self, concepts: ConceptSet, groups: Sequence[Group], folder: Path, overview: str | None) -> Target:
        """Draw, score and report one target.

        Args:
            concepts: its concept set.
            groups: the prompts of the set.
            folder: where its report goes, relative to the run's folder.
            overview: where the page of all targets is, relative to its own; None if there is no other target.
        """
        names = [(group.name, prompt.text) for group in groups for prompt in group.prompts]
        prompts = [prompt for group in groups for prompt in group.prompts]
        texts = [text for _, text in names]
        clock = time.perf_counter()
        before, after = self.models.images(texts)
        drawn = time.perf_counter()
        judge = self._described(groups, before)
        sides = (self.models.base, self.models.erased)
        base_words, erased_words = (self.observer.words(side, prompts) for side in sides)
        scored = _score(groups, base_words, erased_words, self.seed)
        summary = summarise_groups(scored, seed=self.seed)
        compared = compare_groups(scored, seed=self.seed)
        info = self.erasure.info
        verdict = make_verdict(concepts.target, scored, summary, info["config"])
        files = write_strips(self.erasure.folder / folder / "images", names, before, after)
        data = {
            "target": concepts.target,
            "kind": concepts.kind,
            "model": self.common["model"],
            "revision": self.common["revision"],
            "summary": {name: measure.as_json() for name, measure in summary.items()},
            "verdict": verdict.text,
            "points": [dict(vars(point)) for point in verdict.points],
            "comparisons": comparisons_json(compared) if self.judge else None,
            "significance": say_significance(compared) if self.judge else [],
            "leaks": [change.as_json() for change in verdict.leaks],
            "broken": [change.as_json() for change in verdict.broken],
            "judge": judge,
            "settings": self.common["settings"],
            "failed": {"base": failures(before), "erased": failures(after)},
            "groups": _groups_json(scored, files),
            **self._quality(concepts, scored, names, before, after),
            "seconds": {
                "load": self.loading,
                "draw": round(drawn - clock, 2),
                "score": round(time.perf_counter() - drawn, 2),
            },
        }
        path = self.erasure.folder / folder
        write_json(path / "report.json", data)
        trace = read_trace(self.erasure.folder)
        page = render(data, before, after, concepts=concepts, info=info, trace=trace, overview=overview)
        write_text(path / "report.html", page)
        return Target(concepts, folder, scored, summary, verdict, data, before[0], after[0])

    @property
    def judge(self) -> Judge | None:
        return self.observer.judge

    def _described(self, groups: Sequence[Group], before: Sequence[list[Picture]]) -> dict[str, Any] | None:
        """The judge as the report names it, calibrated on the base model's pictures where it can be."""
        described = self.common["judge"]
        if not isinstance(self.judge, CalibratedJudge):
            return described
        prompts = [(group.name, prompt) for group in groups for prompt in group.prompts]
        shown, absent = _known_pictures(prompts, before, getattr(self.judge, "known_pictures", CALIBRATION))
        return {**described, "calibration": self.judge.calibrate(shown, absent)}

    def _quality(
        self,
        concepts: ConceptSet,
        scored: Mapping[str, ScoredGroup],
        names: Sequence[tuple[str, str]],
        before: list[list[Picture]],
        after: list[list[Picture]],
    ) -> dict[str, Any]:
        if not self.quality:
            return {"quality": None, "locality": None}
        return {
            "quality": measure_quality(make_pairs(names, before, after), self.judge, seed=self.seed),
            "locality": measure_locality(concepts.target, scored, embedding_distances),
        }


def read_trace(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first; none if the run left no such file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _known_pictures(
    prompts: Sequence[tuple[str, Prompt]], before: Sequence[list[Picture]], most: int
) -> tuple[list[tuple[Image, str]], list[tuple[Image, str]]]:
    """The base model's pictures with the class they were asked for, and those of other things with the target's."""
    target = prompts[0][1].expected
    shown, absent = [], []
    for (name, prompt), pictures in zip(prompts, before, strict=True):
        for picture in pictures:
            if picture is None or prompt.expected is None:
                continue
            shown.append((picture, prompt.expected))
            if name in KEEPING and target is not None:
                absent.append((picture, target))
    return spread(shown, most), spread(absent, most)


def _score(
    groups: Sequence[Group],
    base_words: Sequence[Words] | None,
    erased_words: Sequence[Words] | None,
    seed: int,
) -> dict[str, ScoredGroup]:
    scored, start = {}, 0
    for i, group in enumerate(groups):
        part = slice(start, start + len(group.prompts))
        words = (base_words[part], erased_words[part]) if base_words and erased_words else (None, None)
        scored[group.name] = score_group(group, *words, seed=seed + i)
        start = part.stop
    return scored


def _groups_json(scored: Mapping[str, ScoredGroup], files: Sequence[str]) -> dict[str, Any]:
    groups = {name: group.as_json() for name, group in scored.items()}
    names = iter(files)
    for group in groups.values():
        for prompt in group["prompts"]:
            prompt["image"] = f"images/{next(names)}"
    return groups
