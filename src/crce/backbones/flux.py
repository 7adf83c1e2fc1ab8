"""FLUX.1 dev and schnell: a transformer over packed latents that predicts the velocity of a rectified flow.

dev was distilled with guidance: the guidance scale is an input of the network, and one forward pass gives the guided
prediction. schnell was distilled to sample without guidance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from crce.backbones.backbone import tokens_of
from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.scopes import TWO_STREAM_STATES
from crce.backbones.transformer import FlowTransformer, pack, unpack


NO_GUIDANCE = 1.0  # input of a network with a guidance input where none is asked for
_CODE = "https://github.com/black-forest-labs/flux"
T5_TOKENS = 512  # to which the pipeline pads a prompt for its second text encoder


class FluxBackbone(FlowTransformer):
    """A `FluxPipeline`. Latents are (B, C, h, w) outside; the network's tokens are 2 x 2 patches of them."""

    models = "FLUX.1 dev and schnell"
    single_files = ("flux-dev", "flux-schnell")
    encoder_tokens = {"text_encoder": None, "text_encoder_2": T5_TOKENS}
    state_layers = TWO_STREAM_STATES
    solved_block = "transformer_blocks.1"
    state_tokenizers = ("tokenizer_2",)
    shared_layers = r"single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out)"
    architectures = (
        Architecture("flux-1-dev", "flux1", 1024, _CODE),
        Architecture("flux-1-schnell", "flux1", 1024, _CODE, kin="schnell"),
    )
    defaults = {
        "": SamplingDefaults(28, 3.5, "FluxPipeline of diffusers", 28, 3.5),
        "demo": SamplingDefaults(10, 3.5, "benchmarks/demo/flow_solver.json"),
        "schnell": distilled(4, "model card of black-forest-labs/FLUX.1-schnell: 1 to 4 steps"),
    }

    @classmethod
    def set_up(cls, pipe: Any) -> None:
        # The tokens of its largest image, where the shift of noise levels ends: 4096 for FLUX.1, which is the only
        # size that the class knows.
        tokens = pipe.scheduler.config.get("max_image_seq_len", 4096)
        pipe.default_sample_size = 2 * math.isqrt(tokens)
        pipe.crce_tokens = min(T5_TOKENS, getattr(pipe.tokenizer_2, "model_max_length", T5_TOKENS))

    @staticmethod
    def text_tokens(named: Mapping[str, Any], *arguments: Any) -> slice:
        return slice(named["encoder_hidden_states"].shape[1])  # the text is first

    @classmethod
    def kin(cls, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]) -> str:
        return "" if denoiser.get("guidance_embeds", True) else "schnell"

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        config = self.network.config
        width, pooled = config.joint_attention_dim, config.pooled_projection_dim
        return Conditioning.empty(count, int(tokens_of(self.pipe) or T5_TOKENS), width, dtype, pooled=pooled)

    def predict_guided(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, null: Conditioning, guidance: float
    ) -> torch.Tensor:
        """The prediction that sampling uses: one forward pass with `guidance` as its input.

        schnell has no such input and samples without guidance, whatever is asked for. `null` is not needed.
        """
        return self.predict(x_t, t, cond, guidance)

    def _encode(self, prompts: list[str]) -> Conditioning:
        tokens = tokens_of(self.pipe)
        hidden, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=tokens)
        return Conditioning(hidden, pooled)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        batch, _, height, width = x_t.shape
        scale = NO_GUIDANCE if guidance is None else guidance
        scales = torch.full((batch,), scale, dtype=torch.float32, device=x_t.device)
        out = self.network(
            hidden_states=pack(x_t),
            timestep=t.to(x_t.dtype) / 1000,  # in the latents' type, as the pipeline does
            guidance=scales if self.network.config.guidance_embeds else None,
            pooled_projections=cond.pooled,
            encoder_hidden_states=cond.hidden,
            txt_ids=torch.zeros(cond.hidden.shape[1], 3, dtype=x_t.dtype, device=x_t.device),
            img_ids=self.pipe._prepare_latent_image_ids(batch, height // 2, width // 2, x_t.device, x_t.dtype),
        ).sample
        return unpack(out, x_t)
