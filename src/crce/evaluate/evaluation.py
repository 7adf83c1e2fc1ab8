"""Draw the base and the erased model with the same seeds, score both, and write the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import ConfigError
from crce.evaluate.gauge import Gauge, read_trace
from crce.evaluate.groups import common_unrelated, make_groups
from crce.evaluate.observe import Drawn, ModelPair, Observer, SamplingPlan
from crce.evaluate.overview import render_overview
from crce.evaluate.targets import Target, joint_report, target_folders
from crce.files import slug, write_json, write_text
from crce.judges import choose_judge
from crce.judges.judge import describe_judge
from crce.sampling.image_cache import FOLDER, ImageCache
from crce.training import Erasure


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge

REPORTS = "reports"  # the latest report.json of each judge


@dataclass(frozen=True)
class Report:
    """What an evaluation left in the run folder.

    With several targets, report.json and report.html are an overview, and each target has its own under targets/.

    Attributes:
        folder: the run folder.
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
    def summary(self) -> dict[str, dict[str, Any]]:
        """`erased`, `coref_erased`, `kept` and `H`, each {"value", "low", "high", "n"}, or None with a reason."""
        return self.data["summary"]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Of several targets each with its `target`, `kind`, `summary`, `verdict` and `report`; of one none."""
        return self.data.get("targets", [])

    @property
    def verdict(self) -> str:
        """What was erased, what leaked, what broke and what to try next, in plain words."""
        return self.data["verdict"]


def evaluate(
    run: Path | str | Erasure,
    *,
    images_per_prompt: int = 8,
    seed: int = 1000,
    steps: int = 20,
    guidance: float = 4.0,
    judge: str | Judge = "auto",
    threshold: float | None = None,
    quality: bool = False,
    phrases_per_group: int = 10,
    batch: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    image_cache: ImageCache | None = None,
) -> Report:
    """Measure what an erasure erased and what it kept; write report.json, report.html and images/ into its folder.

    Picture k of every prompt is drawn from seed + k, by the base and by the erased model, in the scenes of the run if
    it has some (unrelated things are drawn alone), and kept under pictures/: an
    evaluation that was stopped goes on where it was, and another judge sees the same pictures, undrawn. Of a run with
    several targets each is measured by itself, under targets/; the numbers of the run are those of all together.

    Args:
        run: a finished run, or its folder.
        images_per_prompt: pictures for each prompt and model.
        seed: of each prompt's first picture, and of the bootstrap.
        steps: sampling steps.
        guidance: classifier-free guidance scale.
        judge: a judge or its name (see `crce.judges.load_judge`); "auto" takes the one that knows the model, or none
            for a model without one.
        threshold: the lowest probability at which the judge's word counts; None takes the judge's own.
        quality: whether to measure drift, picture quality and locality too.
        phrases_per_group: most phrases drawn from each list of the concept set.
        batch: pictures drawn at once; 0 picks by the size of the model's latents.
        device: where to draw, unless `backbone` is given.
        dtype: in which numbers, likewise; None takes those of the training.
        on_event: is told of every drawn batch.
        backbone: the run's base model, already loaded: spares loading it again for every run. Returned unchanged.
        image_cache: base pictures drawn before, read and filled: spares drawing them again for every run.

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
    counts = {"images_per_prompt": images_per_prompt, "steps": steps, "phrases_per_group": phrases_per_group}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}. Use 1 or more.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold:g}. Use a probability from 0 to 1.")
    started = time.perf_counter()
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    info = erasure.info
    own = choose_judge("auto", info["model"])
    others = [[o for o in erasure.sets if o is not c] for c in erasure.sets]
    common_texts = [common_unrelated(c, rest, own) for c, rest in zip(erasure.sets, others, strict=True)]
    scorer = choose_judge(
        judge,
        info["model"],
        erasure.sets,
        unrelated=[text for texts in common_texts for text in texts],
        folder=erasure.folder / FOLDER,
        device=device,
    )
    least = threshold if threshold is not None else scorer.threshold if scorer else 0.0
    everything = [
        make_groups(c, scorer, phrases_per_group, rest, crce=erasure.config.crce, common=unrelated)
        for c, rest, unrelated in zip(erasure.sets, others, common_texts, strict=True)
    ]
    texts = [[prompt.text for group in groups for prompt in group.prompts] for groups in everything]
    seeds = [seed + k for k in range(images_per_prompt)]
    total = 2 * len({text for own in texts for text in own}) * len(seeds)
    alone = frozenset(p.text for groups in everything for g in groups if g.name == "unrelated" for p in g.prompts)
    models = ModelPair(
        erasure,
        SamplingPlan(seeds, steps, guidance, erasure.config.scenes, alone),
        ImageCache(erasure.folder, image_cache),
        total,
        backbone=backbone,
        device=device,
        dtype=dtype,
        batch=batch,
        on_event=on_event,
    )
    models.load_for(text for own in texts for text in own)
    common = {
        "model": info["model"],
        "revision": info["revision"],
        "judge": describe_judge(scorer, least),
        "settings": {
            "images_per_prompt": images_per_prompt,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "phrases_per_group": phrases_per_group,
            **({"scenes": list(erasure.config.scenes)} if erasure.config.scenes else {}),
        },
    }
    loading = round(time.perf_counter() - started, 2)

    several = len(erasure.sets) > 1
    folders = target_folders(erasure.sets) if several else [Path()]
    targets: list[Target] = []
    with models:
        gauge = Gauge(erasure, Observer(scorer, least), seed, quality, models, common, loading)
        for i, (concepts, groups, folder) in enumerate(zip(erasure.sets, everything, folders, strict=True)):
            targets.append(gauge.measure(concepts, groups, folder, "../../report.html" if several else None))
            # The pictures of many targets don't fit in memory together; those of the caller's cache are the caller's.
            for side in (models.erased, models.base) if image_cache is None else (models.erased,):
                side.forget(set(texts[i]).difference(*texts[i + 1 :]))
    report = Report(erasure.folder, targets[0].data)
    if several:
        failed = {"base": models.base.failed, "erased": models.erased.failed}
        report = Report(erasure.folder, joint_report(targets, common, info["config"], failed, seed))
        write_json(report.path_json, report.data)
        page = render_overview(report.data, targets, info=info, trace=read_trace(erasure.folder))
        write_text(report.path_html, page)
    if scorer:  # report.json is the latest; what another judge said before stays beside it
        write_json(erasure.folder / REPORTS / f"{slug(scorer.name)}.json", report.data)
    return report
