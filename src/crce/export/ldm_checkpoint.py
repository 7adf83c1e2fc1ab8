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

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.errors import ModelError
from crce.export.base import identify
from crce.export.formats import Exported
from crce.export.metadata import modelspec, run_metadata
from crce.export.pipeline import erased_pipeline
from crce.files import write_tensors


if TYPE_CHECKING:
    from crce.training import Erasure

# Parts of a resnet and of the autoencoder's attention; `diffusers` has no table of these
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
PIPELINES = {
    "StableDiffusionPipeline": _PARTS,
    "StableDiffusionXLPipeline": _PARTS | {"text_encoder_2": "CLIPTextModelWithProjection"},
}


def write_single_file(erasure: Erasure, path: Path, *, rank: int | None, dtype: str | None) -> Exported:
    """Write the erased model as one checkpoint, see `formats.export`."""
    pipe, base, adapter = erased_pipeline(erasure, dtype)
    _, architecture = identify(base, adapter.shapes())
    metadata = run_metadata(erasure, base) | modelspec(erasure, base, architecture, to="single-file")
    write_tensors(path, ldm_state(pipe), metadata | {"export": "single-file"})
    note = (
        "the model predicts v: AUTOMATIC1111 needs its v2-inference-v.yaml under the file's name beside it, diffusers "
        "prediction_type='v_prediction' or config=<folder of the base model>"
    )
    noted = pipe.scheduler.config.get("prediction_type") == "v_prediction" and "text_encoder_2" not in pipe.components
    return Exported(path, "single-file", notes=(note,) if noted else ())


def ldm_state(pipe: Any) -> dict[str, torch.Tensor]:
    """The tensors of a pipeline by their names in the original code; a ModelError if that has none such."""
    kind = type(pipe).__name__
    if kind not in PIPELINES:
        known = " or ".join(PIPELINES)
        raise ModelError(f"A {kind} can't be written as a single file, only {known}. Use --to merged.")
    for part, expected in PIPELINES[kind].items():
        found = type(getattr(pipe, part)).__name__
        if found != expected:
            raise ModelError(f"The model's {part} is {found}, but a single file holds {expected}. Use --to merged.")
    xl = kind == "StableDiffusionXLPipeline"
    state = _renamed(pipe.unet.state_dict(), _unet_names(pipe.unet), "model.diffusion_model.", "UNet")
    vae = _renamed(pipe.vae.state_dict(), _vae_names(pipe.vae), "first_stage_model.", "autoencoder")
    for key, value in vae.items():
        # the original attention is made of 1x1 convolutions
        state[key] = value[:, :, None, None] if ".mid.attn_1." in key and value.ndim == 2 else value
    text = pipe.text_encoder.state_dict()
    # Stable Diffusion 2.x came with linear projections and with OpenCLIP
    if not xl and pipe.unet.config.use_linear_projection:
        state |= _open_clip_state(text, "cond_stage_model.model.")
    else:
        prefix = "conditioner.embedders.0.transformer" if xl else "cond_stage_model.transformer"
        state |= {f"{prefix}.text_model.{key.removeprefix('text_model.')}": value for key, value in text.items()}
    if xl:
        state |= _open_clip_state(pipe.text_encoder_2.state_dict(), "conditioner.embedders.1.model.")
        if pipe.scheduler.config.get("prediction_type") == "v_prediction":
            state["v_pred"] = torch.tensor([])  # by which ComfyUI and Forge recognize such an SDXL
    return state


def _diffusers_tables() -> Any:
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    return DIFFUSERS_TO_LDM_MAPPING


def _unet_names(unet: Any) -> dict[str, str]:
    """How keys of a `UNet2DConditionModel` begin, with their beginnings in the original code."""
    tables, layers = _diffusers_tables()["unet"], unet.config["layers_per_block"]
    if not isinstance(layers, int):
        raise ModelError(f"The UNet has layers_per_block {layers!r}; a single file needs one number. Use --to merged.")
    modules = {f"mid_block.resnets.{i}": f"middle_block.{2 * i}" for i in (0, 1)}
    modules["mid_block.attentions.0"] = "middle_block.1"
    for block in range(len(unet.config["block_out_channels"])):
        start = block * (layers + 1)
        for layer in range(layers + 1):
            for i, part in enumerate(("resnets", "attentions")):
                modules[f"down_blocks.{block}.{part}.{layer}"] = f"input_blocks.{start + layer + 1}.{i}"
                modules[f"up_blocks.{block}.{part}.{layer}"] = f"output_blocks.{start + layer}.{i}"
        modules[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{start + layers + 1}.0.op"
        attends = any(key.startswith(f"up_blocks.{block}.attentions.") for key, _ in unet.named_parameters())
        modules[f"up_blocks.{block}.upsamplers.0"] = f"output_blocks.{start + layers}.{2 if attends else 1}"
    names = tables["layers"] | tables["addition_embed_type"]
    for module, original in modules.items():
        if ".resnets." in module:
            names |= {f"{module}.{part}.": f"{original}.{its}." for part, its in _RESNET.items()}
        else:
            names[f"{module}."] = f"{original}."
    return names


def _vae_names(vae: Any) -> dict[str, str]:
    """How keys of an `AutoencoderKL` begin, with their beginnings in the original code."""
    names, blocks = dict(_diffusers_tables()["vae"]), len(vae.config["block_out_channels"])
    for side, way in (("encoder", "down"), ("decoder", "up")):
        for block in range(blocks):
            number = block if way == "down" else blocks - 1 - block  # the decoder counts from the finest
            module, original = f"{side}.{way}_blocks.{block}", f"{side}.{way}.{number}"
            for layer in range(vae.config["layers_per_block"] + 1):
                names[f"{module}.resnets.{layer}.conv_shortcut."] = f"{original}.block.{layer}.nin_shortcut."
                names[f"{module}.resnets.{layer}."] = f"{original}.block.{layer}."
            names[f"{module}.{way}samplers.0."] = f"{original}.{way}sample."
        middle = f"{side}.mid_block"
        names |= {f"{middle}.resnets.{i}.": f"{side}.mid.block_{i + 1}." for i in (0, 1)}
        names |= {f"{middle}.attentions.0.{part}.": f"{side}.mid.attn_1.{q}." for part, q in _VAE_ATTENTION.items()}
    return names


def _open_clip_state(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a CLIP text model by the names of OpenCLIP: q, k and v in one, the projection transposed."""
    renamed = {}
    for key, value in state.items():
        if key == "text_projection.weight":
            renamed[f"{prefix}text_projection"] = value.T
            continue
        if ".k_proj." in key or ".v_proj." in key:
            continue
        name = f"transformer.text_model.{key.removeprefix('text_model.').replace('.q_proj.', '.in_proj_')}"
        for ours, theirs in _diffusers_tables()["openclip"]["transformer"].items():
            name = name.replace(ours, theirs)
        fused = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"] if ".q_proj." in key else [value]
        renamed[prefix + name] = torch.cat(fused)
    return renamed


def _renamed(
    state: Mapping[str, torch.Tensor], names: Mapping[str, str], prefix: str, part: str
) -> dict[str, torch.Tensor]:
    """The tensors under their original names: the first beginning in `names` that fits a key is replaced."""
    renamed = {}
    for key, value in state.items():
        start = next((start for start in names if key.startswith(start)), None)
        if start is None:
            raise ModelError(f"The original code has no place for {key!r} of this {part}. Use --to merged.")
        renamed[prefix + names[start] + key.removeprefix(start)] = value
    return renamed
