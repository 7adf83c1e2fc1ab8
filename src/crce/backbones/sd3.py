"""Stable Diffusion 3 and 3.5: a transformer with joint attention that predicts the velocity of a rectified flow."""

from __future__ import annotations

import torch

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.noise import FlowGrid, shift_by_size


class SD3Backbone(Backbone):
    """A `StableDiffusion3Pipeline`. Without its third text encoder (T5), zeros stand for that one's states."""

    component = "transformer"
    reads_states = False
    prompts_at_once = 8

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _, pooled, _ = self.pipe.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return Conditioning(hidden, pooled)

    def grid(self, steps: int) -> FlowGrid:
        _, height, width = self.latent_shape
        patch = self.network.config.patch_size
        config = self.pipe.scheduler.config
        return FlowGrid(config, steps, shift_by_size(config, (height // patch) * (width // patch)))

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        return self.network(x_t, timestep=t, encoder_hidden_states=cond.hidden, pooled_projections=cond.pooled).sample
