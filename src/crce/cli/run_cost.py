"""What a run takes: its steps and images, counted, and their time on this machine, by a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet


if TYPE_CHECKING:
    from crce.config import ErasureConfig

TRIAL_STEPS = 4  # at least; of a pool of trajectories as many as after which all move on


def count_run(sets: Sequence[ConceptSet], settings: ErasureConfig, model: str) -> dict[str, Any]:
    """The steps of `crce erase` and the images of its report, unless flags say otherwise."""
    from crce.evaluate.prompt_sets.concept_set import common_unrelated, make_groups
    from crce.evaluate.prompts import UNJUDGED
    from crce.evaluate.settings import PROBES, TARGET_IMAGES, ConceptSetSettings
    from crce.judges.table import default_judge

    judged = default_judge(model, sets).spec is not None
    chosen = ConceptSetSettings().filled(judged=judged)
    prompts: dict[str, None] = {}
    for own in sets:
        rest = [other for other in sets if other is not own]
        common = common_unrelated(own, rest, None)[: None if judged else UNJUDGED]
        groups = make_groups(own, None, chosen.phrases_per_group, rest, crce=settings.crce, common=common)
        prompts |= dict.fromkeys(prompt.text for group in groups for prompt in group.prompts)
    each = chosen.images_per_prompt or 1
    more = max(0, TARGET_IMAGES - each) if judged else 0  # of each target, whose prompt stands alone
    images = 2 * (len(prompts) * each + len(sets) * more) + len(prompts) * (min(PROBES, max(2, each)) if judged else 0)
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

    backbone: Any = None

    def load() -> None:
        nonlocal backbone
        backbone = load_backbone(model, **how)
        backbone.use_resolution(settings.resolution)

    loading = _seconds(load)
    size = min(batch_size(backbone.pipe), counts["images"])
    prompts, own = (counts["prompts"] * size)[:size], defaults_of(backbone).sampling
    sampling: dict[str, Any] = {"steps": own.steps, "guidance": own.guidance, "solver": own.solver}
    generate = partial(draw, backbone.pipe, prompts, [0] * size, **sampling)
    steps, batch = 0.0, 2 * [_seconds(generate)]
    if not METHODS.find(settings.method).solved:
        trainer: Any = None

        def begin() -> None:
            nonlocal trainer
            trainer = Trainer(backbone, sets, settings)
            trainer.step()  # which also fills the pool of trajectories

        steps = _seconds(begin)
        few = max(TRIAL_STEPS, settings.pool)
        steps += (counts["steps"] - 1) / few * _seconds(lambda: [trainer.step() for _ in range(few)])
        batch[1] = _seconds(generate)  # with the adapter, as the erased model generates its half
        trainer.close()
    images = loading + counts["images"] / size * sum(batch) / 2  # the report loads the model again
    return {"device": str(backbone.device), "loading": loading, "steps": steps, "images": images}


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
