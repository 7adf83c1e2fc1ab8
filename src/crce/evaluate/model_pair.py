"""The base and the erased model of a run, and the images of both; each is generated once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from crce.backbones import Backbone
from crce.backbones.text_side import keep_states
from crce.backbones.variants import variant_name
from crce.errors import RunError
from crce.evaluate.prompts import PAIRS
from crce.evaluate.settings import EvaluationSettings
from crce.sampling import ImageCache, ImageKey, ModelState
from crce.sampling.pictures import Picture
from crce.training import Erasure, apply_adapter, load_base
from crce.training.run_folder import file_hash


@dataclass(frozen=True)
class Drawn:
    """Progress: images generated so far, of base and erased model together; the note says how it goes on."""

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class SamplingPlan:
    """Which images of a text are generated."""

    seeds: Sequence[int]  # of every text, but for `own_seeds`
    steps: int
    guidance: float
    solver: str | None = None
    scenes: Sequence[str] = ()  # what phrases are shown in, in turn; none shows them alone
    alone: frozenset[str] = frozenset()  # texts that are never shown in a scene
    own_seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of single texts
    probe_seeds: Sequence[int] = ()  # of the base model's images that say which texts it can draw; none: not asked
    known: frozenset[str] = frozenset()  # texts whose base images were judged before: only those shown are generated

    def keys(self, text: str, state: ModelState, *, probing: bool = False) -> list[ImageKey]:
        """The images of a text, each with the prompt that it is generated from."""
        seeds = self.probe_seeds if probing else self.own_seeds.get(text, self.seeds)
        if state.side == "base" and text in self.known:
            seeds = seeds[: 0 if probing else PAIRS]
        how = (self.steps, self.guidance, state, self.solver)
        return [ImageKey(self.shown(text, seed), seed, *how) for seed in seeds]

    def shown(self, text: str, seed: int) -> str:
        """The prompt of a text's image: the text, in its scene if it has one."""
        if not self.scenes or text in self.alone:
            return text
        return f"{self.scenes[(seed - self.seeds[0]) % len(self.scenes)]}, {text}"


def base_state(erasure: Erasure, settings: EvaluationSettings, backbone: Backbone | None) -> ModelState:
    """The base model of a run, quantised as one that is loaded already; dtype None is that of the training."""
    info, side, dtype = erasure.info, erasure.config.resolution, settings.dtype or erasure.info["dtype"]
    quantize = backbone.quantized if backbone else settings.quantize
    variant = variant_name(drop_t5=erasure.config.drop_t5, quantize=quantize)
    return ModelState("base", info["model"], info["revision"], dtype, resolution=side, variant=variant)


class ModelPair:
    """The base and the erased model of a run, as a context. Weights are loaded if an image of the texts is missing.

    `shared` are images of the base model that several runs share, and `note` is that of the events.

    Raises:
        ModelError: the model can't be loaded.
        RunError: it is no longer the model that the run erased from.
    """

    _adapter: Any = None

    def __init__(
        self,
        erasure: Erasure,
        plan: SamplingPlan,
        texts: Collection[str],
        settings: EvaluationSettings,
        *,
        shared: ImageCache | None = None,
        backbone: Backbone | None = None,
        on_event: Callable[[Drawn], None] | None = None,
        note: str = "",
    ) -> None:
        adapter = file_hash(erasure.adapter) if erasure.adapter.exists() else None
        self.plan, self.cache, self._texts = plan, ImageCache(erasure.folder, shared), texts
        self._shared = shared is not None
        base = base_state(erasure, settings, backbone)
        self.base, self.erased = ModelSide(self, base), ModelSide(self, replace(base, side="erased", adapter=adapter))
        self.probe = ModelSide(self, base, probing=True)
        self.sides = (self.base, self.erased, *([self.probe] if plan.probe_seeds else []))
        self._erasure, self._settings, self._dtype, self.backbone = erasure, settings, base.dtype, backbone
        keys = [key for text in texts for side in self.sides for key in side.keys(text)]
        self._prompts = [key.prompt for key in keys]
        self._done, self._total, self._on_event, self._note = 0, len(keys), on_event, note
        if on_event and note:
            on_event(Drawn(0, len(keys), note))
        self.generated = 0  # images that were not there already
        if backbone is not None or any(key not in self.cache for key in keys):  # one that is given is checked
            self._load()

    def __enter__(self) -> ModelPair:
        return self

    def __exit__(self, *_: object) -> None:
        if self._adapter is not None:
            self._adapter.close()  # the backbone may be the caller's, and go on to the next run
        self.forget(self._texts)  # a shared cache goes on too, also after an error

    def images(self, texts: Sequence[str]) -> tuple[list[list[Picture]], list[list[Picture]]]:
        """The base and the erased model's images of each text, one per seed."""
        both = self.base.images(texts), self.erased.images(texts)
        if self._done and sum(self.failed.values()) == self._done:
            raise RunError("No image could be generated, as the warnings say. Nothing is measured.")
        self.probe.images(texts)
        return both

    @property
    def failed(self) -> dict[str, int]:
        """Images that could not be generated, by side."""
        return {"base": self.base.failed, "erased": self.erased.failed}

    def forget(self, texts: Iterable[str]) -> None:
        """Free the memory of the images of these texts, but for the base model's in a cache that runs share."""
        for side in (self.erased,) if self._shared else self.sides:
            self.cache.forget(key for text in texts for key in side.keys(text))

    def generate(self, keys: Sequence[ImageKey]) -> None:
        """Generate those images of one model that the cache lacks."""
        missing = self.cache.missing(keys)
        self._report(len(keys) - len(missing))
        self.generated += len(missing)
        if missing:
            backbone, batch = self._load(), self._settings.batch
            keep_states(backbone, [key.prompt for key in missing])
            with nullcontext() if missing[0].state.side == "erased" else self._adapter.disabled():
                self.cache.fill(backbone.pipe, missing, batch=batch, on_images=self._report)

    def _load(self) -> Backbone:
        if self.backbone is None or self._adapter is None:
            run, device, quantize = self._erasure, self._settings.device, self._settings.quantize
            how: dict[str, Any] = {"dtype": self._dtype, "offload": run.config.offload, "prompts": self._prompts}
            self.backbone = load_base(run, backbone=self.backbone, device=device, quantize=quantize, **how)
            self._adapter = apply_adapter(self.backbone, run.adapter)
        return self.backbone

    def _report(self, count: int) -> None:
        self._done += count
        if self._on_event and count:
            self._on_event(Drawn(self._done, self._total, self._note))


@dataclass
class ModelSide:
    """One of the two models, or (`probing`) its images of the probe seeds, and how many could not be generated."""

    models: ModelPair
    state: ModelState
    probing: bool = False
    failed: int = 0
    _known: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What report.json calls its words."""
        return "probe" if self.probing else self.state.side

    def keys(self, text: str) -> list[ImageKey]:
        """The keys of a text's images."""
        return self.models.plan.keys(text, self.state, probing=self.probing)

    def images(self, texts: Sequence[str]) -> list[list[Picture]]:
        """The images of each text, one per seed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self.models.generate([key for text in new for key in self.keys(text)])
        self._known.update(new)
        self.failed += failures(map(self._row, new))
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> list[Picture]:
        return [self.models.cache.get(key) for key in self.keys(text)]


def failures(rows: Iterable[list[Picture]]) -> int:
    """How many images could not be generated."""
    return sum(image is None for row in rows for image in row)
