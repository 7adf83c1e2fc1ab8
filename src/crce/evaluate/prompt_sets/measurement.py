"""Draw a prompt set with the base and the erased model, judge both, and count as the set's authors count.

    RUN/prompts/SET/report.json      numbers, groups and every word of the judge
    RUN/prompts/SET/report.html      the numbers, and pictures of some prompts
    RUN/prompts/SET/reports/         the latest report.json of each judge

The pictures lie with those of all evaluations of the run (`crce.sampling.image_cache`). A number is the share of all
pictures that the judge recognises (or, of UA, does not), whether or not the base model draws the prompt well: that is
what the benchmarks publish. The base model's own share stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet
from crce.errors import ConfigError
from crce.evaluate.evaluation import REPORTS
from crce.evaluate.groups import NO_JUDGE, spread
from crce.evaluate.observe import Drawn, ModelPair, SamplingPlan
from crce.evaluate.prompt_sets.judging import View, make_views
from crce.evaluate.prompt_sets.page import render_prompts
from crce.evaluate.prompt_sets.protocol import PromptGroup, PromptSet, key, listed, sample
from crce.evaluate.prompt_sets.table import load_prompt_set
from crce.evaluate.scores import ScoredGroup, score_group
from crce.evaluate.stats import RateComparison, compare
from crce.files import slug, write_json, write_text
from crce.judges import choose_judge
from crce.judges.judge import describe_judge
from crce.sampling.image_cache import ImageCache
from crce.sampling.pictures import Picture
from crce.training import Erasure


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge

FOLDER = "prompts"
CHUNK = 32  # prompts whose pictures are in memory at once
SHOWN = 6  # prompts of a group that the page shows

Pictures = Mapping[str, tuple[list[Picture], list[Picture]]]
"""By text the base model's pictures and the erased model's."""


@dataclass(frozen=True)
class PromptReport:
    """What a prompt set left in the run folder.

    Attributes:
        folder: RUN/prompts/SET; of a run with several targets RUN/prompts/SET/TARGET.
        data: the content of report.json.
    """

    folder: Path
    data: dict[str, Any]

    @property
    def path_json(self) -> Path:
        return self.folder / "report.json"

    @property
    def path_html(self) -> Path:
        return self.folder / "report.html"

    @property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """By the set's name of a number its `base`, `erased` and `difference`, or the `reason` that there is none."""
        return {number["name"]: number for number in self.data["numbers"]}


def evaluate_prompts(
    run: Path | str | Erasure,
    prompts: str | PromptSet,
    *,
    concept: str | None = None,
    limit: int | None = None,
    images_per_prompt: int | None = None,
    seed: int = 1000,
    steps: int = 20,
    guidance: float = 4.0,
    judge: str | Judge = "auto",
    threshold: float | None = None,
    batch: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
) -> PromptReport:
    """Measure an erasure with the prompts of a public benchmark, or with one's own.

    Args:
        run: a finished run, or its folder.
        prompts: hub:FOLDER, unlearn-canvas:FOLDER, a file (.csv, .json, .txt), or a set that was read already.
        concept: the set's name of what the run erased, where that is another; of a run with several targets, which.
        limit: most prompts of each group, sampled with `seed`; None takes all.
        images_per_prompt: pictures for each prompt and model; None takes as many as the set's authors do.
        seed: of each prompt's first picture where the set brings no seeds, of the sample and of the bootstrap.
        steps: sampling steps.
        guidance: classifier-free guidance scale.
        judge: a judge or its name (see `crce.judges.load_judge`).
        threshold: the lowest probability at which the judge's word counts; None takes the judge's own.
        batch: pictures drawn at once; 0 picks by the size of the model's latents.
        device: where to draw, unless `backbone` is given.
        dtype: in which numbers, likewise; None takes those of the training.
        on_event: is told of every drawn batch.
        backbone: the run's base model, already loaded. Returned unchanged.

    Raises:
        ConfigError: a number is out of range, there is no such judge or set, or the set has no such concept.
        ConceptError: a file of the set is not as it should be.
        ModelError: the base model, or the judge's, can't be loaded, or the judge can't be asked.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no room for the report.
    """
    for name, value in {"limit": limit, "images_per_prompt": images_per_prompt, "steps": steps}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}. Use 1 or more.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold:g}. Use a probability from 0 to 1.")
    started = time.perf_counter()
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    concepts = _measured(erasure, concept)
    prompt_set = load_prompt_set(prompts, concepts, concept) if isinstance(prompts, str) else prompts
    groups = [sample(group, limit, seed) for group in prompt_set.groups]
    picked = choose_judge(judge, erasure.info["model"], erasure.sets, device=device)
    least = threshold if threshold is not None else picked.threshold if picked else 0.0
    seeds = _seeds(groups, images_per_prompt, seed)
    info = erasure.info
    total = 2 * sum(map(len, seeds.values()))
    plan = SamplingPlan([seed], steps, guidance, own_seeds=seeds)
    models = ModelPair(
        erasure,
        plan,
        ImageCache(erasure.folder),
        total,
        backbone=backbone,
        device=device,
        dtype=dtype,
        batch=batch,
        on_event=on_event,
    )
    views = make_views(prompt_set, groups, picked, erasure, concepts, least)
    models.load_for(seeds)
    loaded = time.perf_counter()
    shown = {row.text for group in groups for row in spread(group.rows, SHOWN)}
    with models:
        calibrations = _calibrate(views, models)
        pictures = dict(_see(views, models, list(seeds), shown))
    scored = _score(views, models, seed)
    compared = {name: _compare(group, seed) for name, group in scored.items()}
    data = {
        "set": {
            "name": prompt_set.name,
            "title": prompt_set.title,
            "source": str(prompt_set.source),
            "concept": prompt_set.concept,
            "drawn": prompt_set.drawn,
        },
        "target": concepts.target,
        "kind": concepts.kind,
        "model": info["model"],
        "revision": info["revision"],
        "numbers": [_number(prompt_set, i, scored, compared) for i in range(len(prompt_set.numbers))],
        "unmeasured": dict(prompt_set.unmeasured),
        "judges": [
            {"of": view.domain or "all", **described, **({"calibration": learned} if learned else {})}
            for view, learned in zip(views, calibrations, strict=True)
            if (described := describe_judge(view.judge, least))
        ],
        "settings": {
            "images_per_prompt": images_per_prompt,
            "limit": limit,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
        },
        "failed": {"base": models.base.failed, "erased": models.erased.failed},
        "groups": {
            group.name: {
                "title": group.title,
                "of": len({row.text for row in group.rows}),
                **scored[group.name].as_json(),
                "comparison": c.as_json() if (c := compared[group.name]) else None,
            }
            for group in prompt_set.groups
        },
        "seconds": {"load": round(loaded - started, 2), "draw and judge": round(time.perf_counter() - loaded, 2)},
    }
    for entry in data["groups"].values():
        for prompt in entry["prompts"]:
            prompt["seeds"] = list(seeds[prompt["text"]])
    folder = erasure.folder / FOLDER / prompt_set.name
    report = PromptReport(folder / slug(concepts.target) if len(erasure.sets) > 1 else folder, data)
    write_json(report.path_json, data)
    write_text(report.path_html, render_prompts(data, pictures, info=info, shown=SHOWN))
    if picked:
        write_json(report.folder / REPORTS / f"{slug(picked.name)}.json", data)
    return report


def _measured(erasure: Erasure, concept: str | None) -> ConceptSet:
    """What of a run is measured: its target, or of several the one that `concept` names."""
    if len(erasure.sets) == 1:
        return erasure.sets[0]
    for concepts in erasure.sets:
        if concept is not None and key(concepts.target) == key(concept):
            return concepts
    what = "Name one with --concept" if concept is None else f"--concept is {concept!r}. Name one of them"
    targets = listed([c.target for c in erasure.sets])
    raise ConfigError(f"The run erases {len(erasure.sets)} targets: {targets}. {what}.")


def _seeds(groups: Sequence[PromptGroup], images: int | None, seed: int) -> dict[str, tuple[int, ...]]:
    """By text the seeds of its pictures; a text that stands in several rows has those of all of them."""
    seeds: dict[str, tuple[int, ...]] = {}
    for group in groups:
        for row in group.rows:
            count = images or group.images
            own = row.seeds or (seed,)
            own = (*own[:count], *(own[-1] + k for k in range(1, count - len(own) + 1)))
            seeds[row.text] = tuple(dict.fromkeys((*seeds.get(row.text, ()), *own)))
    return seeds


def _calibrate(views: Sequence[View], models: ModelPair) -> list[dict[str, Any] | None]:
    """What the judges learned from the base model's pictures; for most of them nothing."""
    for view in views:
        models.base.images([prompt.text for prompts in view.to_calibrate() for prompt in prompts])
    return [view.calibrate(models.base) for view in views]


def _see(
    views: Sequence[View], models: ModelPair, texts: Sequence[str], shown: set[str]
) -> Iterator[tuple[str, tuple[list[Picture], list[Picture]]]]:
    """Draw and judge every text, a few at a time, and give the pictures of those that are shown."""
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        before, after = models.images(part)
        for view in views:
            view.see(models, set(part))
        for text, above, below in zip(part, before, after, strict=True):
            if text in shown:
                yield text, (above, below)
        for side in (models.base, models.erased):
            side.forget(part)


def _score(views: Sequence[View], models: ModelPair, seed: int) -> dict[str, ScoredGroup]:
    """The groups with what the judge said; nothing is drawn or asked any more."""
    scored = {}
    for view in views:
        for group in view.groups:
            words = [view.observer.words(side, group.prompts) for side in (models.base, models.erased)]
            scored[group.name] = score_group(group, words[0], words[1], seed=seed)
    return scored


def _compare(group: ScoredGroup, seed: int) -> RateComparison | None:
    """A group before and after, over all its pictures that the judge can tell about."""
    return compare([p.recognition for p in group.prompts if p.recognition is not None], seed=seed)


def _number(
    prompt_set: PromptSet, place: int, scored: Mapping[str, ScoredGroup], compared: Mapping[str, RateComparison | None]
) -> dict[str, Any]:
    """A number as report.json holds it."""
    number = prompt_set.numbers[place]
    group, comparison = scored[number.group], compared[number.group]
    better = "lower" if group.group.erasing and not number.complement else "higher"
    head = {"name": number.name, "group": number.group, "better": better}
    if comparison is None:
        reasons = {p.left_out for p in group.prompts if p.left_out}
        many = f"none of its {len(group.prompts)} prompts can be scored"
        return {**head, "reason": reasons.pop() if len(reasons) == 1 else many if reasons else NO_JUDGE}
    if number.complement:
        comparison = comparison.complement
    return {**head, **comparison.as_json()}
