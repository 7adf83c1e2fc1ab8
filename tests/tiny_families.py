"""Tiny pipelines of every supported family: the real classes with random weights.

Each function builds a pipeline; `saved` writes it as a folder. Vocabularies are made here, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tiny
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'()<>|_\n"
CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"


def letters(*special: str, limit: int = 512) -> PreTrainedTokenizerFast:
    """A tokenizer that knows single letters, ends a text with "</s>" and pads with "<pad>"."""
    words = ["<pad>", "</s>", "<unk>", *special, *LETTERS, " "]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
        model_max_length=limit,
    )


def clip(words: CLIPTokenizer, kind: type, projection: int = 32) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text encoder of width 32."""
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=projection,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return kind(config)


def t5(words: PreTrainedTokenizerFast, width: int = 32) -> T5EncoderModel:
    """A T5 encoder."""
    return T5EncoderModel(T5Config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4))


def vae(
    channels: int, blocks: int = 2, shift: float | None = 0.06, scale: float = 1.5, width: int = 8
) -> AutoencoderKL:
    """An autoencoder that makes a picture's side 2^(blocks - 1) times smaller."""
    return AutoencoderKL(
        block_out_channels=(width,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=scale,
        shift_factor=shift,
        use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )


def sd1(folder: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 1, which predicts noise."""
    return tiny.pipeline(folder, "epsilon")


def sd2(folder: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 2, which predicts v."""
    return tiny.pipeline(folder, "v_prediction")


def sdxl(folder: Path) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL, which draws with Euler."""
    words = tiny.tokenizer(folder / "words")
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        norm_num_groups=8,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
        interpolation_type="linear",
    )
    return StableDiffusionXLPipeline(
        vae=vae(4, shift=None, scale=0.13),
        text_encoder=clip(words, CLIPTextModel),
        text_encoder_2=clip(words, CLIPTextModelWithProjection),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=scheduler,
    )


def sd3(folder: Path, *, with_t5: bool = True) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5: a second self-attention in the first block, as in medium."""
    words, pieces = tiny.tokenizer(folder / "words"), letters()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4),
        text_encoder=clip(words, CLIPTextModelWithProjection),
        tokenizer=words,
        text_encoder_2=clip(words, CLIPTextModelWithProjection),
        tokenizer_2=words,
        text_encoder_3=t5(pieces, width=64) if with_t5 else None,
        tokenizer_3=pieces if with_t5 else None,
    )


def sd3_without_t5(folder: Path) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3 as it is often used, without the large text encoder."""
    return sd3(folder, with_t5=False)


def _flux(folder: Path, guidance_embeds: bool, scheduler: FlowMatchEulerDiscreteScheduler) -> FluxPipeline:
    words, pieces = tiny.tokenizer(folder / "words"), letters(limit=64)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=scheduler,
        vae=vae(4),
        text_encoder=clip(words, CLIPTextModel),
        tokenizer=words,
        text_encoder_2=t5(pieces),
        tokenizer_2=pieces,
    )


def flux_dev(folder: Path) -> FluxPipeline:
    """FLUX.1 dev: guidance is an input, and noise levels shift with the size of the picture."""
    return _flux(folder, True, FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))


def flux_schnell(folder: Path) -> FluxPipeline:
    """FLUX.1 schnell: neither."""
    return _flux(folder, False, FlowMatchEulerDiscreteScheduler(shift=1.0))


def qwen(words: PreTrainedTokenizerFast, layers: int, width: int = 32) -> dict[str, int]:
    """The config of a language model."""
    return {
        "vocab_size": len(words),
        "hidden_size": width,
        "intermediate_size": 37,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": width // 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }


def chat_letters() -> PreTrainedTokenizerFast:
    """A tokenizer with a chat template."""
    words = letters("<|user|>", "<|assistant|>")
    words.chat_template = CHAT
    return words


def flux2_klein(folder: Path, *, is_distilled: bool = False) -> Flux2KleinPipeline:
    """FLUX.2 Klein base; the states of three layers of its text encoder, the 27th the last of them."""
    words = chat_letters()
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=8,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2.0)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder,
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**qwen(words, layers=27, width=16))),
        tokenizer=words,
        transformer=transformer,
        is_distilled=is_distilled,
    )


def flux2_klein_distilled(folder: Path) -> Flux2KleinPipeline:
    """FLUX.2 Klein."""
    return flux2_klein(folder, is_distilled=True)


def qwen_image(folder: Path) -> QwenImagePipeline:
    """Qwen-Image; its text encoder sees as well, but is not shown anything."""
    words = letters()
    config = qwen(words, layers=2)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    sight = {"depth": 1, "hidden_size": 32, "intermediate_size": 37, "num_heads": 2, "out_hidden_size": 32}
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=config | {"rope_parameters": rope}, vision_config=sight)
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[-0.7, 0.1, 0.4, 1.5],
            latents_std=[2.8, 1.4, 0.7, 2.0],
        ),
        text_encoder=encoder,
        tokenizer=words,
        transformer=transformer,
    )


def z_image(folder: Path) -> ZImagePipeline:
    """Z-Image; its pipeline draws 1024 pixels whatever it is made of, so the autoencoder shrinks them 128 times."""
    words = chat_letters()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[600, 16, 16],
    )
    encoder = Qwen3Model(Qwen3Config(**qwen(words, layers=2)))
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4, blocks=8, width=4),
        text_encoder=encoder,
        tokenizer=words,
        transformer=transformer,
    )


BUILDERS: dict[str, Callable[[Path], object]] = {
    f.__name__: f
    for f in (
        sd1,
        sd2,
        sdxl,
        sd3,
        sd3_without_t5,
        flux_dev,
        flux_schnell,
        flux2_klein,
        flux2_klein_distilled,
        qwen_image,
        z_image,
    )
}


def saved(name: str, folder: Path) -> Path:
    """The folder of a pipeline, with weights large enough that predictions depend on every input."""
    torch.manual_seed(0)
    pipe = BUILDERS[name](folder / "parts")
    network = pipe.components.get("unet") or pipe.transformer
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # zeros would hide a wrong input
                parameter.normal_(std=0.05)
    pipe.save_pretrained(folder / name)
    return folder / name
