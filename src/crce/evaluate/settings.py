"""Settings of an evaluation, and their types as keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crce import demo
from crce.backbones.defaults import fill_sampling
from crce.bounds import check_numbers
from crce.evaluate.stats import ALPHA
from crce.judges import Judge


STANDARD_IMAGES = 8  # of a prompt
TARGET_IMAGES = 16  # of a target, for every standard ones: it is a single prompt, and tested by itself
SLICES = (1, 2, 4, 8, 16)  # images of a prompt by which an evaluation grows
LOOKS = (4, 8, 16)  # those at which its numbers decide whether it ends
MINUTES = {"cuda": 30.0}  # by device, else `MINUTES_ELSEWHERE`: how long it may take
MINUTES_ELSEWHERE = 60.0
PROBES = 4  # images of a prompt by the base model, at most, that say whether it can draw it
PROBE_SEED = 10_000  # added to the seeds of the images that are scored


def target_images(count: int) -> int:
    """Images of a concept set's target where other prompts have `count`."""
    return max(count, TARGET_IMAGES * (count // STANDARD_IMAGES))


def probe_images(count: int) -> int:
    """Images of the base model, of other seeds, that say whether a prompt counts where it has `count`."""
    return min(PROBES, max(2, count))


def all_images(prompts: int, targets: int, count: int) -> int:
    """Images of both models, `count` of each prompt, more of targets, and those that say whether a prompt counts."""
    return prompts * (2 * count + probe_images(count)) + 2 * targets * (target_images(count) - count)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of every evaluation.

    Attributes:
        images_per_prompt: images of each prompt by each model; None takes 8 (see also `eval_minutes`), or one where
            nobody judges them; of a prompt set as many as its authors take. With 8 or more, a concept set's target
            has at least 16.
        seed: of each prompt's first image, and of a sample of prompts.
        steps: sampling steps with the model's own scheduler; None takes those of the model, see
            `crce.backbones.defaults`, with its solver if it has one.
        guidance: classifier-free guidance scale; likewise.
        judge: a judge or its name (see `crce.judges.load_judge`); "auto" takes the default of the model, see
            `crce.judges.table.default_judge`.
        threshold: the lowest probability at which the judge's word counts; None takes the judge's own.
        batch: images per call; 0 picks by the size of the model's latents.
        device: where to load the model, unless one is given.
        dtype: its number format, likewise; None takes that of the training.
        quantize: "nf4" or "int8", likewise; None takes the weights as published, whatever the training took.

    Raises:
        ConfigError: a number is out of range.
    """

    images_per_prompt: int | None = None
    seed: int = 1000
    steps: int | None = None
    guidance: float | None = None
    judge: str | Judge = "auto"
    threshold: float | None = None
    batch: int = 0
    device: str = "auto"
    dtype: str | None = None
    quantize: str | None = None

    def __post_init__(self) -> None:
        check_numbers(**vars(self))

    def sampling(self, model: Mapping[str, Any]) -> tuple[int, float, str | None]:
        """Steps, guidance and solver; those of the run's model (`Erasure.sampling`) where they are None."""
        return fill_sampling(model, self.steps, self.guidance)

    def as_json(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that report.json holds, with the sampling of the run's model: what the images depend on."""
        steps, guidance, solver = self.sampling(model)
        filled = {**vars(self), "steps": steps, "guidance": guidance, **({"solver": solver} if solver else {})}
        named = ("images_per_prompt", "limit", "seed", "steps", "guidance", "solver", "phrases_per_group")
        own = {name: filled[name] for name in (*named, *["quantize"] * bool(self.quantize)) if name in filled}
        return own | {"eval_minutes": minutes} if (minutes := filled.get("eval_minutes")) else own


@dataclass(frozen=True)
class ConceptSetSettings(EvaluationSettings):
    """Settings of an evaluation with the prompts of the run's concept sets.

    Attributes:
        quality: whether to measure drift, image quality and locality too.
        phrases_per_group: most phrases taken from each list of a concept set; None takes 10, or 2 where nobody
            judges the images, which a person then looks at.
        eval_minutes: makes `images_per_prompt`, or 16, the most, see `crce.evaluate.evaluate`; None takes 30 on a GPU
            and 60 elsewhere, but for a bundled model, or beside `images_per_prompt`, a fixed number of images.
    """

    quality: bool = False
    phrases_per_group: int | None = None
    eval_minutes: float | None = None

    @property
    def alpha(self) -> float:
        """The probability outside intervals; it is split over the looks that decide whether there are more images."""
        return ALPHA if self.eval_minutes is None else ALPHA / len(LOOKS)

    def minutes(self, model: str, device: str) -> float | None:
        """The minutes that an evaluation may take; None where its number of images is fixed."""
        if self.eval_minutes is None and model not in demo.MODELS and self.images_per_prompt is None:
            return MINUTES.get(device, MINUTES_ELSEWHERE)
        return self.eval_minutes

    def filled(self, *, judged: bool) -> ConceptSetSettings:
        """The settings with numbers for those that are None."""
        images, phrases = (STANDARD_IMAGES, 10) if judged else (1, 2)
        images, phrases = self.images_per_prompt or images, self.phrases_per_group or phrases
        minutes = self.eval_minutes if judged else None
        return replace(self, images_per_prompt=images, phrases_per_group=phrases, eval_minutes=minutes)


@dataclass(frozen=True)
class PromptSetSettings(EvaluationSettings):
    """Settings of an evaluation with a prompt set.

    Attributes:
        concept: the set's name of what the run erased, where that is another; of a run with several targets, which.
        limit: most prompts of each group, sampled with `seed`; None takes all.
    """

    concept: str | None = None
    limit: int | None = None
