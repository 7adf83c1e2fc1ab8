"""Draw the base and the erased model with the same seeds, score both, and write the report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.backbones import load_backbone
from crce.errors import ConfigError, RunError
from crce.evaluate import draw, load_judge
from crce.evaluate.groups import Group, make_groups
from crce.evaluate.pictures import Picture, is_blank, write_strips
from crce.evaluate.report import render
from crce.evaluate.scores import ScoredGroup, score_group, summarise_groups
from crce.evaluate.verdict import make_verdict
from crce.files import write_json, write_text
from crce.training import Erasure, apply_adapter


if TYPE_CHECKING:
    from crce.backbones import UNetBackbone
    from crce.evaluate.judges import Judge

log = logging.getLogger(__name__)

BaseCache = MutableMapping[tuple[Any, ...], Picture]
"""Base pictures by (model, revision, text, seed, steps, guidance)."""

JUDGE_BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """Progress: pictures drawn so far, of base and erased model together."""

    done: int
    total: int


@dataclass(frozen=True)
class Report:
    """What an evaluation left in the run folder.

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
    backbone: UNetBackbone | None = None,
    base_cache: BaseCache | None = None,
) -> Report:
    """Measure what an erasure erased and what it kept; write report.json, report.html and images/ into its folder.

    Picture k of every prompt is drawn from seed + k, by the base and by the erased model.

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
    )
    _check_revision(backbone, erasure)
    groups = make_groups(erasure.concepts, scorer, phrases_per_group)
    texts = [prompt.text for group in groups for prompt in group.prompts]
    seeds = [seed + k for k in range(images_per_prompt)]
    loaded = time.perf_counter()

    sketcher = _Sketcher(backbone, seeds, steps, guidance, batch, 2 * len(set(texts)) * len(seeds), on_event)
    with _adapter(backbone, erasure) as adapter:
        with adapter.disabled():
            base = sketcher.sketch(texts, {} if base_cache is None else base_cache)
        erased = sketcher.sketch(texts, {})
    drawn = time.perf_counter()

    scored = _score(groups, base, erased, scorer, seed)
    summary = summarise_groups(scored, seed=seed)
    verdict = make_verdict(erasure.concepts.target, scored, summary, erasure.info["config"])
    names = [(group.name, prompt.text) for group in groups for prompt in group.prompts]
    files = write_strips(erasure.folder / "images", names, base, erased)
    data = {
        "target": erasure.concepts.target,
        "kind": erasure.concepts.kind,
        "model": erasure.info["model"],
        "revision": erasure.info["revision"],
        "summary": {name: measure.as_json() for name, measure in summary.items()},
        "verdict": verdict.text,
        "points": [dict(vars(point)) for point in verdict.points],
        "leaks": [change.as_json() for change in verdict.leaks],
        "broken": [change.as_json() for change in verdict.broken],
        "judge": _describe(scorer),
        "settings": {
            "images_per_prompt": images_per_prompt,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "phrases_per_group": phrases_per_group,
        },
        "failed": {"base": _failed(base), "erased": _failed(erased)},
        "groups": _groups_json(scored, files),
        "seconds": {
            "load": round(loaded - started, 2),
            "draw": round(drawn - loaded, 2),
            "score": round(time.perf_counter() - drawn, 2),
        },
    }
    report = Report(erasure.folder, data)
    write_json(report.path_json, data)
    html = render(data, base, erased, concepts=erasure.concepts, info=erasure.info, trace=_read_trace(erasure.folder))
    write_text(report.path_html, html)
    return report


@dataclass
class _Sketcher:
    """Draws prompts, tells how far it is, and takes from a cache what was drawn before."""

    backbone: UNetBackbone
    seeds: list[int]
    steps: int
    guidance: float
    batch: int
    total: int
    on_event: Callable[[Drawn], None] | None
    done: int = 0

    def sketch(self, texts: Sequence[str], cache: BaseCache) -> list[list[Picture]]:
        """Pictures for each text, one per seed."""
        wanted = list(dict.fromkeys((text, seed) for text in texts for seed in self.seeds))
        missing = [pair for pair in wanted if self._key(*pair) not in cache]
        self._tell(len(wanted) - len(missing))
        pictures = draw(
            self.backbone.pipe,
            [text for text, _ in missing],
            [seed for _, seed in missing],
            steps=self.steps,
            guidance=self.guidance,
            batch=self.batch,
            on_drawn=self._tell,
        )
        drawn = (None if picture is None or is_blank(picture) else picture for picture in pictures)
        cache.update(zip((self._key(*pair) for pair in missing), drawn, strict=True))
        return [[cache[self._key(text, seed)] for seed in self.seeds] for text in texts]

    def _key(self, text: str, seed: int) -> tuple[Any, ...]:
        return (self.backbone.model, self.backbone.revision, text, seed, self.steps, self.guidance)

    def _tell(self, count: int) -> None:
        self.done += count
        if self.on_event and count:
            self.on_event(Drawn(self.done, self.total))


def _choose_judge(judge: str | Judge, model: str) -> Judge | None:
    if not isinstance(judge, str):
        return judge
    if judge != "auto":
        return load_judge(judge)
    if model == "demo":
        return load_judge("emoji")
    log.info("No judge knows what %s draws: the report shows pictures without numbers.", model)
    return None


def _check_revision(backbone: UNetBackbone, erasure: Erasure) -> None:
    model, then, now = erasure.info["model"], erasure.info["revision"], backbone.revision
    if then != now:
        raise RunError(
            f"The run {erasure.folder} erased from {model!r} at {then}, but the model here is at {now}. "
            "Its adapter belongs to the model as it was: bring that back, or erase again."
        )


@contextmanager
def _adapter(backbone: UNetBackbone, erasure: Erasure) -> Iterator[Any]:
    adapter = apply_adapter(backbone, erasure.adapter)
    try:
        yield adapter
    finally:
        adapter.close()  # the backbone may be the caller's, and go on to the next run


def _score(
    groups: Sequence[Group], base: list[list[Picture]], erased: list[list[Picture]], judge: Judge | None, seed: int
) -> dict[str, ScoredGroup]:
    base_words = _words(judge, base) if judge else None
    erased_words = _words(judge, erased) if judge else None
    scored, start = {}, 0
    for i, group in enumerate(groups):
        part = slice(start, start + len(group.prompts))
        words = (base_words[part], erased_words[part]) if base_words and erased_words else (None, None)
        scored[group.name] = score_group(group, *words, seed=seed + i)
        start = part.stop
    return scored


def _words(judge: Judge, pictures: list[list[Picture]]) -> list[list[str | None]]:
    """The judge's top class for every picture; None where there is no picture."""
    images = [image for row in pictures for image in row if image is not None]
    tops: list[str] = []
    for start in range(0, len(images), JUDGE_BATCH):
        probs = judge.probs(images[start : start + JUDGE_BATCH])
        tops += [judge.classes[k] for k in probs.argmax(1).tolist()]
    words = iter(tops)
    return [[None if image is None else next(words) for image in row] for row in pictures]


def _describe(judge: Judge | None) -> dict[str, Any] | None:
    if judge is None:
        return None
    return {"name": judge.name, "version": judge.version, "hash": judge.hash, "classes": len(judge.classes)}


def _failed(pictures: list[list[Picture]]) -> int:
    return sum(image is None for row in pictures for image in row)


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
