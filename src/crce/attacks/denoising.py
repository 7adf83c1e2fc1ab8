"""What gradient attacks learn from: pictures of the concept, brought to a noise level, and what was to be predicted.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n       wanted: n, or v = sqrt(abar_t) n - sqrt(1 - abar_t) x_0
x_t = (1 - sigma) x_0 + sigma n                   wanted: n - x_0, for rectified flows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from crce.backbones.noise import DDIMGrid
from crce.errors import RunError


if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.attacks.protocol import Prompt
    from crce.attacks.victim import Victim
    from crce.backbones import Backbone

PICTURE_SEED = 30_000  # far from those that a search and a test draw
ASKED = 4  # pictures that are drawn for one that shows the concept
LEVELS = 100  # of a rectified flow


class Denoising:
    """Noise levels of a model, counted from 0 (picture) to 1 (noise)."""

    def __init__(self, backbone: Backbone) -> None:
        from diffusers import DDIMScheduler

        self._grid = backbone.grid(LEVELS)
        config = backbone.pipe.scheduler.config
        self._ddim = DDIMScheduler.from_config(config) if isinstance(self._grid, DDIMGrid) else None
        self._velocity = config.get("prediction_type") == "v_prediction"

    def at(
        self, x_0: torch.Tensor, noise: torch.Tensor, levels: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents at noise levels.

        Args:
            x_0: finished latents, shape (B, C, h, w).
            noise: as large.
            levels: one for each, in [0, 1).

        Returns:
            x_t, shape (B, C, h, w); the timesteps, shape (B,); and what the model should predict there.
        """
        if self._ddim is not None:
            scheduler = self._ddim
            steps = scheduler.config["num_train_timesteps"]
            t = torch.tensor([int(level * steps) for level in levels], device=x_0.device)
            x_t = scheduler.add_noise(x_0, noise, t)
            return x_t, t, scheduler.get_velocity(x_0, noise, t) if self._velocity else noise
        places = [min(LEVELS - 1, int((1 - level) * LEVELS)) for level in levels]
        rows = zip(x_0.split(1), noise.split(1), places, strict=True)
        x_t = torch.cat([self._grid.noised(x, n, place) for x, n, place in rows])
        return x_t, torch.tensor([self._grid.timesteps[p] for p in places], device=x_0.device), noise - x_0


@torch.no_grad()
def latents_of(backbone: Backbone, pictures: Sequence[Image]) -> torch.Tensor:
    """x_0 of pictures, shape (B, C, h, w): the mean of the autoencoder's answer, scaled as the denoiser reads it."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents

    vae, config = backbone.pipe.vae, backbone.pipe.vae.config
    pixels = backbone.pipe.image_processor.preprocess(list(pictures)).to(backbone.device, vae.dtype)
    encoded = torch.cat([retrieve_latents(vae.encode(part), sample_mode="argmax") for part in pixels.split(1)])
    return (encoded.float() - (config.get("shift_factor") or 0)) * config.scaling_factor


def concept_latents(erased: Victim, prompt: Prompt, count: int) -> torch.Tensor:
    """x_0 of pictures that the base model draws of a prompt and the judge recognises, shape (count, C, h, w).

    Raises:
        RunError: among four times as many pictures there is none.
    """
    kept: list[Image] = []
    with erased.original():
        for start in range(PICTURE_SEED, PICTURE_SEED + ASKED * count, count):
            seeds = list(range(start, start + count))
            pictures = erased.draw([prompt.text] * count, seeds)
            sights = erased.judged(pictures, prompt.expected)
            kept += [p for p, s in zip(pictures, sights, strict=True) if p is not None and s.word == prompt.expected]
            if len(kept) >= count:
                break
    if not kept:
        raise RunError(
            f"The base model drew {ASKED * count} pictures of {prompt.text!r}, and the judge sees {prompt.expected!r} "
            "in none, so that there is nothing to learn from. Give another prompt."
        )
    latents = latents_of(erased.backbone, kept[:count])
    return latents[torch.arange(count) % len(latents)]
