"""What the transformers of rectified flows have in common; each family is a module of its own."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from crce.backbones.backbone import Backbone
from crce.backbones.noise import FlowGrid
from crce.backbones.scopes import TWO_STREAM_TEXT, two_stream_role


class FlowTransformer(Backbone, ABC):
    """A family whose tokens of the image are 2 x 2 patches of the latents."""

    component = "transformer"
    half = torch.bfloat16
    prompts_at_once = 8
    layer_role = staticmethod(two_stream_role)
    text_layers = TWO_STREAM_TEXT
    even: ClassVar[bool] = True  # whether its pipeline sets other levels than its scheduler, see `FlowGrid`
    thinking: ClassVar[bool | None] = None  # as its pipeline sets it in a chat template; None uses no template

    @property
    def native_shape(self) -> tuple[int, int, int]:
        side = self.pipe.default_sample_size
        return self.network.config.in_channels // 4, side, side

    @property
    def image_tokens(self) -> int:
        """How many tokens an image has."""
        return self.latent_shape[1] * self.latent_shape[2] // 4

    def chat(self, prompt: str) -> str:
        if self.thinking is None:
            return prompt
        chat = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": self.thinking}
        return str(self.pipe.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], **chat))

    def grid(self, steps: int) -> FlowGrid:
        return FlowGrid(self.pipe.scheduler.config, steps, self.image_tokens, even=self.even)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) as tokens (B, hw / 4, 4C)."""
    return pixel_unshuffle(latents, 2).flatten(2).mT


def unpack(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Tokens as latents of the shape of `like`, see `pack`."""
    height, width = like.shape[-2:]
    return pixel_shuffle(tokens.mT.unflatten(2, (height // 2, width // 2)), 2)
