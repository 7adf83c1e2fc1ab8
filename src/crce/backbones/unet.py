"""Stable Diffusion 1.x and 2.x: a `UNet2DConditionModel` conditioned on the hidden states of one text encoder."""

from __future__ import annotations

import torch

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.noise import DDIMGrid


class UNetBackbone(Backbone):
    """A `StableDiffusionPipeline`."""

    component = "unet"
    reads_words = True

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.network.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _ = self.pipe.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return Conditioning(hidden)

    def encode_soft(self, prompts: list[str], prefix: torch.Tensor | None = None) -> Conditioning:
        """As `encode`, with gradients, and with word embeddings of no word put before each prompt.

        Args:
            prompts: B prompts.
            prefix: embeddings, shape (B, K, W) with W the width of the word embeddings; they take the place of K
                tokens after the first one, and the prompt moves back.
        """
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        padding = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        tokens = tokenizer(prompts, return_tensors="pt", **padding).to(self.device)
        ids, mask = tokens.input_ids, tokens.attention_mask
        hook = None
        if prefix is not None:
            k = prefix.shape[1]
            # The last token stays the last: where a prompt fills its room, that is its end.
            ids = torch.cat([ids[:, :1], ids[:, 1:2].expand(-1, k), ids[:, 1 : -k - 1], ids[:, -1:]], 1)
            mask = torch.cat([mask[:, :1], mask[:, :1].expand(-1, k), mask[:, 1 : -k - 1], mask[:, -1:]], 1)
            hook = encoder.get_input_embeddings().register_forward_hook(
                lambda _, __, words: torch.cat([words[:, :1], prefix.to(words), words[:, 1 + k :]], 1)
            )
        masked = getattr(encoder.config, "use_attention_mask", False)
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return Conditioning(encoder(ids, attention_mask=mask if masked else None)[0])
        finally:
            if hook is not None:
                hook.remove()

    def grid(self, steps: int) -> DDIMGrid:
        return DDIMGrid(self.pipe.scheduler.config, steps)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        return self.network(x_t, t, encoder_hidden_states=cond.hidden).sample
