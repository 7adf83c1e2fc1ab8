"""FLUX.2 Klein. Its distilled models sample without guidance, whatever is asked for, its base models with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.noise import FlowGrid
from crce.backbones.transformer import FlowTransformer, pack, unpack


TOKENS = 512  # to which the pipeline pads a prompt


class Flux2KleinBackbone(FlowTransformer):
    """A `Flux2KleinPipeline`. Latents are (B, 32, h, w) outside, where the pipeline keeps their 2 x 2 patches."""

    models = "FLUX.2 Klein"
    single_files = ()
    encoder_tokens = {"text_encoder": TOKENS}
    state_layers = {"context_embedder": "hidden"}
    thinking = False
    architectures = (Architecture("flux-2-klein", "flux_2_klein", 1024, "https://github.com/black-forest-labs/flux2"),)
    defaults = {
        "": SamplingDefaults(50, 4.0, "Flux2KleinPipeline of diffusers", trajectory_steps=28),
        "distilled": distilled(4, "model card of black-forest-labs/FLUX.2-klein-4B: 4 steps"),
    }

    @classmethod
    def kin(cls, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]) -> str:
        return "distilled" if denoiser.get("is_distilled") else ""

    def grid(self, steps: int) -> FlowGrid:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        shift = compute_empirical_mu(self.image_tokens, steps)
        return FlowGrid(self.pipe.scheduler.config, steps, self.image_tokens, even=True, mu=shift)

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        return Conditioning.empty(count, TOKENS, self.network.config.joint_attention_dim, dtype)

    def guided(self, out_null: torch.Tensor, out: torch.Tensor, guidance: float) -> torch.Tensor:
        return out if self.pipe.config.is_distilled else super().guided(out_null, out, guidance)

    def vae_latents(self, latents: torch.Tensor) -> torch.Tensor:
        norm = self.pipe.vae.bn  # of patches
        mean, std = norm.running_mean[:, None, None], (norm.running_var + norm.eps).sqrt()[:, None, None]
        return pixel_shuffle(pixel_unshuffle(latents, 2) * std.to(latents) + mean.to(latents), 2)

    def _encode(self, prompts: list[str]) -> Conditioning:
        return Conditioning(self.pipe.encode_prompt(prompts, device=self.device)[0])

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        out = self.network(
            hidden_states=pack(x_t),
            timestep=t.to(x_t.dtype) / 1000,  # in the latents' type, as the pipeline does
            encoder_hidden_states=cond.hidden,
            txt_ids=self.pipe._prepare_text_ids(cond.hidden[:1]).to(x_t.device),  # the same for every row
            img_ids=self.pipe._prepare_latent_ids(pixel_unshuffle(x_t[:1], 2)).to(x_t.device),
        ).sample
        return unpack(out, x_t)
