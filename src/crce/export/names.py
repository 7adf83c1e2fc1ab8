"""The names of layers in LoRA files: written for diffusers or in kohya's format, read in all that are in use.

diffusers   unet.<path>.lora_A.weight, .lora_B.weight (PEFT); alpha in the metadata, else equal to the rank
kohya       lora_unet_<path with _ for .>.lora_down.weight, .lora_up.weight, .alpha
            text encoders: lora_te_ (Stable Diffusion 1.x and 2.x), lora_te1_ and lora_te2_ (SDXL)

For a UNet, ComfyUI, AUTOMATIC1111 and Forge map the kohya names and not those of PEFT. For a transformer (SD 3, FLUX,
Z-Image) `lora_unet_transformer_blocks_...` is mapped by nobody, and `transformer.<path>.lora_A.weight` by ComfyUI, by
Forge for FLUX, and by diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from crce.backbones.families import FAMILIES, backbone_class
from crce.errors import RunError
from crce.files import read_tensors


CHECKPOINT = "model.diffusion_model."  # with which the original code names the tensors of its denoiser
_UNET_PARTS = ("down_", "up_", "mid_", "input_", "middle_", "output_")  # in diffusers, in the original code
# the name of a layer, and the part of it in one format
_KEY = re.compile(
    r"(?P<name>.*?)(?:"
    r"\.lora_(?P<kohya>down|up|mid)\.weight|\.(?P<scale>alpha|dora_scale)"
    r"|\.lora_(?P<diffusers>[AB])(?:\.default)?\.weight"
    r"|(?:[._]lora|\.lora_linear_layer)\.(?P<old>down|up)\.weight)"
)
_PARTS = {"A": "down", "B": "up"}


def diffusers_name(name: str) -> str:
    """The name of a layer in a diffusers LoRA, from "<component>.<path>".

    transformers 5.6 removed `text_model` from the paths of CLIP, and programs want it.
    """
    component, _, path = name.partition(".")
    return f"{component}.text_model.{path}" if path.startswith("encoder.layers.") else name


def kohya_name(name: str, prefixes: Mapping[str, str]) -> str:
    """The name of a layer in a kohya LoRA, from "<component>.<path>"; the keys of a component have its prefix."""
    component, _, path = diffusers_name(name).partition(".")
    return f"{prefixes[component]}_{path.replace('.', '_')}"


def known_prefixes() -> dict[str, str]:
    """The prefixes of kohya keys in all families, with the component of each."""
    return {prefix: part for name in FAMILIES for part, prefix in backbone_class(name).kohya.items()}


@dataclass
class TensorFile:
    """A safetensors file, its tensors sorted by the layers of a LoRA."""

    path: Path
    state: dict[str, torch.Tensor]
    metadata: dict[str, str]
    format: str = "other"  # of its keys: kohya, diffusers, diffusers-old, mixed or other
    # by the layer's name in the file, its tensors: down, up, alpha, mid, dora_scale
    layers: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)  # keys that belong to no layer
    settings: dict[str, Any] = field(default_factory=dict)  # PEFT's, in the metadata of a diffusers LoRA

    @property
    def components(self) -> list[str]:
        """The components of the layers, such as "unet" or "text_encoder", as far as the file's names show them."""
        prefixes = known_prefixes().items()
        own = {name: [part for prefix, part in prefixes if name.startswith(f"{prefix}_")] for name in self.layers}
        return list(dict.fromkeys(found[0] if found else name.partition(".")[0] for name, found in own.items()))

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of the original code."""
        return any(key.startswith(CHECKPOINT) for key in self.state)

    @property
    def whole(self) -> dict[str, dict[str, torch.Tensor]]:
        """The layers that have both matrices."""
        return {name: p for name, p in self.layers.items() if all(k in p and p[k].ndim > 1 for k in ("down", "up"))}

    def alpha(self, name: str) -> float | None:
        """The alpha that a program applies to a layer of `whole`; None where it isn't a single number."""
        parts = self.layers[name]
        if "alpha" in parts:
            return float(parts["alpha"]) if parts["alpha"].numel() == 1 else None
        with suppress(ValueError, TypeError):
            return float(self.settings.get(f"{name.partition('.')[0]}.lora_alpha", parts["down"].shape[0]))
        return None


def read_file(path: Path, what: str = "", instead: str = "a .safetensors file") -> TensorFile:
    """Read a file and sort its tensors by layer; an error calls it `what`, and asks for something else `instead`."""
    try:
        state, metadata = read_tensors(path)
    except OSError as error:
        raise RunError(f"Cannot read {what}{path}: {error}. Give {instead}.") from error
    keys = TensorFile(path, state, metadata)
    with suppress(ValueError, RecursionError):
        settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        keys.settings = settings if isinstance(settings, dict) else {}
    formats: set[Any] = set()
    for key, tensor in state.items():
        if not (match := _KEY.fullmatch(key)):
            keys.rest.append(key)
            continue
        form = str(match.lastgroup)
        name, part = match["name"], _PARTS.get(match[form], match[form])
        keys.layers.setdefault(name, {})[part] = tensor
        if part in ("down", "up"):
            foreign = form == "kohya" and not name.startswith("lora_")
            formats.add("other" if foreign else "diffusers-old" if form == "old" else form)
    if formats:
        keys.format = "mixed" if len(formats) > 1 else formats.pop()
    return keys


def readers(keys: TensorFile) -> list[str]:
    """The programs that load a LoRA with these keys, according to their public code."""
    late = keys.metadata.get("ss_base_model_version") in ("flux_2_klein", "qwen_image")
    if keys.format in ("kohya", "diffusers") and late:
        return ["ComfyUI", "diffusers"]
    if keys.format == "kohya":
        paths = [name.removeprefix("lora_unet_") for name in keys.layers if name.startswith("lora_unet_")]
        if any("transformer_blocks_" in path and not path.startswith(_UNET_PARTS) for path in paths):
            return []  # a transformer's path under lora_unet
        if any(path.startswith(("double_blocks_", "single_blocks_")) for path in paths):
            return ["ComfyUI", "Forge", "diffusers"]
        if any(path.startswith(("joint_blocks_", "layers_", "context_refiner_", "noise_refiner_")) for path in paths):
            return ["ComfyUI"]
        return ["ComfyUI", "AUTOMATIC1111", "Forge", "diffusers"]
    if keys.format == "diffusers":
        flux = any(".single_transformer_blocks." in name for name in keys.layers)
        others = ["ComfyUI", "Forge"] if flux else ["ComfyUI"]
        return ["diffusers", *others] if "transformer" in keys.components else ["diffusers"]
    return ["diffusers", "ComfyUI"] if keys.format == "diffusers-old" else []
