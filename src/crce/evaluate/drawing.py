"""Draw pictures so that picture i depends on its prompt and its seed alone, not on what else is in the batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from crce.backbones import UNetBackbone
    from crce.evaluate.pictures import Picture

logger = logging.getLogger(__name__)


def draw(
    backbone: UNetBackbone,
    prompts: list[str],
    seeds: list[int],
    *,
    steps: int = 20,
    guidance: float = 4.0,
    negative: str | None = None,
    batch: int = 0,
    on_drawn: Callable[[int], None] | None = None,
) -> list[Picture]:
    """Draw one picture per prompt with the model's own scheduler.

    Args:
        backbone: the model, with its adapter on or off.
        prompts: what to draw.
        seeds: one per prompt; starting noise is made on the CPU, so that it is the same on every machine.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        negative: prompt to steer away from.
        batch: pictures per call; 0 picks by the size of the latents.
        on_drawn: called with the number of pictures that each call drew.

    Returns:
        One PIL image per prompt; None where the picture could not be drawn.
    """
    _, height, width = backbone.latent_shape
    size = batch or max(1, min(32, 4096 // (height * width)))
    pictures: list[Picture] = []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        pictures += _draw_batch(backbone, part, seeds[start : start + size], steps, guidance, negative)
        if on_drawn:
            on_drawn(len(part))
    return pictures


def _draw_batch(
    backbone: UNetBackbone, prompts: list[str], seeds: list[int], steps: int, guidance: float, negative: str | None
) -> list[Picture]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    try:
        with torch.inference_mode():
            return backbone.pipe(
                prompts,
                negative_prompt=None if negative is None else [negative] * len(prompts),
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
            ).images
    except (RuntimeError, ValueError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if len(prompts) == 1:
            logger.warning("Could not draw %r with seed %d: %s", prompts[0], seeds[0], error)
            return [None]
        # One bad prompt must not take its neighbours along, and half a batch may fit where a whole one didn't.
        half = len(prompts) // 2
        first = _draw_batch(backbone, prompts[:half], seeds[:half], steps, guidance, negative)
        return first + _draw_batch(backbone, prompts[half:], seeds[half:], steps, guidance, negative)
