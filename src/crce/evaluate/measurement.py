"""One target measured: images of both models, the judge's words, the numbers of its groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crce.concepts import ConceptSet
from crce.evaluate.locality import embedding_distances, measure_locality
from crce.evaluate.model_pair import ModelPair, failures
from crce.evaluate.observe import Questions
from crce.evaluate.quality import make_pairs, measure_quality
from crce.evaluate.scores import ScoredGroup, score_group, summarise_groups
from crce.evaluate.verdict import ScoredTarget
from crce.sampling.pictures import Picture, write_strips


@dataclass(frozen=True)
class MeasuredTarget:
    """A target, its numbers and its images.

    Attributes:
        concepts: its concept set.
        scored: its scored groups and headline numbers.
        judge: the judge as report.json names it, with its calibration.
        parts: what report.json holds of this target alone: failed, groups, quality, locality, seconds.
        before: the base model's images of each prompt.
        after: the erased model's, of the same seeds.
    """

    concepts: ConceptSet
    scored: ScoredTarget
    judge: dict[str, Any] | None
    parts: dict[str, Any]
    before: list[list[Picture]]
    after: list[list[Picture]]


def measure_target(
    models: ModelPair,
    questions: Questions,
    concepts: ConceptSet,
    folder: Path,
    *,
    seed: int,
    quality: bool,
    loading: float,
) -> MeasuredTarget:
    """Generate the images of a target's prompts, judge them, and count.

    Args:
        models: the base and the erased model.
        questions: the groups of the concept set, and the judge.
        concepts: the concept set.
        folder: of its report; strips of the images are written to images/ there.
        seed: of the bootstrap.
        quality: whether drift, quality and locality are measured too.
        loading: seconds that it took to load model and judge, for the report.
    """
    names = [(group.name, prompt.text) for group, prompt in questions.listed]
    clock = time.perf_counter()
    before, after = models.images([text for _, text in names])
    generated = time.perf_counter()
    described = questions.describe()
    judge = described and {**described, **questions.calibrate(models.base)}
    questions.ask(models, questions.prompts)
    groups = score(models, [questions], [seed + i for i in range(len(questions.groups))])
    files = iter(write_strips(folder / "images", names, before, after))
    listed = {name: group.as_json() for name, group in groups.items()}
    for prompt in (prompt for group in listed.values() for prompt in group["prompts"]):
        prompt["image"] = f"images/{next(files)}"
    pairs = make_pairs(names, before, after) if quality else []
    parts = {
        "failed": {"base": failures(before), "erased": failures(after)},
        "groups": listed,
        "quality": measure_quality(pairs, questions.judge, seed=seed) if quality else None,
        "locality": measure_locality(concepts.target, groups, embedding_distances) if quality else None,
        "seconds": {
            "load": loading,
            "draw": round(generated - clock, 2),
            "score": round(time.perf_counter() - generated, 2),
        },
    }
    scored = ScoredTarget(concepts.target, groups, summarise_groups(groups, seed=seed))
    return MeasuredTarget(concepts, scored, judge, parts, before, after)


def score(models: ModelPair, questions: Sequence[Questions], seeds: Sequence[int]) -> dict[str, ScoredGroup]:
    """The groups of all questions by name, with the judge's answers; everything was asked before.

    Args:
        models: the base and the erased model.
        questions: groups and judges.
        seeds: of the bootstrap, one for each group.
    """
    asked = [(question, group) for question in questions for group in question.groups]
    scored = {}
    for (question, group), seed in zip(asked, seeds, strict=True):
        base, erased = (question.answers(side, group.prompts) for side in (models.base, models.erased))
        scored[group.name] = score_group(group, base, erased, seed=seed)
    return scored
