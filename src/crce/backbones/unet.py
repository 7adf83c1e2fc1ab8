"""Stable Diffusion 1.x and 2.x: a `UNet2DConditionModel` conditioned on the hidden states of one text encoder.

Shapes: B batch, L tokens, D text width; latents (B, C, h, w).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler


class UNetBackbone:
    """A Stable Diffusion pipeline seen as encode, predict and step.

    Attributes:
        pipe: the diffusers `StableDiffusionPipeline`; its modules are frozen and in evaluation mode.
        model: the model as the user named it.
        revision: what pins its weights: a Hub commit or a hash of the files, when known.
    """

    def __init__(self, pipe: Any, model: str, revision: str | None = None) -> None:
        self.pipe = pipe
        self.model = model
        self.revision = revision
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        """The denoiser, a `UNet2DConditionModel`."""
        return self.pipe.unet

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return self.network.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent at the model's native resolution."""
        config = self.network.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> torch.Tensor:
        """Hidden states of prompts, shape (B, L, D). The empty prompt is the unconditional one."""
        hidden, _ = self.pipe.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return hidden

    def predict(self, x_t: torch.Tensor, t: torch.Tensor | int, hidden: torch.Tensor) -> torch.Tensor:
        """What the denoiser was trained to predict (eps or v), without guidance.

        Args:
            x_t: latents, shape (B, C, h, w).
            t: timestep of the noise level that x_t has, one for all or shape (B,).
            hidden: prompt states, shape (B, L, D).

        Returns:
            Prediction in float32, shape (B, C, h, w).
        """
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.network(x_t.to(self.dtype), t, encoder_hidden_states=hidden).sample
        return out.float()

    def ddim(self, steps: int) -> Any:
        """A `DDIMScheduler` set to `steps` noise levels on the model's own noise schedule and prediction type."""
        scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler
