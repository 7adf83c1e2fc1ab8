"""Evaluate a run: with the prompts of its concept sets, or with a prompt set."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crce.backbones import Backbone
from crce.backbones.loading import pick_device
from crce.evaluate.base_words import BaseWords
from crce.evaluate.measurement import measure_prompt_set, measure_target
from crce.evaluate.model_pair import Drawn, ModelPair, base_state
from crce.evaluate.observe import concept_set_questions, prompt_set_questions
from crce.evaluate.prompt_sets.prompt_set import PromptSet, measured_set
from crce.evaluate.prompt_sets.table import load_prompt_set
from crce.evaluate.report import PromptReport, Report, report_prompt_set, report_run, report_target, target_folders
from crce.evaluate.settings import (
    LOOKS,
    SLICES,
    ConceptSetSettings,
    PromptSetSettings,
    all_images,
)
from crce.evaluate.verdict import BROKEN_SHARE, ERASED_WELL, LEAK_SHARE
from crce.sampling import ImageCache
from crce.training import Erasure
from crce.training.run_folder import alone


THRESHOLDS = {"erased": ERASED_WELL, "coref_erased": 1 - LEAK_SHARE, "kept": BROKEN_SHARE}
PRECISION = 0.1  # half the width of an interval that is narrow enough, wherever it lies


def decided(summary: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether each headline number that can be measured lies beyond its threshold with its interval, or is precise."""
    numbers = [(summary[name], least) for name, least in THRESHOLDS.items() if summary[name]["value"] is not None]
    return all(
        not number["low"] <= least <= number["high"] or number["high"] - number["low"] <= 2 * PRECISION
        for number, least in numbers
    )


@alone
def evaluate(
    run: Path | str | Erasure,
    *,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    image_cache: ImageCache | None = None,
    **settings: Any,
) -> Report:
    """Measure what an erasure erased and what it kept; write report.json, report.html and images/ into its folder.

    Image k of every prompt is generated from seed + k, by the base and by the erased model, in the scenes of the run
    if it has some (unrelated things without a scene). Up to four more by the base model, from other seeds, say which
    prompts it can draw at all, so that they count. Images are kept under pictures/: an evaluation that was stopped
    continues where it was, and another judge sees the same images. Of a run with several targets each is measured by
    itself, under targets/; the numbers of the run are those of all together. Where there is no judge, a dozen pairs of
    images are generated for a person to look at, in report.html and on a contact sheet, sheet.png.

    With `eval_minutes` there are 1, 2, 4, 8 and 16 images of every prompt, until all is `decided`, for which the
    intervals are made wider, or until more would take longer. The report is written each time.

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
        ['H', 'H3', 'coref_erased', 'erased', 'kept', 'unrelated']
        >>> report.path_html.as_posix()
        'runs/cat/report.html'
    """
    started = time.perf_counter()
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    given = ConceptSetSettings(**settings)
    device = backbone.device if backbone else pick_device(given.device)
    minutes, most = given.minutes(erasure.info["model"], device.type), given.images_per_prompt or SLICES[-1]
    counts = [*(n for n in SLICES if n < most), most]
    spent: list[dict[str, float]] = [{} for _ in erasure.sets]
    generated, note = 0, ""
    for count, following in zip(counts, [*counts[1:], most], strict=True):
        clock = time.perf_counter()
        chosen = given if minutes is None else replace(given, images_per_prompt=count, eval_minutes=minutes)
        questions, plan, chosen = concept_set_questions(erasure, chosen)
        texts = {prompt.text for own in questions for prompt in own.prompts}
        known = BaseWords(questions, plan, base_state(erasure, chosen, backbone))
        if not chosen.quality:  # which is measured on all images
            plan = known.recall()
        last, now, then = (all_images(len(texts), len(spent), n) for n in (most, count, following))
        if chosen.eval_minutes is not None:
            note = f"until the intervals decide, at most {last} images in {chosen.eval_minutes:g} minutes"
        how: dict[str, Any] = {"shared": image_cache, "backbone": backbone, "on_event": on_event, "note": note}
        targets, reports = [], []
        with ModelPair(erasure, plan, texts, chosen, **how) as models:
            loading, folders = time.perf_counter() - clock, target_folders(erasure.sets)
            for own, concepts, place, seconds in zip(questions, erasure.sets, folders, spent, strict=True):
                seconds["load"] = round(seconds.get("load", 0) + loading, 2)
                target = measure_target(models, own, concepts, erasure.folder / place, chosen, seconds)
                reports.append(report_target(target, erasure.folder / place, erasure, chosen))
                if target.judge:  # images that only its own page shows; those of many targets need too much memory
                    target = replace(target, before=target.before[:1], after=target.after[:1])
                targets.append(target)
                models.forget(prompt.text for prompt in own.prompts)
        known.save()
        report = report_run(targets, reports, erasure, chosen, models.failed)
        backbone, generated = models.backbone, generated + models.generated
        if chosen.eval_minutes is None or now == last or (count in LOOKS and decided(report.summary)):
            break
        # The judge is asked again about all images: what it is calibrated with has grown.
        drawing, judging = (sum(seconds[name] for seconds in spent) for name in ("draw", "score"))
        more = drawing / max(1, generated) * (then - now) + judging
        if time.perf_counter() - started + more > 60 * chosen.eval_minutes:
            break
    return report


@alone
def evaluate_prompts(
    run: Path | str | Erasure,
    prompts: str | PromptSet,
    *,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    **settings: Any,
) -> PromptReport:
    """Measure an erasure with the prompts of a public benchmark, or with one's own, as their authors count.

        RUN/prompts/SET/report.json      numbers, groups and every word of the judge
        RUN/prompts/SET/report.html      the numbers, and images of some prompts
        RUN/prompts/SET/reports/         the latest report.json of each judge

    A number is the share of all images that the judge recognises (or, of UA, does not), whether or not the base model
    draws the prompt well: that is what the benchmarks publish. The base model's own share stands beside it.

    Args:
        run: a finished run, or its folder.
        prompts: hub:FOLDER, unlearn-canvas:FOLDER, emma:FOLDER, a file (.csv, .json, .txt), or a prompt set.
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
    concepts = measured_set(erasure.sets, chosen.concept)
    prompt_set = load_prompt_set(prompts, concepts, chosen.concept) if isinstance(prompts, str) else prompts
    questions, plan = prompt_set_questions(prompt_set, erasure, concepts, chosen)
    with ModelPair(erasure, plan, plan.own_seeds, chosen, backbone=backbone, on_event=on_event) as models:
        measured = measure_prompt_set(models, questions, started)
    return report_prompt_set(prompt_set, concepts, measured, erasure, chosen, plan.own_seeds)
