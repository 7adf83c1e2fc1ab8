"""Generate images so that image i depends on its prompt and its seed alone, not on the rest of the batch."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from crce.backbones.backbone import latents_at_once, resolution_of, tokens_of
from crce.backbones.family_entries import SOLVERS
from crce.backbones.text_side import state_arguments


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from crce.sampling.pictures import Picture

logger = logging.getLogger(__name__)


def draw(
    pipe: DiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    *,
    steps: int = 20,
    guidance: float = 4.0,
    negative: str | None = None,
    batch: int = 0,
    solver: str | None = None,
    on_drawn: Callable[[int], None] | None = None,
) -> list[Picture]:
    """Generate one image per prompt.

    Args:
        pipe: any text-to-image pipeline of diffusers.
        prompts: the prompts.
        seeds: one per prompt; starting noise is made on the CPU, so that it is the same on every machine.
        steps: denoising steps.
        guidance: classifier-free guidance scale, as the pipeline counts it.
        negative: prompt to steer away from.
        batch: images per call; 0 picks by the size of the latents.
        solver: one of `crce.backbones.family_entries.SOLVERS`; None is the model's own scheduler.
        on_drawn: called after each batch with its size.

    Returns:
        One PIL image per prompt; None where generation failed.
    """
    size = batch or batch_size(pipe)
    pictures: list[Picture] = []
    with _scheduler(pipe, solver):
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            pictures += _draw_batch(pipe, part, seeds[start : start + size], steps, guidance, negative)
            if on_drawn:
                on_drawn(len(part))
    return pictures


@contextlib.contextmanager
def _scheduler(pipe: Any, solver: str | None) -> Iterator[None]:
    """Inside, the pipeline samples with another scheduler over the model's own noise levels."""
    own = pipe.scheduler
    if solver is not None:
        import diffusers

        name, changes = SOLVERS[solver]
        pipe.scheduler = getattr(diffusers, name).from_config(own.config, **changes)
    try:
        yield
    finally:
        pipe.scheduler = own


def batch_size(pipe: Any) -> int:
    """As many images at once as the size of their latents allows; one where the pipeline doesn't say it."""
    if side := resolution_of(pipe):
        return latents_at_once(side // pipe.vae_scale_factor, side // pipe.vae_scale_factor)
    config = getattr(getattr(pipe, "unet", None), "config", {})
    size = config.get("sample_size") or getattr(pipe, "default_sample_size", None)
    if size is None:
        return 1
    return latents_at_once(*((size, size) if isinstance(size, int) else size))


def _draw_batch(
    pipe: Any, prompts: list[str], seeds: list[int], steps: int, guidance: float, negative: str | None
) -> list[Picture]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    each = math.gcd(*(len(list(same)) for _, same in itertools.groupby(prompts)))  # a text is not encoded per image
    scale = "guidance_scale"
    if type(pipe).__name__ == "QwenImagePipeline":  # which is guided only where a negative prompt is given
        scale, negative = "true_cfg_scale", negative or ("" if guidance > 1 else None)
    asked = prompts[::each]  # a copy: some pipelines write their template into the list
    words = None if negative else state_arguments(pipe, asked)
    if words is None:  # and not every pipeline knows a negative prompt
        words = {"prompt": asked, **({} if negative is None else {"negative_prompt": [negative] * len(asked)})}
    try:
        with torch.inference_mode():
            return pipe(
                **words,
                num_images_per_prompt=each,
                **({"height": side, "width": side} if (side := resolution_of(pipe)) else {}),
                **({"max_sequence_length": tokens} if (tokens := tokens_of(pipe)) else {}),
                num_inference_steps=steps,
                **{scale: guidance},
                generator=generators,
            ).images
    except (RuntimeError, ValueError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if len(prompts) == 1:
            logger.warning("Could not generate %r with seed %d: %s", prompts[0], seeds[0], error)
            return [None]
    # One bad prompt must not take its neighbours along, and half a batch may fit where a whole one didn't.
    half = len(prompts) // 2
    first = _draw_batch(pipe, prompts[:half], seeds[:half], steps, guidance, negative)
    return first + _draw_batch(pipe, prompts[half:], seeds[half:], steps, guidance, negative)
