"""Stable Diffusion 1.x and 2.x: a `UNet2DConditionModel` conditioned on the hidden states of one text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from crce.backbones.backbone import Backbone, Role
from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults, distilled
from crce.backbones.noise import DDIMGrid


FEW_STEPS = {  # of Stable Diffusion XL too
    "lightning": distilled(4, "model card of ByteDance/SDXL-Lightning: 4 steps"),
    "hyper": distilled(8, "model card of ByteDance/Hyper-SD: 8 steps"),
    "lcm": distilled(4, "model card of latent-consistency/lcm-lora-sdv1-5: 4 steps"),
}
_COMPVIS = "https://github.com/CompVis/stable-diffusion"
_STABILITY = "https://github.com/Stability-AI/stablediffusion"


class UNetBackbone(Backbone):
    """A `StableDiffusionPipeline`."""

    component = "unet"
    models = "Stable Diffusion 1.x and 2.x"
    single_files: ClassVar[Sequence[str]] = ("v1", "v2")
    half = torch.float16
    encoder_tokens = {"text_encoder": None}
    prompts_at_once = 64
    state_layers: ClassVar[Mapping[str, str]] = {r".*\.attn2\.to_[kv]": "hidden"}
    reads_words = True
    text_layers = r".+\.attn2\.to_[kv]"
    kohya = {"unet": "lora_unet", "text_encoder": "lora_te"}
    architectures: ClassVar[Sequence[Architecture]] = (
        Architecture("stable-diffusion-v1", "sd_v1", 512, _COMPVIS, text_width=768),
        Architecture("stable-diffusion-v2-768-v", "sd_v2_v", 768, _STABILITY, 1024, prediction_type="v_prediction"),
        Architecture("stable-diffusion-v2-512", "sd_v2", 512, _STABILITY, text_width=1024),
    )

    defaults: ClassVar[Mapping[str, SamplingDefaults]] = {
        "": SamplingDefaults(50, 7.5, "StableDiffusionPipeline of diffusers"),
        "demo": SamplingDefaults(5, 4.0, "benchmarks/speed/whole_job.json", solver="dpm++"),
        "turbo": distilled(4, "model card of stabilityai/sd-turbo: 1 to 4 steps"),
        **FEW_STEPS,
    }

    @classmethod
    def kin(cls, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]) -> str:
        # Distilled models begin at the very last timestep, as do only those whose noise has no signal left there.
        trailing = scheduler.get("timestep_spacing") == "trailing"
        return "turbo" if trailing and not scheduler.get("rescale_betas_zero_snr") else ""

    @classmethod
    def load_options(cls, index: Mapping[str, Any]) -> dict[str, Any]:
        # A safety checker would hide from the judge what the model really generates.
        return {"safety_checker": None, "requires_safety_checker": False}

    @staticmethod
    def layer_role(path: list[str]) -> Role:
        if "attn2" in path:
            return "cross-attention"
        if "attn1" in path:
            return "self-attention"
        # As in ESD, not trained: the time embedding, to which SDXL adds pooled text and sizes, and the output layer.
        return "full only" if path[0] in ("time_embedding", "add_embedding", "conv_out") else "other"

    @property
    def native_shape(self) -> tuple[int, int, int]:
        size = self.network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.network.config.in_channels, height, width

    def grid(self, steps: int) -> DDIMGrid:
        return DDIMGrid(self.pipe.scheduler.config, steps)

    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        return Conditioning.empty(count, tokens, self.network.config.cross_attention_dim, dtype)

    def _encode(self, prompts: list[str]) -> Conditioning:
        hidden, _ = self.pipe.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return Conditioning(hidden)

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        return self.network(x_t, t, encoder_hidden_states=cond.hidden).sample

    def encode_soft(self, prompts: list[str], prefix: torch.Tensor | None = None) -> Conditioning:
        """As `encode`, with gradients, and with learned word embeddings inserted before each prompt.

        The `prefix` of B prompts has shape (B, K, W) with W the width of the word embeddings. It takes the place of
        the K tokens after the first one, and the prompt moves back.
        """
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        padding = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        tokens = tokenizer(prompts, return_tensors="pt", **padding).to(self.device)
        ids, mask = tokens.input_ids, tokens.attention_mask
        hook = None
        if prefix is not None:
            k = prefix.shape[1]
            # The last token stays the last: of a prompt that fills the length, it is the end token.
            order = [0] * (k + 1) + list(range(1, ids.shape[1] - k - 1)) + [-1]
            ids, mask = ids[:, order], mask[:, order]
            hook = encoder.get_input_embeddings().register_forward_hook(
                lambda _, __, words: torch.cat([words[:, :1], prefix.to(words), words[:, 1 + k :]], 1)
            )
        masked = getattr(encoder.config, "use_attention_mask", False)
        try:
            with self.autocast():
                return Conditioning(encoder(ids, attention_mask=mask if masked else None)[0])
        finally:
            if hook is not None:
                hook.remove()
