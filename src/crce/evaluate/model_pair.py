"""The base and the erased model of a run, and the images of both; each is generated once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crce.sampling import ImageCache, ImageKey, ModelState
from crce.sampling.pictures import Picture
from crce.training import Erasure, apply_adapter, load_base
from crce.training.run_folder import file_hash


if TYPE_CHECKING:
    from crce.backbones import Backbone


@dataclass(frozen=True)
class Drawn:
    """Progress: images generated so far, of base and erased model together."""

    done: int
    total: int


@dataclass(frozen=True)
class SamplingPlan:
    """Which images of a text are generated.

    Attributes:
        seeds: of every text.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        scenes: what phrases are shown in, in turn; none shows them alone.
        alone: texts that are never shown in a scene.
        own_seeds: the seeds of texts that bring their own.
    """

    seeds: Sequence[int]
    steps: int
    guidance: float
    scenes: Sequence[str] = ()
    alone: frozenset[str] = frozenset()
    own_seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def keys(self, text: str, state: ModelState) -> list[ImageKey]:
        """The images of a text, each with the prompt that it is generated from."""
        return [
            ImageKey(self.shown(text, seed), seed, self.steps, self.guidance, state) for seed in self.seeds_of(text)
        ]

    def seeds_of(self, text: str) -> Sequence[int]:
        """The seeds of a text's images."""
        return self.own_seeds.get(text, self.seeds)

    def shown(self, text: str, seed: int) -> str:
        """The prompt of a text's image: the text, in its scene if it has one."""
        if not self.scenes or text in self.alone:
            return text
        return f"{self.scenes[(seed - self.seeds[0]) % len(self.scenes)]}, {text}"


class ModelPair:
    """The base and the erased model of a run. Weights are loaded when the first image is missing; leave with `close`.

    Args:
        erasure: the run.
        plan: which images of a text are generated.
        cache: generated images.
        total: how many images there are in all, for progress.
        backbone: the run's base model, if it is loaded already.
        device: where to load it, otherwise.
        dtype: its number format; None takes that of the training.
        batch: images per call; 0 picks by the size of the latents.
        on_event: called after each batch.

    Attributes:
        base: the base model.
        erased: the erased model.
    """

    def __init__(
        self,
        erasure: Erasure,
        plan: SamplingPlan,
        cache: ImageCache,
        total: int,
        *,
        backbone: Backbone | None = None,
        device: str = "auto",
        dtype: str | None = None,
        batch: int = 0,
        on_event: Callable[[Drawn], None] | None = None,
    ) -> None:
        self.plan, self.cache = plan, cache
        self._erasure, self._backbone, self._device = erasure, backbone, device
        self._dtype = dtype or erasure.info["dtype"]
        self._batch, self._total, self._done, self._on_event = batch, total, 0, on_event
        self._adapter: Any = None
        info = erasure.info
        adapter = file_hash(erasure.adapter) if erasure.adapter.exists() else None
        self.base = ModelSide(self, ModelState("base", info["model"], info["revision"], self._dtype))
        self.erased = ModelSide(self, ModelState("erased", info["model"], info["revision"], self._dtype, adapter))

    def __enter__(self) -> ModelPair:
        return self

    def __exit__(self, *_: object) -> None:
        if self._adapter is not None:
            self._adapter.close()  # the backbone may be the caller's, and go on to the next run

    def load_for(self, texts: Iterable[str]) -> None:
        """Load the model now if an image of these texts is missing.

        Raises:
            ModelError: it can't be loaded.
            RunError: it is no longer the model that the run erased from.
        """
        keys = (key for text in texts for side in (self.base, self.erased) for key in side.keys(text))
        if self._backbone is not None or any(key not in self.cache for key in keys):  # one that is given is checked
            self._load()

    def images(self, texts: Sequence[str]) -> tuple[list[list[Picture]], list[list[Picture]]]:
        """The base and the erased model's images of each text, one per seed."""
        return self.base.images(texts), self.erased.images(texts)

    def generate(self, keys: Sequence[ImageKey]) -> None:
        """Generate those images of one model that the cache lacks."""
        missing = self.cache.missing(keys)
        self._report(len(keys) - len(missing))
        if missing:
            self._load()
            on = nullcontext() if missing[0].state.side == "erased" else self._adapter.disabled()
            with on:
                self.cache.fill(self._backbone.pipe, missing, batch=self._batch, on_images=self._report)  # type: ignore[union-attr]

    def _load(self) -> None:
        if self._adapter is None:
            erasure = self._erasure
            self._backbone = load_base(
                erasure,
                backbone=self._backbone,
                device=self._device,
                dtype=self._dtype,
                offload=erasure.config.offload,
            )
            self._adapter = apply_adapter(self._backbone, erasure.adapter)

    def _report(self, count: int) -> None:
        self._done += count
        if self._on_event and count:
            self._on_event(Drawn(self._done, self._total))


@dataclass
class ModelSide:
    """One of the two models.

    Attributes:
        models: both.
        state: its weights.
        failed: images that could not be generated.
    """

    models: ModelPair
    state: ModelState
    failed: int = 0
    _known: set[str] = field(default_factory=set)

    def keys(self, text: str) -> list[ImageKey]:
        """The keys of a text's images."""
        return self.models.plan.keys(text, self.state)

    def images(self, texts: Sequence[str]) -> list[list[Picture]]:
        """The images of each text, one per seed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self.models.generate([key for text in new for key in self.keys(text)])
        self._known.update(new)
        self.failed += failures(map(self._row, new))
        return [self._row(text) for text in texts]

    def forget(self, texts: Iterable[str]) -> None:
        """Free the memory of the images of these texts, which won't be needed again."""
        self.models.cache.forget(key for text in texts for key in self.keys(text))

    def _row(self, text: str) -> list[Picture]:
        return [self.models.cache.get(key) for key in self.keys(text)]


def failures(rows: Iterable[list[Picture]]) -> int:
    """How many images could not be generated."""
    return sum(image is None for row in rows for image in row)
