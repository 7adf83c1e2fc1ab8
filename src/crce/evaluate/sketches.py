"""The pictures of an evaluation and what the judge sees in them; no prompt is drawn or judged twice from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crce.evaluate import draw
from crce.evaluate.pictures import Picture, is_blank


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.evaluate.judges import Judge

BaseCache = MutableMapping[tuple[Any, ...], Picture]
"""Base pictures by (model, revision, text, seed, steps, guidance)."""

JUDGE_BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """Progress: pictures drawn so far, of base and erased model together."""

    done: int
    total: int


@dataclass
class Sketcher:
    """Draws prompts with whatever adapter is on, and tells how far it is.

    Attributes:
        total: pictures that are to be drawn in all.
        done: pictures that have been drawn.
    """

    backbone: Backbone
    seeds: list[int]
    steps: int
    guidance: float
    batch: int
    total: int
    on_event: Callable[[Drawn], None] | None
    done: int = 0

    def sketch(self, texts: Sequence[str], cache: BaseCache) -> None:
        """Fill a cache with one picture of each text per seed; what it holds already is not drawn again."""
        wanted = [(text, seed) for text in texts for seed in self.seeds]
        missing = [pair for pair in wanted if self.key(*pair) not in cache]
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
        cache.update(zip((self.key(*pair) for pair in missing), drawn, strict=True))

    def key(self, text: str, seed: int) -> tuple[Any, ...]:
        """Where a picture lies in a cache."""
        return (self.backbone.model, self.backbone.revision, text, seed, self.steps, self.guidance)

    def _tell(self, count: int) -> None:
        self.done += count
        if self.on_event and count:
            self.on_event(Drawn(self.done, self.total))


@dataclass
class Side:
    """One of the two models of an evaluation, with what it drew so far.

    Attributes:
        sketcher: draws for both.
        cache: its pictures.
        words: by text the judge's word for every picture; None where there is no picture.
        failed: pictures that could not be drawn.
    """

    sketcher: Sketcher
    cache: BaseCache
    words: dict[str, list[str | None]] = field(default_factory=dict)
    failed: int = 0
    _drawn: set[str] = field(default_factory=set)

    def draw(self, texts: Sequence[str]) -> list[list[Picture]]:
        """Pictures for each text, one per seed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._drawn]
        self.sketcher.sketch(new, self.cache)
        self._drawn.update(new)
        self.failed += failures(map(self._row, new))
        return [self._row(text) for text in texts]

    def words_for(self, judge: Judge | None, texts: Sequence[str]) -> list[list[str | None]] | None:
        """The judge's top class for every picture of each text; None without a judge."""
        if judge is None:
            return None
        new = [text for text in dict.fromkeys(texts) if text not in self.words]
        self.words.update(zip(new, _top_classes(judge, [self._row(text) for text in new]), strict=True))
        return [self.words[text] for text in texts]

    def forget(self, texts: Iterable[str]) -> None:
        """Let go of the pictures of these texts, which won't be asked for again."""
        for text in texts:
            for seed in self.sketcher.seeds:
                self.cache.pop(self.sketcher.key(text, seed), None)

    def _row(self, text: str) -> list[Picture]:
        return [self.cache[self.sketcher.key(text, seed)] for seed in self.sketcher.seeds]


def failures(rows: Iterable[list[Picture]]) -> int:
    """How many pictures could not be drawn."""
    return sum(image is None for row in rows for image in row)


def _top_classes(judge: Judge, pictures: list[list[Picture]]) -> list[list[str | None]]:
    """The judge's top class for every picture; None where there is no picture."""
    images = [image for row in pictures for image in row if image is not None]
    tops: list[str] = []
    for start in range(0, len(images), JUDGE_BATCH):
        probs = judge.probs(images[start : start + JUDGE_BATCH])
        tops += [judge.classes[k] for k in probs.argmax(1).tolist()]
    words = iter(tops)
    return [[None if image is None else next(words) for image in row] for row in pictures]
