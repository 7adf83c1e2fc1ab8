"""What a run takes: its steps and images, counted, and their time on this machine, by a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crce import demo
from crce.concepts import ConceptSet


if TYPE_CHECKING:
    from crce.config import ErasureConfig

TRIAL_STEPS = 4  # at least; of a pool of trajectories as many as after which all move on


def count_run(sets: Sequence[ConceptSet], settings: ErasureConfig, model: str) -> dict[str, Any]:
    """The steps of `crce erase` and the images of its report, unless flags say otherwise.

    Where the number of images is open, it is that after which the report may end for the first time, beside the most.
    """
    from crce.evaluate.prompt_sets.concept_set import common_unrelated, make_groups
    from crce.evaluate.prompts import UNJUDGED
    from crce.evaluate.settings import LOOKS, ConceptSetSettings, all_images
    from crce.judges.table import default_judge

    judged = default_judge(model, sets).spec is not None
    chosen = ConceptSetSettings().filled(judged=judged)
    prompts: dict[str, None] = {}
    for own in sets:
        rest = [other for other in sets if other is not own]
        common = common_unrelated(own, rest, None)[: None if judged else UNJUDGED]
        groups = make_groups(own, None, chosen.phrases_per_group, rest, crce=settings.crce, common=common)
        prompts |= dict.fromkeys(prompt.text for group in groups for prompt in group.prompts)
    counts = (LOOKS[0], LOOKS[-1]) if judged and model not in demo.MODELS else 2 * (chosen.images_per_prompt or 1,)
    images, most = (all_images(len(prompts), len(sets), count) if judged else 2 * len(prompts) for count in counts)
    counted = {"steps": settings.steps, "images": images, "most_images": most, "prompts": list(prompts)}
    return {"targets": [c.target for c in sets], **counted}


def time_run(
    counts: dict[str, Any], sets: Sequence[ConceptSet], settings: ErasureConfig, model: str, **how: Any
) -> dict[str, Any]:
    """The seconds of a run here: loading, steps and images, from a few of each. Judges take time beyond that.

    `how` are arguments of `load_backbone`. A closed-form method has no steps; it takes seconds.
    """
    from crce.backbones import load_backbone
    from crce.backbones.defaults import defaults_of
    from crce.evaluate.settings import ConceptSetSettings
    from crce.methods import METHODS
    from crce.sampling.generate import batch_size, draw
    from crce.training import Trainer
    from crce.training.hardening import find_states

    begun = time.perf_counter()
    how |= {"drop_t5": settings.drop_t5, "quantize": settings.quantize}
    backbone = load_backbone(model, **how)
    backbone.use_resolution(settings.resolution)
    loading = time.perf_counter() - begun
    size = min(batch_size(backbone.pipe), counts["images"])
    prompts, own = (counts["prompts"] * size)[:size], defaults_of(backbone).sampling
    sampling: dict[str, Any] = {"steps": own.steps, "guidance": own.guidance, "solver": own.solver}
    generate = partial(draw, backbone.pipe, prompts, [0] * size, **sampling)
    steps, batch = 0.0, 2 * [_seconds(generate)]
    if not METHODS.find(settings.method).solved:
        begun = time.perf_counter()
        trainer = Trainer(backbone, sets, settings.model_copy(update={"harden": 0}))
        trainer.step()  # which also fills the pool of trajectories
        steps = time.perf_counter() - begun
        few = max(TRIAL_STEPS, settings.pool)
        steps += (counts["steps"] - 1) / few * _seconds(lambda: [trainer.step() for _ in range(few)])
        if settings.harden:
            search = partial(find_states, trainer.sampler, trainer.table.sets[0], trainer.generator)
            steps += settings.harden * len(trainer.table.sets) * _seconds(search)
        batch[1] = _seconds(generate)  # with the adapter, as the erased model generates its half
        trainer.close()
    device, seconds = backbone.device, {"loading": loading, "steps": steps}
    for name in ("images", "most_images"):  # the report loads the model again
        seconds[name] = loading + counts[name] / size * sum(batch) / 2
    if counts["most_images"] > counts["images"] and (minutes := ConceptSetSettings().minutes(model, device.type)):
        counts["eval_minutes"] = minutes
        seconds = {name: min(value, 60 * minutes) if "images" in name else value for name, value in seconds.items()}
    return {"device": str(device), **seconds}


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _seconds(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
