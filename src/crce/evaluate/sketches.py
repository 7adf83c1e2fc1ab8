"""The pictures of an evaluation and what the judge sees in them; no prompt is drawn or judged twice from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crce.judges.judge import Detector, JointJudge, name_pictures
from crce.sampling import draw
from crce.sampling.generate import batch_size
from crce.sampling.pictures import Picture, is_blank


if TYPE_CHECKING:
    from crce.evaluate.groups import Prompt
    from crce.judges import Judge
    from crce.sampling.image_cache import Shelf

BaseCache = MutableMapping[tuple[Any, ...], Picture]
"""Base pictures by (model, revision, prompt, seed, steps, guidance)."""


@dataclass(frozen=True)
class Drawn:
    """Progress: pictures drawn so far, of base and erased model together."""

    done: int
    total: int


@dataclass
class Sketcher:
    """Draws prompts with whatever adapter is on, and tells how far it is.

    Attributes:
        model: name of the base model.
        revision: its revision.
        pipe: draws; None where every picture is on a shelf.
        total: pictures that are to be drawn in all.
        scenes: what phrases are shown in, in turn; none shows them alone. Those of `alone` are things of their own.
        own_seeds: the seeds of texts that bring their own.
        done: pictures that have been drawn.
    """

    model: str
    revision: str | None
    pipe: Any
    seeds: list[int]
    steps: int
    guidance: float
    batch: int
    total: int
    on_event: Callable[[Drawn], None] | None
    scenes: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()
    own_seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)
    done: int = 0

    def sketch(self, texts: Sequence[str], cache: BaseCache, shelf: Shelf) -> None:
        """Fill a cache with one picture of each text per seed; what it or the shelf holds is not drawn again."""
        wanted = [(text, seed) for text in texts for seed in self.seeds_of(text)]
        for pair in wanted:
            known = cache.get(self.key(*pair))
            if known is None and (kept := shelf.get(self.shown(*pair), pair[1])) is not None:
                cache[self.key(*pair)] = kept
            elif known is not None and not shelf.holds(*pair):
                shelf.put(*pair, known)
        missing = [pair for pair in wanted if self.key(*pair) not in cache]
        self._tell(len(wanted) - len(missing))
        size = self.batch or batch_size(self.pipe)
        for start in range(0, len(missing), size):  # what one call drew is safe before the next
            part = missing[start : start + size]
            pictures = draw(
                self.pipe,
                [self.shown(*pair) for pair in part],
                [seed for _, seed in part],
                steps=self.steps,
                guidance=self.guidance,
                batch=self.batch,
                on_drawn=self._tell,
            )
            for pair, picture in zip(part, pictures, strict=True):
                drawn = None if picture is None or is_blank(picture) else picture
                cache[self.key(*pair)] = drawn
                if drawn is not None:
                    shelf.put(self.shown(*pair), pair[1], drawn)

    def seeds_of(self, text: str) -> Sequence[int]:
        """The seeds that a text's pictures are drawn from."""
        return self.own_seeds.get(text, self.seeds)

    def shown(self, text: str, seed: int) -> str:
        """The prompt that a phrase's picture from a seed is drawn from."""
        if not self.scenes or text in self.alone:
            return text
        return f"{self.scenes[(seed - self.seeds[0]) % len(self.scenes)]}, {text}"

    def key(self, text: str, seed: int) -> tuple[Any, ...]:
        """Where a picture lies in a cache."""
        return (self.model, self.revision, self.shown(text, seed), seed, self.steps, self.guidance)

    def _tell(self, count: int) -> None:
        self.done += count
        if self.on_event and count:
            self.on_event(Drawn(self.done, self.total))


@dataclass
class Side:
    """One of the two models of an evaluation, with what it drew so far.

    Attributes:
        sketcher: draws for both.
        cache: its pictures in memory.
        shelf: its pictures on disk.
        words: the judge's word for every picture, by text and the class it was asked for; None for no picture.
        failed: pictures that could not be drawn.
    """

    sketcher: Sketcher
    cache: BaseCache
    shelf: Shelf
    words: dict[tuple[str, str | None], list[str | None]] = field(default_factory=dict)
    failed: int = 0
    _drawn: set[str] = field(default_factory=set)

    def draw(self, texts: Sequence[str]) -> list[list[Picture]]:
        """Pictures for each text, one per seed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._drawn]
        self.sketcher.sketch(new, self.cache, self.shelf)
        self._drawn.update(new)
        self.failed += failures(map(self._row, new))
        return [self._row(text) for text in texts]

    def lacks(self, texts: Iterable[str]) -> bool:
        """Whether a picture of one of these texts is still to be drawn."""
        pairs = ((text, seed) for text in texts for seed in self.sketcher.seeds_of(text))
        return any(
            self.sketcher.key(text, seed) not in self.cache
            and not self.shelf.holds(self.sketcher.shown(text, seed), seed)
            for text, seed in pairs
        )

    def words_for(
        self, judge: Judge | None, prompts: Sequence[Prompt], threshold: float
    ) -> list[list[str | None]] | None:
        """The judge's word for every picture of each prompt; None without a judge."""
        if judge is None:
            return None
        # What a detector or a joint judge says depends on what it is asked; others say the same to all who ask.
        asked = [(p.text, p.expected if isinstance(judge, Detector | JointJudge) else None) for p in prompts]
        for text, expected in asked:
            if (text, expected) not in self.words:
                self.words[text, expected] = _words(judge, self._row(text), expected, threshold)
        return [self.words[key] for key in asked]

    def forget(self, texts: Iterable[str]) -> None:
        """Let go of the pictures of these texts, which won't be asked for again."""
        for text in texts:
            for seed in self.sketcher.seeds_of(text):
                self.cache.pop(self.sketcher.key(text, seed), None)

    def _row(self, text: str) -> list[Picture]:
        return [self.cache[self.sketcher.key(text, seed)] for seed in self.sketcher.seeds_of(text)]


def failures(rows: Iterable[list[Picture]]) -> int:
    """How many pictures could not be drawn."""
    return sum(image is None for row in rows for image in row)


def _words(judge: Judge, pictures: list[Picture], expected: str | None, threshold: float) -> list[str | None]:
    """The judge's word for every picture of a prompt; None where there is no picture."""
    named = iter(name_pictures(judge, [image for image in pictures if image is not None], expected, threshold))
    return [None if image is None else next(named) for image in pictures]
