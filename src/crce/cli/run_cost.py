"""What a run takes: its steps and images, counted, and their time on this machine, by a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet


if TYPE_CHECKING:
    from crce.config import ErasureConfig

TRIAL_STEPS = 4


def count_run(sets: Sequence[ConceptSet], settings: ErasureConfig, model: str) -> dict[str, Any]:
    """The steps of `crce erase` and the images of its report, unless flags say otherwise."""
    from crce.evaluate.prompt_sets.concept_set import common_unrelated, make_groups
    from crce.evaluate.prompts import UNJUDGED
    from crce.evaluate.settings import ConceptSetSettings
    from crce.judges.table import default_judge

    judged = default_judge(model, sets).spec is not None
    chosen = ConceptSetSettings().filled(judged=judged)
    prompts: dict[str, None] = {}
    for own in sets:
        rest = [other for other in sets if other is not own]
        common = common_unrelated(own, rest, None)[: None if judged else UNJUDGED]
        groups = make_groups(own, None, chosen.phrases_per_group, rest, crce=settings.crce, common=common)
        prompts |= dict.fromkeys(prompt.text for group in groups for prompt in group.prompts)
    images = 2 * len(prompts) * (chosen.images_per_prompt or 1)
    return {"targets": [c.target for c in sets], "steps": settings.steps, "images": images, "prompts": list(prompts)}


def time_run(
    counts: dict[str, Any], sets: Sequence[ConceptSet], settings: ErasureConfig, model: str, **how: Any
) -> dict[str, Any]:
    """The seconds of a run here: loading, steps and images, from a few of each. Judges take time beyond that.

    `how` are arguments of `load_backbone`. A closed-form method has no steps; it takes seconds.
    """
    from crce.backbones import load_backbone
    from crce.backbones.defaults import defaults_of
    from crce.methods import METHODS
    from crce.sampling.generate import batch_size, draw
    from crce.training import Trainer

    begun = time.perf_counter()
    backbone = load_backbone(model, **how)
    backbone.use_resolution(settings.resolution)
    seconds = {"loading": time.perf_counter() - begun, "steps": 0.0}
    if not METHODS.find(settings.method).solved:
        trainer = Trainer(backbone, sets, settings)
        trainer.step()  # with what is done once
        seconds["steps"] = (
            counts["steps"] / TRIAL_STEPS * _seconds(lambda: [trainer.step() for _ in range(TRIAL_STEPS)])
        )
        trainer.close()
    size = min(batch_size(backbone.pipe), counts["images"])
    batch = (counts["prompts"] * size)[:size]
    own = defaults_of(backbone).sampling
    once = _seconds(lambda: draw(backbone.pipe, batch, [0] * size, steps=own.steps, guidance=own.guidance))
    seconds["images"] = counts["images"] / size * once
    return {"device": str(backbone.device), **seconds}


def minutes(seconds: float) -> str:
    """A duration in words."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _seconds(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
