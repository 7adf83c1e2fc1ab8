"""Stable Diffusion XL: the UNet is also told a pooled text state, and the size of the picture by its "time ids"."""

from __future__ import annotations

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.unet import UNetBackbone


class SDXLBackbone(UNetBackbone):
    """A `StableDiffusionXLPipeline`. x_t lives on the DDIM grid even where the pipeline draws with Euler.

    An Euler latent is x_t sqrt(sigma^2 + 1), and the UNet is shown it divided by that root: exactly x_t.
    """

    reads_words = False  # it has two text encoders

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, do_classifier_free_guidance=False)
        if self.pipe.config.force_zeros_for_empty_prompt:
            # The base model was trained with zeros where there is no prompt, and its sampler guides with them.
            empty = torch.tensor([not prompt for prompt in prompts], device=hidden.device)
            hidden, pooled = hidden.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return Conditioning(hidden, pooled)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        told = {"text_embeds": cond.pooled, "time_ids": self._time_ids(x_t)}
        return self.network(x_t, t, encoder_hidden_states=cond.hidden, added_cond_kwargs=told).sample

    def _time_ids(self, x_t: torch.Tensor) -> torch.Tensor:
        """Original size, crop and target size in pixels: an uncropped picture of the latent's own size, (B, 6)."""
        height, width = (side * self.pipe.vae_scale_factor for side in x_t.shape[-2:])
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=x_t.dtype, device=x_t.device)
        return ids.expand(len(x_t), -1)
