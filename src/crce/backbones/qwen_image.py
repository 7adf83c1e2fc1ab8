"""Qwen-Image, a transformer of 20 billion parameters. Guidance keeps the size that a token has with the prompt."""

from __future__ import annotations

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults
from crce.backbones.transformer import FlowTransformer, pack, unpack


TOKENS = 512  # that the pipeline reads of a prompt at most
PHRASE_TOKENS = 16  # of a short phrase


class QwenImageBackbone(FlowTransformer):
    """A `QwenImagePipeline`. Token states are padded to `TOKENS`; the mask selects those that the network reads."""

    models = "Qwen-Image"
    single_files = ()
    encoder_tokens = {"text_encoder": TOKENS}
    state_layers = {"txt_in": "txt_norm"}
    unread_tokens = 34  # `prompt_template_encode_start_idx` of the pipeline
    architectures = (Architecture("Qwen-Image", "qwen_image", 1024, "https://github.com/QwenLM/Qwen-Image"),)
    text_layers = r"txt_in|transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|txt_mlp\..+)"
    defaults = {"": SamplingDefaults(50, 4.0, "QwenImagePipeline of diffusers", trajectory_steps=28)}

    @property
    def unread(self) -> set[str]:
        ends = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
        return {f"transformer_blocks.{self.network.config.num_layers - 1}.{end}" for end in ends}

    def chat(self, prompt: str) -> str:
        return str(self.pipe.prompt_template_encode.format(prompt))

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        return Conditioning.empty(count, PHRASE_TOKENS, self.network.config.joint_attention_dim, dtype, masked=True)

    def guided(self, out_null: torch.Tensor, out: torch.Tensor, guidance: float) -> torch.Tensor:
        tokens = pack(super().guided(out_null, out, guidance))
        sizes = pack(out).norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)
        return unpack(tokens * sizes, out)

    def vae_latents(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.pipe.vae.config
        mean, std = (latents.new_tensor(own)[:, None, None] for own in (config.latents_mean, config.latents_std))
        return (latents * std + mean).unsqueeze(2)  # a video of one frame

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, mask = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=TOKENS)
        lengths = [hidden.shape[1]] * len(hidden) if mask is None else mask.sum(1).tolist()
        return Conditioning.padded([own[:length] for own, length in zip(hidden, lengths, strict=True)], TOKENS)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        assert cond.mask is not None  # `encode` makes one
        mask = cond.mask[:, : int(cond.mask.sum(1).max())]
        height, width = x_t.shape[-2:]
        out = self.network(
            hidden_states=pack(x_t),
            timestep=t.to(x_t.dtype) / 1000,  # in the latents' type, as the pipeline does
            encoder_hidden_states=cond.hidden[:, : mask.shape[1]],
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x_t),
        ).sample
        return unpack(out, x_t)
