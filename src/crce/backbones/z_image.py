"""Z-Image, chosen as the most used of the small open models (6 billion parameters, Apache licence) and because its
pipeline needs nothing beyond a mask to fit: text and picture are tokens of one stream.

Its network counts time from noise (0) to picture (1) and predicts x_0 - noise; here both are turned round, to the
velocity noise - x_0 at the timesteps of the scheduler. Its pipeline counts guidance from zero: guidance g here is
`guidance_scale` g - 1 there, and the distilled Turbo model is to be drawn with g = 1.
"""

from __future__ import annotations

import torch

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.noise import FlowGrid, even_levels, shift_by_size


SIDE = 1024  # pixels of the pipeline's own size
TOKENS = 512  # that the pipeline reads of a prompt at most


class ZImageBackbone(Backbone):
    """A `ZImagePipeline`. Token states are padded to `TOKENS`; the mask tells the network which ones it is shown."""

    component = "transformer"
    reads_states = False
    prompts_at_once = 8

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = 2 * (SIDE // (2 * self.pipe.vae_scale_factor))
        return self.network.in_channels, side, side

    def _encode(self, prompts: list[str]) -> Conditioning:
        # The pipeline writes its chat template into the list it is given.
        states, _ = self.pipe.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
        )
        hidden = states[0].new_zeros(len(states), TOKENS, states[0].shape[-1])
        mask = torch.zeros(len(states), TOKENS, dtype=torch.bool, device=hidden.device)
        for i, tokens in enumerate(states):
            hidden[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
        return Conditioning(hidden, mask=mask)

    def grid(self, steps: int) -> FlowGrid:
        _, height, width = self.latent_shape
        config = self.pipe.scheduler.config
        return FlowGrid(config, steps, shift_by_size(config, (height // 2) * (width // 2)), even_levels(steps))

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        assert cond.mask is not None  # `encode` makes one
        states = [tokens[shown] for tokens, shown in zip(cond.hidden, cond.mask, strict=True)]
        frames = list(x_t.unsqueeze(2).unbind())  # each (C, 1, h, w)
        out = self.network(frames, (1000 - t) / 1000, states, return_dict=False)[0]
        return -torch.stack(out).squeeze(2)
