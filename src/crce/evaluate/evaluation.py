"""Draw the base and the erased model with the same seeds, score both, and write the report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.backbones import load_backbone
from crce.errors import ConfigError, RunError
from crce.evaluate import load_judge
from crce.evaluate.groups import Group, make_groups
from crce.evaluate.overview import render_overview
from crce.evaluate.pictures import write_strips
from crce.evaluate.report import render
from crce.evaluate.scores import ScoredGroup, Words, score_group, summarise_groups
from crce.evaluate.sketches import BaseCache, Drawn, Side, Sketcher, failures
from crce.evaluate.targets import Target, joint_report, target_folders
from crce.evaluate.verdict import make_verdict
from crce.files import write_json, write_text
from crce.training import Erasure, apply_adapter


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.evaluate.judges import Judge

log = logging.getLogger(__name__)


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
    phrases_per_group: int = 10,
    batch: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    on_event: Callable[[Drawn], None] | None = None,
    backbone: Backbone | None = None,
    base_cache: BaseCache | None = None,
) -> Report:
    """Measure what an erasure erased and what it kept; write report.json, report.html and images/ into its folder.

    Picture k of every prompt is drawn from seed + k, by the base and by the erased model. Of a run with several
    targets each is measured by itself, under targets/; the numbers of the run are those of all targets together.

    Args:
        run: a finished run, or its folder.
        images_per_prompt: pictures for each prompt and model.
        seed: of each prompt's first picture, and of the bootstrap.
        steps: sampling steps.
        guidance: classifier-free guidance scale.
        judge: a judge or its name; "auto" takes the one that knows the model, or none for a model without one.
        phrases_per_group: most phrases drawn from each list of the concept set.
        batch: pictures drawn at once; 0 picks by the size of the model's latents.
        device: where to draw, unless `backbone` is given.
        dtype: in which numbers, likewise; None takes those of the training.
        on_event: is told of every drawn batch.
        backbone: the run's base model, already loaded: spares loading it again for every run. Returned unchanged.
        base_cache: base pictures drawn before, read and filled: spares drawing them again for every run.

    Raises:
        ConfigError: a number is out of range, or there is no such judge.
        ModelError: the base model can't be loaded.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no room for the report.
    """
    counts = {"images_per_prompt": images_per_prompt, "steps": steps, "phrases_per_group": phrases_per_group}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}. Use 1 or more.")
    started = time.perf_counter()
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    scorer = _choose_judge(judge, erasure.info["model"])
    backbone = backbone or load_backbone(
        erasure.info["model"],
        device=device,
        dtype=dtype or erasure.info["dtype"],
        revision=erasure.info["revision"],
        offload=erasure.config.offload,
    )
    _check_revision(backbone, erasure)
    everything = [
        make_groups(c, scorer, phrases_per_group, [o for o in erasure.sets if o is not c], crce=erasure.config.crce)
        for c in erasure.sets
    ]
    texts = [[prompt.text for group in groups for prompt in group.prompts] for groups in everything]
    seeds = [seed + k for k in range(images_per_prompt)]
    total = 2 * len({text for own in texts for text in own}) * len(seeds)
    sketcher = Sketcher(backbone, seeds, steps, guidance, batch, total, on_event)
    base, erased = Side(sketcher, {} if base_cache is None else base_cache), Side(sketcher, {})
    common = {
        "model": erasure.info["model"],
        "revision": erasure.info["revision"],
        "judge": _describe(scorer),
        "settings": {
            "images_per_prompt": images_per_prompt,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "phrases_per_group": phrases_per_group,
        },
    }
    loading = round(time.perf_counter() - started, 2)

    several = len(erasure.sets) > 1
    folders = target_folders(erasure.sets) if several else [Path()]
    targets: list[Target] = []
    with _adapter(backbone, erasure) as adapter:
        gauge = _Gauge(erasure, scorer, seed, adapter, base, erased, common, loading)
        for i, (concepts, groups, folder) in enumerate(zip(erasure.sets, everything, folders, strict=True)):
            targets.append(gauge.measure(concepts, groups, folder, "../../report.html" if several else None))
            # The pictures of many targets don't fit in memory together; those of the caller's cache are the caller's.
            for side in (erased, base) if base_cache is None else (erased,):
                side.forget(set(texts[i]).difference(*texts[i + 1 :]))
    if not several:
        return Report(erasure.folder, targets[0].data)
    failed = {"base": base.failed, "erased": erased.failed}
    report = Report(erasure.folder, joint_report(targets, common, erasure.info["config"], failed, seed))
    write_json(report.path_json, report.data)
    page = render_overview(report.data, targets, info=erasure.info, trace=_read_trace(erasure.folder))
    write_text(report.path_html, page)
    return report


@dataclass
class _Gauge:
    """Measures the targets of a run one after the other.

    Attributes:
        erasure: the run.
        judge: scores the pictures.
        seed: of the bootstrap.
        adapter: the run's, on the model that draws for both sides.
        base: the base model.
        erased: the erased model.
        common: what the reports of all targets say alike.
        loading: seconds that loading took.
    """

    erasure: Erasure
    judge: Judge | None
    seed: int
    adapter: Any
    base: Side
    erased: Side
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
        texts = [text for _, text in names]
        clock = time.perf_counter()
        with self.adapter.disabled():
            before = self.base.draw(texts)
        after = self.erased.draw(texts)
        drawn = time.perf_counter()
        words = (self.base.words_for(self.judge, texts), self.erased.words_for(self.judge, texts))
        scored = _score(groups, *words, self.seed)
        summary = summarise_groups(scored, seed=self.seed)
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
            "leaks": [change.as_json() for change in verdict.leaks],
            "broken": [change.as_json() for change in verdict.broken],
            "judge": self.common["judge"],
            "settings": self.common["settings"],
            "failed": {"base": failures(before), "erased": failures(after)},
            "groups": _groups_json(scored, files),
            "seconds": {
                "load": self.loading,
                "draw": round(drawn - clock, 2),
                "score": round(time.perf_counter() - drawn, 2),
            },
        }
        report = Report(self.erasure.folder / folder, data)
        write_json(report.path_json, data)
        trace = _read_trace(self.erasure.folder)
        page = render(data, before, after, concepts=concepts, info=info, trace=trace, overview=overview)
        write_text(report.path_html, page)
        return Target(concepts, folder, scored, summary, verdict, data, before[0], after[0])


def _choose_judge(judge: str | Judge, model: str) -> Judge | None:
    if not isinstance(judge, str):
        return judge
    if judge != "auto":
        return load_judge(judge)
    if model == "demo":
        return load_judge("emoji")
    log.info("No judge knows what %s draws: the report shows pictures without numbers.", model)
    return None


def _check_revision(backbone: Backbone, erasure: Erasure) -> None:
    model, then, now = erasure.info["model"], erasure.info["revision"], backbone.revision
    if then != now:
        raise RunError(
            f"The run {erasure.folder} erased from {model!r} at {then}, but the model here is at {now}. "
            "Its adapter belongs to the model as it was: bring that back, or erase again."
        )


@contextmanager
def _adapter(backbone: Backbone, erasure: Erasure) -> Iterator[Any]:
    adapter = apply_adapter(backbone, erasure.adapter)
    try:
        yield adapter
    finally:
        adapter.close()  # the backbone may be the caller's, and go on to the next run


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


def _describe(judge: Judge | None) -> dict[str, Any] | None:
    if judge is None:
        return None
    return {"name": judge.name, "version": judge.version, "hash": judge.hash, "classes": len(judge.classes)}


def _groups_json(scored: dict[str, ScoredGroup], files: list[str]) -> dict[str, Any]:
    groups = {name: group.as_json() for name, group in scored.items()}
    names = iter(files)
    for group in groups.values():
        for prompt in group["prompts"]:
            prompt["image"] = f"images/{next(names)}"
    return groups


def _read_trace(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first; none if the run left no such file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
