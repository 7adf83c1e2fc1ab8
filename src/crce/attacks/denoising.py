"""Training data of gradient attacks: noised latents of the concept, and what the model should predict for them.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n     target: n, or v = sqrt(abar_t) n - sqrt(1 - abar_t) x_0
x_t = (1 - sigma) x_0 + sigma n                 target: n - x_0, for rectified flows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from PIL.Image import Image

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Allowance
from crce.attacks.victim import Victim
from crce.backbones import Backbone, Conditioning
from crce.backbones.noise import DDIMGrid
from crce.errors import RunError
from crce.judges.judge import judge_images


IMAGE_SEED = 30_000  # far from the seeds of searches and tests
CANDIDATES = 4  # images that are generated for one that shows the concept
LEVELS = 100  # of a rectified flow


class ForwardProcess:
    """The forward process of a model, with noise levels from 0 (image) to 1 (noise)."""

    def __init__(self, backbone: Backbone) -> None:
        from diffusers import DDIMScheduler

        self._grid = backbone.grid(LEVELS)
        config = backbone.pipe.scheduler.config
        self._ddim = DDIMScheduler.from_config(config) if isinstance(self._grid, DDIMGrid) else None
        self._velocity = config.get("prediction_type") == "v_prediction"

    def at(
        self, x_0: torch.Tensor, noise: torch.Tensor, levels: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Finished latents x_0 with noise, both of shape (B, C, h, w), at one level in [0, 1) for each.

        Returns:
            x_t, shape (B, C, h, w); the timesteps, shape (B,); and the target of the prediction, shape (B, C, h, w).
        """
        if self._ddim is not None:
            steps = self._ddim.config["num_train_timesteps"]
            t = torch.tensor([int(level * steps) for level in levels], device=x_0.device)
            target = self._ddim.get_velocity(x_0, noise, t) if self._velocity else noise
            return self._ddim.add_noise(x_0, noise, t), t, target
        places = [min(LEVELS - 1, int((1 - level) * LEVELS)) for level in levels]
        rows = zip(x_0.split(1), noise.split(1), places, strict=True)
        x_t = torch.cat([self._grid.noised(x, n, place) for x, n, place in rows])
        return x_t, torch.tensor([self._grid.timesteps[p] for p in places], device=x_0.device), noise - x_0


def fit(
    victim: Victim,
    allowance: Allowance,
    x_0: torch.Tensor,
    batch: int,
    generator: torch.Generator,
    parameters: Sequence[torch.Tensor],
    rate: float,
    condition: Callable[[], Conditioning],
) -> Iterator[float]:
    """Train on random rows of x_0 at random noise levels with AdamW, one optimizer step for each step of the budget.

    x_0 are finished latents, shape (N, C, h, w), `batch` the rows of a step, and `condition` returns their
    conditioning. Yields the loss of each step.
    """
    process = ForwardProcess(victim.backbone)
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    while allowance.take():
        picked = torch.randint(len(x_0), (batch,), generator=generator)
        x, noise = x_0[picked.to(x_0.device)], torch.randn(batch, *x_0.shape[1:], generator=generator)
        levels = (torch.rand(batch, generator=generator) * 0.999).tolist()
        x_t, t, target = process.at(x, noise.to(x), levels)
        loss = (victim.predict(x_t, t, condition()) - target).square().mean()
        # Not backward(): the parameters of the erasure require gradients too, which are not needed.
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def latents_of(backbone: Backbone, images: Sequence[Image]) -> torch.Tensor:
    """x_0 of images, shape (B, C, h, w): the mean of the autoencoder's posterior, scaled as the denoiser expects."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents

    vae, config = backbone.pipe.vae, backbone.pipe.vae.config
    pixels = backbone.pipe.image_processor.preprocess(list(images)).to(backbone.device, vae.dtype)
    encoded = torch.cat([retrieve_latents(vae.encode(part), sample_mode="argmax") for part in pixels.split(1)])
    return (encoded.float() - (config.get("shift_factor") or 0)) * config.scaling_factor


def concept_latents(victim: Victim, prompt: AttackedPrompt, count: int) -> torch.Tensor:
    """x_0 of images that the base model generates for a prompt and the judge recognises, shape (count, C, h, w)."""
    kept: list[Image] = []
    with victim.original():
        for start in range(IMAGE_SEED, IMAGE_SEED + CANDIDATES * count, count):
            images = victim.generate([prompt.text] * count, list(range(start, start + count)))
            judged = judge_images(victim.judge, images, prompt.expected, victim.judge.threshold)
            kept += [i for i, j in zip(images, judged, strict=True) if i is not None and j.word == prompt.expected]
            if len(kept) >= count:
                break
    if not kept:
        raise RunError(
            f"The judge sees {prompt.expected!r} in none of {CANDIDATES * count} images that the base model generated "
            f"for {prompt.text!r}, so there is nothing to learn from. Use another prompt."
        )
    latents = latents_of(victim.backbone, kept[:count])
    return latents[torch.arange(count) % len(latents)]
