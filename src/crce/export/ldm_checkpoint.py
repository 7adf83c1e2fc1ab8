"""A Stable Diffusion pipeline as one checkpoint in the layout of its original code (CompVis, Stability).

model.diffusion_model.*            the UNet
first_stage_model.*                the autoencoder
cond_stage_model.transformer.*     the text encoder of Stable Diffusion 1.x (CLIP, as in transformers)
cond_stage_model.model.*           that of 2.x (OpenCLIP, with q, k and v in one in_proj)
conditioner.embedders.0 and .1     the two of SDXL (CLIP and OpenCLIP)

The UNet's blocks are numbered consecutively. With n resnets in a block, a down block takes n + 1 places among the
input_blocks (its resnets, then its downsampler) after conv_in; an up block takes n + 1 places among the output_blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.errors import ModelError
from crce.export.base import describe_base, identify
from crce.export.formats import Exported
from crce.export.layers import read_adapter
from crce.export.metadata import modelspec, run_metadata
from crce.export.pipeline import base_pipeline, merge
from crce.files import write_tensors


if TYPE_CHECKING:
    from crce.training import Erasure

State = Mapping[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_TOP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
PARTS = {
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}


def write_single_file(
    erasure: Erasure, path: Path, *, rank: int | None, tolerance: float, dtype: str | None
) -> Exported:
    """Write the erased model as one checkpoint, see `formats.Writer`.

    Raises:
        RunError: the adapter doesn't fit the model any more, or the file can't be written.
        ModelError: the base model can't be loaded, or the original code has no place for it.
    """
    pipe, adapter = base_pipeline(erasure, dtype), read_adapter(erasure.adapter)
    base = describe_base(erasure.info, pipe)
    merge(pipe, adapter)
    _, architecture = identify(base, adapter.shapes())
    metadata = run_metadata(erasure, base) | modelspec(erasure, base, architecture, to="single-file")
    write_tensors(path, ldm_state(pipe), metadata | {"export": "single-file"})
    if pipe.scheduler.config.get("prediction_type") != "v_prediction" or "text_encoder_2" in pipe.components:
        return Exported(path, "single-file")
    note = (
        "the model predicts v: AUTOMATIC1111 needs its v2-inference-v.yaml under the file's name beside it, diffusers "
        "prediction_type='v_prediction' or config=<folder of the base model>"
    )
    return Exported(path, "single-file", notes=(note,))


def ldm_state(pipe: Any) -> dict[str, torch.Tensor]:
    """The tensors of a pipeline by their names in the original code.

    Raises:
        ModelError: the original code has no such pipeline, or no such part.
    """
    kind = type(pipe).__name__
    if kind not in PARTS:
        raise ModelError(f"A {kind} can't be written as a single file, only {' or '.join(PARTS)}. Use --to merged.")
    for part in PARTS[kind]:
        found = type(getattr(pipe, part)).__name__
        if found != _CLASSES[part]:
            raise ModelError(
                f"The model's {part} is {found}, but a single file holds {_CLASSES[part]}. Use --to merged."
            )
    xl = kind == "StableDiffusionXLPipeline"
    # Stable Diffusion 2.x came with linear projections and with OpenCLIP
    open_clip = not xl and bool(pipe.unet.config.use_linear_projection)
    state = {
        f"model.diffusion_model.{key}": value
        for key, value in unet_state(pipe.unet.state_dict(), pipe.unet.config).items()
    }
    state |= {f"first_stage_model.{key}": value for key, value in vae_state(pipe.vae.state_dict()).items()}
    text = pipe.text_encoder.state_dict()
    if open_clip:
        state |= {f"cond_stage_model.model.{key}": value for key, value in open_clip_state(text).items()}
    else:
        prefix = "conditioner.embedders.0.transformer" if xl else "cond_stage_model.transformer"
        state |= {f"{prefix}.text_model.{key.removeprefix('text_model.')}": value for key, value in text.items()}
    if xl:
        second = open_clip_state(pipe.text_encoder_2.state_dict())
        state |= {f"conditioner.embedders.1.model.{key}": value for key, value in second.items()}
        if pipe.scheduler.config.get("prediction_type") == "v_prediction":
            state["v_pred"] = torch.tensor([])  # by which ComfyUI and Forge recognize such an SDXL
    return state


def unet_state(state: State, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a `UNet2DConditionModel` by the original names.

    Raises:
        ModelError: the UNet has a layer or a number of layers that the original code doesn't have.
    """
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise ModelError(f"The UNet has layers_per_block {layers!r}; a single file needs one number. Use --to merged.")
    attended = {int(m[1]) for key in state if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", key))}

    def place(match: re.Match[str]) -> str:
        side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        start = block * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + layers + 1}.0.op{rest.removeprefix('.conv')}"
        if kind == "upsamplers":
            return f"output_blocks.{start + layers}.{2 if block in attended else 1}{rest}"
        place = f"input_blocks.{start + layer + 1}" if side == "down" else f"output_blocks.{start + layer}"
        return f"{place}.{int(kind == 'attentions')}{_resnet(rest) if kind == 'resnets' else rest}"

    def middle(match: re.Match[str]) -> str:
        kind, layer, rest = match[1], int(match[2]), match[3]
        return f"middle_block.1{rest}" if kind == "attentions" else f"middle_block.{2 * layer}{_resnet(rest)}"

    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(\..+)", place),
        (r"mid_block\.(resnets|attentions)\.(\d+)(\..+)", middle),
        (rf"({'|'.join(map(re.escape, _UNET_TOP))})(\.\w+)", lambda m: _UNET_TOP[m[1]] + m[2]),
    ]
    return {_renamed(key, rules, "UNet"): value for key, value in state.items()}


def vae_state(state: State) -> dict[str, torch.Tensor]:
    """The tensors of an `AutoencoderKL` by the original names; its attention is made of 1x1 convolutions there.

    Raises:
        ModelError: the autoencoder has a layer that the original code doesn't have.
    """
    blocks = 1 + max(int(m[1]) for key in state if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", key)))

    def place(match: re.Match[str]) -> str:
        side, way, block, kind, layer, rest = match[1], match[2], int(match[3]), match[4], match[5], match[6]
        number = block if way == "down" else blocks - 1 - block  # the decoder counts from the finest
        if kind == "resnets":
            return f"{side}.{way}.{number}.block.{layer}{rest.replace('conv_shortcut', 'nin_shortcut')}"
        return f"{side}.{way}.{number}.{kind.removesuffix('rs')}{rest}"

    def middle(match: re.Match[str]) -> str:
        side, kind, layer, rest = match[1], match[2], int(match[3]), match[4]
        if kind == "resnets":
            return f"{side}.mid.block_{layer + 1}{rest.replace('conv_shortcut', 'nin_shortcut')}"
        part, _, end = rest[1:].rpartition(".")
        return f"{side}.mid.attn_1.{_VAE_ATTENTION[part]}.{end}"

    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"(\w+)\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)(\..+)", place),
        (r"(\w+)\.mid_block\.(resnets|attentions)\.(\d+)(\..+)", middle),
        (r"(\w+)\.conv_norm_out(\.\w+)", lambda m: f"{m[1]}.norm_out{m[2]}"),
        (r"(?:\w+\.conv_(?:in|out)|quant_conv|post_quant_conv)\.\w+", lambda m: m[0]),
    ]
    renamed = {}
    for key, value in state.items():
        name = _renamed(key, rules, "autoencoder")
        attention = ".mid.attn_1." in name and value.ndim == 2
        renamed[name] = value[:, :, None, None] if attention else value
    return renamed


def open_clip_state(state: State) -> dict[str, torch.Tensor]:
    """The tensors of a CLIP text model by the names of OpenCLIP: q, k and v in one, the projection transposed.

    Raises:
        ModelError: it has a layer that OpenCLIP doesn't have.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        path = key.removeprefix("text_model.")
        if path == "text_projection.weight":
            renamed["text_projection"] = value.T
        elif path in _CLIP_TOP:
            renamed[_CLIP_TOP[path]] = value
        elif match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", path):
            if match[2] == "q":
                fused = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                renamed[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"] = torch.cat(fused)
        elif (match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", path)) and match[2] in _CLIP_LAYER:
            renamed[f"transformer.resblocks.{match[1]}.{_CLIP_LAYER[match[2]]}.{match[3]}"] = value
        else:
            raise _unknown(key, "text encoder")
    return renamed


def _resnet(rest: str) -> str:
    part, _, end = rest[1:].rpartition(".")
    return f".{_RESNET[part]}.{end}"


def _renamed(key: str, rules: list[tuple[str, Callable[[re.Match[str]], str]]], what: str) -> str:
    for pattern, rename in rules:
        if match := re.fullmatch(pattern, key):
            try:
                return rename(match)
            except KeyError as error:
                raise _unknown(key, what) from error
    raise _unknown(key, what)


def _unknown(key: str, what: str) -> ModelError:
    return ModelError(f"The original code has no place for {key!r} of this {what}. Use --to merged.")
