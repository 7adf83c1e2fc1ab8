"""Z-Image: the most used of the small open models (6 billion parameters, Apache licence), where text and image are
tokens of one stream.

Its network counts time from noise (0) to image (1) and predicts x_0 - noise; here both are reversed, to the velocity
noise - x_0 at the timesteps of the scheduler. Its pipeline counts guidance from zero: guidance g here is
`guidance_scale` g - 1 there, and the distilled Turbo model is to be sampled with g = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from crce.backbones.backbone import Role
from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.transformer import FlowTransformer


SIDE = 1024  # pixels of the pipeline's native resolution
TOKENS = 512  # that the pipeline reads of a prompt at most
PADDED = 32  # tokens of image and of text come in multiples of it
PHRASE_TOKENS = 64  # of a short phrase in the chat template, padded as the network does


class ZImageBackbone(FlowTransformer):
    """A `ZImagePipeline`. Token states are padded to `TOKENS`; the mask selects those that the network reads."""

    models = "Z-Image and Z-Image-Turbo"
    single_files = ("z-image-turbo",)
    encoder_tokens = {"text_encoder": TOKENS}
    state_layers = {r"cap_embedder\.1": "cap_embedder.0"}
    thinking = True
    text_layers = r"(cap_embedder|context_refiner)\..+"
    shared_layers = r"layers\.\d+\.(attention|feed_forward)\..+"
    architectures = (Architecture("z-image", "z_image", 1024, "https://github.com/Tongyi-MAI/Z-Image"),)
    defaults = {
        "": SamplingDefaults(50, 5.0, "ZImagePipeline of diffusers", trajectory_steps=28),
        "turbo": distilled(9, "model card of Tongyi-MAI/Z-Image-Turbo: 9 steps"),
    }

    @staticmethod
    def text_tokens(named: Mapping[str, Any], *arguments: Any) -> slice:
        _, _, height, width = arguments[0][0].shape  # the image is first, padded as the network does
        return slice(-(-(height // 2) * (width // 2) // PADDED) * PADDED, None)

    @staticmethod
    def layer_role(path: list[str]) -> Role:
        if path[0] == "layers" and "attention" in path:
            return "cross-attention"
        if path[0] == "context_refiner":
            return "text"
        if path[0] == "noise_refiner" and "attention" in path:
            return "self-attention"
        return "other" if path[0] in ("layers", "noise_refiner") and "adaLN_modulation" not in path else "full only"

    @property
    def native_shape(self) -> tuple[int, int, int]:
        side = 2 * (SIDE // (2 * self.pipe.vae_scale_factor))
        return self.network.in_channels, side, side

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        return Conditioning.empty(count, PHRASE_TOKENS, self.network.config.cap_feat_dim, dtype, masked=True)

    def _encode(self, prompts: list[str]) -> Conditioning:
        # The pipeline writes its chat template into the list that it receives.
        states, _ = self.pipe.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
        )
        return Conditioning.padded(states, TOKENS)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        assert cond.mask is not None  # `encode` makes one
        states = [tokens[shown] for tokens, shown in zip(cond.hidden, cond.mask, strict=True)]
        frames = list(x_t.unsqueeze(2).unbind())  # each (C, 1, h, w)
        out = self.network(frames, (1000 - t) / 1000, states, return_dict=False)[0]
        return -torch.stack(out).squeeze(2)
