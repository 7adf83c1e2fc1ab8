"""FLUX.1 dev and schnell: a transformer over packed latents that predicts the velocity of a rectified flow.

dev was distilled with guidance: its strength is an input of the network, so that one forward gives the guided
prediction. schnell was distilled to draw without guidance.
"""

from __future__ import annotations

import torch

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.noise import FlowGrid, even_levels, shift_by_size


NO_GUIDANCE = 1.0  # told to a network with a guidance input where none is asked for


class FluxBackbone(Backbone):
    """A `FluxPipeline`. Latents are (B, C, h, w) outside; the network sees 2 x 2 patches of them as tokens."""

    component = "transformer"
    reads_states = False
    prompts_at_once = 8

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.pipe.default_sample_size
        return self.network.config.in_channels // 4, side, side

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device)
        return Conditioning(hidden, pooled)

    def grid(self, steps: int) -> FlowGrid:
        _, height, width = self.latent_shape
        config = self.pipe.scheduler.config
        return FlowGrid(config, steps, shift_by_size(config, (height // 2) * (width // 2)), even_levels(steps))

    def predict_guided(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, null: Conditioning, guidance: float
    ) -> torch.Tensor:
        """The prediction that a picture is drawn with: one forward that is told `guidance`.

        schnell has no input for it and draws without, whatever is asked for. `null` is not needed.
        """
        return self._predict(x_t, t, cond, guidance)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        batch, channels, height, width = x_t.shape
        strength = None
        if self.network.config.guidance_embeds:
            told = NO_GUIDANCE if guidance is None else guidance
            strength = torch.full((batch,), told, dtype=torch.float32, device=x_t.device)
        out = self.network(
            hidden_states=self.pipe._pack_latents(x_t, batch, channels, height, width),
            timestep=t.to(x_t.dtype) / 1000,  # in the latents' type, as the pipeline does
            guidance=strength,
            pooled_projections=cond.pooled,
            encoder_hidden_states=cond.hidden,
            txt_ids=torch.zeros(cond.hidden.shape[1], 3, dtype=x_t.dtype, device=x_t.device),
            img_ids=self.pipe._prepare_latent_image_ids(batch, height // 2, width // 2, x_t.device, x_t.dtype),
        ).sample
        scale = self.pipe.vae_scale_factor
        return self.pipe._unpack_latents(out, height * scale, width * scale, scale)
