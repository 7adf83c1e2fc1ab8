"""Folders that hold the configs of well-known models and no weights, as a Hub id is read before it is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_L |= {"max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": 768, "hidden_act": "quick_gelu"}
CLIP_G = CLIP_L | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
CLIP_G |= {"projection_dim": 1280, "hidden_act": "gelu"}
T5_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
T5_XXL |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
QWEN3_4B = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
QWEN3_4B |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "sample_size": 512}
VAE |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
VAE_16 = VAE | {"latent_channels": 16, "shift_factor": 0.0609, "scaling_factor": 1.5305, "use_quant_conv": False}
VAE_16 |= {"use_post_quant_conv": False}
DDIM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
DDIM |= {"steps_offset": 1}
FLOW: dict[str, Any] = {"shift": 3.0, "num_train_timesteps": 1000}

# pipeline, then by part: library, class, config
MODELS: dict[str, tuple[str, dict[str, tuple[str, str, dict[str, Any]]]]] = {
    "sd15": (
        "StableDiffusionPipeline",
        {
            "unet": ("diffusers", "UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "vae": ("diffusers", "AutoencoderKL", VAE),
            "scheduler": ("diffusers", "PNDMScheduler", DDIM | {"skip_prk_steps": True}),
        },
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    "sample_size": 128,
                    "block_out_channels": [320, 640, 1280],
                    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                    "cross_attention_dim": 2048,
                    "attention_head_dim": [5, 10, 20],
                    "transformer_layers_per_block": [1, 2, 10],
                    "use_linear_projection": True,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_G),
            "vae": ("diffusers", "AutoencoderKL", VAE | {"sample_size": 1024, "force_upcast": True}),
            "scheduler": ("diffusers", "EulerDiscreteScheduler", DDIM),
        },
    ),
    "sd35_medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": (
                "diffusers",
                "SD3Transformer2DModel",
                {
                    "sample_size": 128,
                    "num_layers": 24,
                    "num_attention_heads": 24,
                    "caption_projection_dim": 1536,
                    "pos_embed_max_size": 384,
                    "qk_norm": "rms_norm",
                    "dual_attention_layers": list(range(13)),
                },
            ),
            "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP_L),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_G),
            "text_encoder_3": ("transformers", "T5EncoderModel", T5_XXL),
            "vae": ("diffusers", "AutoencoderKL", VAE_16),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", FLOW),
        },
    ),
    "flux_dev": (
        "FluxPipeline",
        {
            "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "text_encoder_2": ("transformers", "T5EncoderModel", T5_XXL),
            "vae": ("diffusers", "AutoencoderKL", VAE_16),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", FLOW | {"use_dynamic_shifting": True}),
        },
    ),
    "z_image_turbo": (
        "ZImagePipeline",
        {
            "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
            "text_encoder": ("transformers", "Qwen3Model", QWEN3_4B),
            "vae": ("diffusers", "AutoencoderKL", VAE_16),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", FLOW),
        },
    ),
}


def folder(name: str, root: Path) -> Path:
    """The folder of a model; what its class has as a default is left out of the configs."""
    pipeline, parts = MODELS[name]
    index: dict[str, Any] = {"_class_name": pipeline}
    for part, (library, kind, config) in parts.items():
        index[part] = [library, kind]
        file = root / name / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"_class_name": kind} | config))
    (root / name / "model_index.json").write_text(json.dumps(index))
    return root / name
