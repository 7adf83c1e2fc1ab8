"""Stable Diffusion 3 and 3.5: a transformer with joint attention that predicts the velocity of a rectified flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.scopes import TWO_STREAM_STATES
from crce.backbones.transformer import FlowTransformer


T5_TOKENS = 256  # to which the pipeline pads a prompt for its third text encoder


class SD3Backbone(FlowTransformer):
    """A `StableDiffusion3Pipeline`. Without its third text encoder (T5), zeros replace that encoder's states."""

    even = False
    models = "Stable Diffusion 3 and 3.5"
    single_files = ("sd3", "sd35_medium", "sd35_large")
    encoder_tokens = {"text_encoder": None, "text_encoder_2": None, "text_encoder_3": T5_TOKENS}
    state_layers = TWO_STREAM_STATES
    state_tokenizers = ("tokenizer", "tokenizer_3")
    t5 = ("text_encoder_3", "tokenizer_3")
    architectures = (Architecture("stable-diffusion-3", "sd3", 1024, "https://github.com/Stability-AI/sd3-ref"),)
    defaults = {
        "": SamplingDefaults(28, 7.0, "StableDiffusion3Pipeline of diffusers", trajectory_steps=28),
        "3.5": SamplingDefaults(28, 3.5, "model card of stable-diffusion-3.5-large", trajectory_steps=28),
        "turbo": distilled(4, "model card of stable-diffusion-3.5-large-turbo: 4 steps"),
    }

    @classmethod
    def kin(cls, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]) -> str:
        return "3.5" if denoiser.get("qk_norm") else ""  # which came with that version

    @classmethod
    def load_options(cls, index: Mapping[str, Any]) -> dict[str, Any]:
        saved_without_t5 = "transformer" in index and not any(index.get("text_encoder_3") or ())
        return dict.fromkeys(cls.t5) if saved_without_t5 else {}

    @property
    def native_shape(self) -> tuple[int, int, int]:
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        config = self.network.config
        width, pooled = config.joint_attention_dim, config.pooled_projection_dim
        return Conditioning.empty(count, tokens + T5_TOKENS, width, dtype, pooled=pooled)

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _, pooled, _ = self.pipe.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return Conditioning(hidden, pooled)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        return self.network(x_t, timestep=t, encoder_hidden_states=cond.hidden, pooled_projections=cond.pooled).sample
