"""Evaluate a run: with the prompts of its concept sets, or with a prompt set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.evaluate.measurement import MeasuredTarget, measure_target, score
from crce.evaluate.model_pair import Drawn, ModelPair, SamplingPlan
from crce.evaluate.observe import concept_set_questions, observe, prompt_set_questions
from crce.evaluate.page import SHOWN, render_prompt_set, render_target, render_targets
from crce.evaluate.prompt_sets.prompt_set import PromptSet, measured_set, sample, seeds_of
from crce.evaluate.prompt_sets.table import load_prompt_set
from crce.evaluate.prompts import TITLES, spread
from crce.evaluate.report import PromptReport, Report, prompt_set_json, target_folders, target_json, targets_json
from crce.evaluate.settings import ConceptSetSettings, PromptSetSettings
from crce.files import slug
from crce.judges import choose_judge
from crce.sampling.pictures import write_sheet
from crce.training import Erasure


if TYPE_CHECKING:
    from typing_extensions import Unpack

    from crce.backbones import Backbone
    from crce.evaluate.settings import ConceptSetKeywords, PromptSetKeywords
    from crce.sampling import ImageCache

PROMPTS = "prompts"  # folder of the reports of prompt sets


def evaluate(
    run: Path | str | Erasure,
    *,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    image_cache: ImageCache | None = None,
    **settings: Unpack[ConceptSetKeywords],
) -> Report:
    """Measure what an erasure erased and what it kept; write report.json, report.html and images/ into its folder.

    Image k of every prompt is generated from seed + k, by the base and by the erased model, in the scenes of the run
    if it has some (unrelated things without a scene). Images are kept under pictures/: an evaluation that was stopped
    continues where it was, and another judge sees the same images. Of a run with several targets each is measured by
    itself, under targets/; the numbers of the run are those of all together. Where there is no judge, a dozen pairs of
    images are generated for a person to look at, in report.html and on a contact sheet, sheet.png.

    Args:
        run: a finished run, or its folder.
        on_event: called after each batch of images.
        backbone: the run's base model, if it is loaded already. Returned unchanged.
        image_cache: images of the base model that several runs share; read and filled.
        settings: `images_per_prompt`, `seed`, `judge`, `quality` and the others of
            `crce.evaluate.settings.ConceptSetSettings`.

    Raises:
        ConfigError: a number is out of range, or there is no such judge.
        ModelError: the base model, or the judge's, can't be loaded, or the judge can't be asked.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no room for the report.

    Examples:
        >>> import crce
        >>> report = crce.evaluate("runs/cat", images_per_prompt=1, steps=2, phrases_per_group=1)
        >>> sorted(report.summary)
        ['H', 'coref_erased', 'erased', 'kept']
        >>> report.path_html.as_posix()
        'runs/cat/report.html'
    """
    started = time.perf_counter()
    chosen = ConceptSetSettings(**settings)
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    steps, guidance = chosen.sampling(erasure.sampling)
    chosen = replace(chosen, steps=steps, guidance=guidance)
    info, trace = erasure.info, _trace(erasure.folder)
    questions, chosen = concept_set_questions(erasure, chosen)
    texts = [{prompt.text: None for prompt in own.prompts} for own in questions]
    alone = frozenset(p.text for own in questions for g in own.groups if g.name == "unrelated" for p in g.prompts)
    seeds = [chosen.seed + k for k in range(chosen.images_per_prompt or 1)]
    plan = SamplingPlan(seeds, steps, guidance, erasure.config.scenes, alone)
    measured: list[MeasuredTarget] = []
    reports: list[Report] = []
    needed = {text: None for own in texts for text in own}
    with ModelPair(erasure, plan, needed, chosen, shared=image_cache, backbone=backbone, on_event=on_event) as models:
        loading = round(time.perf_counter() - started, 2)
        for i, (concepts, folder) in enumerate(zip(erasure.sets, target_folders(erasure.sets), strict=True)):
            place = erasure.folder / folder
            target = measure_target(
                models, questions[i], concepts, place, seed=chosen.seed, quality=chosen.quality, loading=loading
            )
            measured.append(target)
            reports.append(Report(place, target_json(target, erasure, chosen)))
            overview = "../../report.html" if len(erasure.sets) > 1 else None
            reports[i].write(render_target(reports[i].data, target, info=info, trace=trace, overview=overview))
            # The images of many targets don't fit in memory together; those of the caller's cache are the caller's.
            for side in (models.erased, models.base) if image_cache is None else (models.erased,):
                side.forget(set(texts[i]).difference(*texts[i + 1 :]))
    report = reports[0]
    if len(reports) > 1:
        own = [each.data for each in reports]
        report = Report(erasure.folder, targets_json(measured, own, erasure, chosen, questions[0].describe(), models))
        report.write(render_targets(report.data, measured, own, info=info, trace=trace))
    report.keep_for(questions[0].judge)
    if questions[0].judge is None:
        rows = [
            (f"{TITLES[group.name]}: {prompt.text}", (*before, *after))
            for target, own in zip(measured, questions, strict=True)
            for (group, prompt), before, after in zip(own.listed, target.before, target.after, strict=True)
        ]
        write_sheet(erasure.folder, rows)
    return report


def evaluate_prompts(
    run: Path | str | Erasure,
    prompts: str | PromptSet,
    *,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    **settings: Unpack[PromptSetKeywords],
) -> PromptReport:
    """Measure an erasure with the prompts of a public benchmark, or with one's own, as their authors count.

        RUN/prompts/SET/report.json      numbers, groups and every word of the judge
        RUN/prompts/SET/report.html      the numbers, and images of some prompts
        RUN/prompts/SET/reports/         the latest report.json of each judge

    A number is the share of all images that the judge recognises (or, of UA, does not), whether or not the base model
    draws the prompt well: that is what the benchmarks publish. The base model's own share stands beside it.

    Args:
        run: a finished run, or its folder.
        prompts: hub:FOLDER, unlearn-canvas:FOLDER, a file (.csv, .json, .txt), or a prompt set that was read already.
        on_event: called after each batch of images.
        backbone: the run's base model, if it is loaded already. Returned unchanged.
        settings: `concept`, `limit`, `images_per_prompt`, `judge` and the others of
            `crce.evaluate.settings.PromptSetSettings`.

    Raises:
        ConfigError: a number is out of range, there is no such judge or set, or the set has no such concept.
        ConceptError: a file of the set is malformed.
        ModelError: the base model, or the judge's, can't be loaded, or the judge can't be asked.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no room for the report.
    """
    started = time.perf_counter()
    chosen = PromptSetSettings(**settings)
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    steps, guidance = chosen.sampling(erasure.sampling)
    chosen = replace(chosen, steps=steps, guidance=guidance)
    concepts = measured_set(erasure.sets, chosen.concept)
    prompt_set = load_prompt_set(prompts, concepts, chosen.concept) if isinstance(prompts, str) else prompts
    groups = [sample(group, chosen.limit, chosen.seed) for group in prompt_set.groups]
    judge = choose_judge(chosen.judge, erasure.info["model"], erasure.sets, device=chosen.device)
    least = chosen.threshold if chosen.threshold is not None else judge.threshold if judge else 0.0
    questions = prompt_set_questions(groups, judge, erasure, concepts, prompt_set.concept, least)
    seeds = seeds_of(groups, chosen.images_per_prompt, chosen.seed)
    plan = SamplingPlan([chosen.seed], steps, guidance, own_seeds=seeds)
    with ModelPair(erasure, plan, seeds, chosen, backbone=backbone, on_event=on_event) as models:
        loaded = time.perf_counter()
        for own in questions:
            models.base.images([prompt.text for known in own.known_images() for prompt in known])
        learned = [own.calibrate(models.base) for own in questions]
        shown = {prompt.text for group in groups for prompt in spread(group.prompts, SHOWN)}
        images = observe(models, questions, list(seeds), shown)
    scored = score(models, questions, [chosen.seed] * len(groups))
    parts = {
        "judges": [
            {"of": own.domain or "all", **described, **{name: value for name, value in calibration.items() if value}}
            for own, calibration in zip(questions, learned, strict=True)
            if (described := own.describe())
        ],
        "failed": {"base": models.base.failed, "erased": models.erased.failed},
        "seconds": {"load": round(loaded - started, 2), "draw and judge": round(time.perf_counter() - loaded, 2)},
    }
    folder = erasure.folder / PROMPTS / prompt_set.name
    report = PromptReport(
        folder / slug(concepts.target) if len(erasure.sets) > 1 else folder,
        prompt_set_json(prompt_set, concepts, scored, erasure, chosen, seeds, parts),
    )
    report.write(render_prompt_set(report.data, images, info=erasure.info))
    report.keep_for(judge)
    return report


def _trace(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first; none if the run has no such file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
