"""Stable Diffusion XL: its UNet also takes a pooled text state, and the size of the image as "time ids"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.unet import FEW_STEPS, UNetBackbone


_CODE = "https://github.com/Stability-AI/generative-models"


class SDXLBackbone(UNetBackbone):
    """A `StableDiffusionXLPipeline`. x_t is on the DDIM grid even where the pipeline samples with Euler.

    An Euler latent is x_t sqrt(sigma^2 + 1), and the UNet's input is that divided by the root: exactly x_t.
    """

    models = "Stable Diffusion XL"
    single_files = ("xl_base",)
    encoder_tokens = {"text_encoder": None, "text_encoder_2": None}
    reads_words = False  # it has two text encoders
    kohya = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    architectures = (Architecture("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", 1024, _CODE, text_width=2048),)

    defaults = {
        "": SamplingDefaults(50, 5.0, "StableDiffusionXLPipeline of diffusers"),
        "turbo": distilled(4, "model card of stabilityai/sdxl-turbo: 1 to 4 steps"),
        **FEW_STEPS,
    }

    @classmethod
    def load_options(cls, index: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        config = self.network.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return Conditioning.empty(count, tokens, config.cross_attention_dim, dtype, pooled=pooled)

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, do_classifier_free_guidance=False)
        if self.pipe.config.force_zeros_for_empty_prompt:
            # The base model was trained with zeros where there is no prompt, and its sampler guides with them.
            empty = torch.tensor([not prompt for prompt in prompts], device=hidden.device)
            hidden, pooled = hidden.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return Conditioning(hidden, pooled)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        # Original size, crop and target size in pixels: an uncropped image of the latent's own size, (B, 6).
        height, width = (side * self.pipe.vae_scale_factor for side in x_t.shape[-2:])
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=x_t.dtype, device=x_t.device)
        added = {"text_embeds": cond.pooled, "time_ids": ids.expand(len(x_t), -1)}
        return self.network(x_t, t, encoder_hidden_states=cond.hidden, added_cond_kwargs=added).sample
