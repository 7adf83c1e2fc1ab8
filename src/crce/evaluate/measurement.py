"""Groups of prompts measured: images of both models, the judge's words, and the numbers of each group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crce.concepts import ConceptSet
from crce.evaluate.model_pair import ModelPair, failures
from crce.evaluate.observe import Images, Questions, observe
from crce.evaluate.prompts import PAIRS, SHOWN, spread
from crce.evaluate.quality import embedding_distances, make_pairs, measure_locality, measure_quality
from crce.evaluate.scores import ScoredGroup, score_group
from crce.evaluate.settings import ConceptSetSettings
from crce.evaluate.stats import ALPHA
from crce.sampling.pictures import Picture, write_strips


@dataclass(frozen=True)
class MeasuredTarget:
    """A target, its numbers and its images."""

    concepts: ConceptSet
    groups: Mapping[str, ScoredGroup]  # by name
    judge: dict[str, Any] | None  # as report.json names it, with its calibration
    parts: dict[str, Any]  # what report.json holds of this target alone: failed, groups, quality, locality, seconds
    names: list[tuple[str, str]]  # group and text of each prompt
    before: list[list[Picture]]  # the base model's images of each prompt
    after: list[list[Picture]]  # the erased model's, of the same seeds


def measure_target(
    models: ModelPair,
    questions: Questions,
    concepts: ConceptSet,
    folder: Path,
    settings: ConceptSetSettings,
    spent: dict[str, float],
) -> MeasuredTarget:
    """Generate the images of a target's prompts, judge them, count, and write strips of them to FOLDER/images.

    `spent` are the seconds of the report so far, to which those spent here are added.
    """
    names = [(group.name, prompt.text) for group, prompt in questions.listed]
    most = min(settings.images_per_prompt or 1, PAIRS)
    clock = time.perf_counter()
    before, after = models.images([text for _, text in names])
    generated = time.perf_counter()
    learned = questions.calibrate(models.base)
    judge = questions.describe()
    if judge is not None:
        judge |= learned
    questions.ask(models, questions.prompts)
    groups = score(models, [questions], settings.alpha)
    files = iter(write_strips(folder / "images", names, *([row[:most] for row in side] for side in (before, after))))
    listed = {name: group.as_json() for name, group in groups.items()}
    for prompt in (prompt for group in listed.values() for prompt in group["prompts"]):
        prompt["image"] = f"images/{next(files)}"
    quality = locality = None
    if settings.quality:
        quality = measure_quality(make_pairs(names, before, after), questions.judge)
        locality = measure_locality(concepts.target, groups, embedding_distances)
    spent["draw"] = round(spent.get("draw", 0) + generated - clock, 2)
    spent["score"] = round(spent.get("score", 0) + time.perf_counter() - generated, 2)
    parts = {
        "failed": {"base": failures(before), "erased": failures(after)},
        "groups": listed,
        "quality": quality,
        "locality": locality,
        "seconds": dict(spent),
    }
    return MeasuredTarget(concepts, groups, judge, parts, names, before, after)


def score(models: ModelPair, questions: Sequence[Questions], alpha: float = ALPHA) -> dict[str, ScoredGroup]:
    """The groups of all questions by name, with the answers of the judge, which was asked before."""
    scored = {}
    for own in questions:
        for group in own.groups:
            base, erased, *probe = (own.answers(side, group.prompts) for side in models.sides)
            scored[group.name] = score_group(group, base, erased, probe[0] if probe else None, alpha)
    return scored


def measure_prompt_set(
    models: ModelPair, questions: Sequence[Questions], started: float
) -> tuple[dict[str, ScoredGroup], Images, dict[str, Any]]:
    """Generate and judge the images of a prompt set, and count.

    Returns:
        The scored groups by name, the images that the page shows, and the judges, failed and seconds of report.json.
    """
    loaded = time.perf_counter()
    for own in questions:
        models.base.images([prompt.text for known in own.known_images() for prompt in known])
    learned = [own.calibrate(models.base) for own in questions]
    shown = {prompt.text for own in questions for group in own.groups for prompt in spread(group.prompts, SHOWN)}
    images = observe(models, questions, list(models.plan.own_seeds), shown)
    judges = [
        {"of": own.domain or "all", **described, **{name: value for name, value in calibration.items() if value}}
        for own, calibration in zip(questions, learned, strict=True)
        if (described := own.describe())
    ]
    seconds = {"load": round(loaded - started, 2), "draw and judge": round(time.perf_counter() - loaded, 2)}
    return score(models, questions), images, {"judges": judges, "failed": models.failed, "seconds": seconds}
