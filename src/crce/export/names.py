"""How programs call the layers of a LoRA, and what a file's keys say about its form.

diffusers   unet.<path>.lora_A.weight, .lora_B.weight (PEFT); alpha in the metadata, else equal to the rank
kohya       lora_unet_<path with _ for .>.lora_down.weight, .lora_up.weight, .alpha
            text encoders: lora_te_ (Stable Diffusion 1.x and 2.x), lora_te1_ and lora_te2_ (SDXL)

For a UNet, ComfyUI, AUTOMATIC1111 and Forge map the kohya names and not those of PEFT. For a transformer (SD3, FLUX)
it is the other way round: its original layout fuses q, k and v, so `lora_unet_transformer_blocks_...` is mapped by
nobody, while `transformer.<path>.lora_A.weight` is mapped by ComfyUI, by Forge for FLUX, and by diffusers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch


Form = Literal["kohya", "diffusers", "diffusers-old", "mixed", "other"]

_PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
_UNET_PARTS = ("down_", "up_", "mid_", "input_", "middle_", "output_")  # by diffusers, by the original code
# ending of a key: its part of the layer, the form it belongs to
_ENDINGS: dict[str, tuple[str, str]] = {
    ".lora_down.weight": ("down", "kohya"),
    ".lora_up.weight": ("up", "kohya"),
    ".lora_mid.weight": ("mid", "kohya"),
    ".alpha": ("alpha", "kohya"),
    ".dora_scale": ("dora_scale", "kohya"),
    ".lora_A.weight": ("down", "diffusers"),
    ".lora_B.weight": ("up", "diffusers"),
    ".lora_A.default.weight": ("down", "diffusers"),
    ".lora_B.default.weight": ("up", "diffusers"),
    ".lora.down.weight": ("down", "diffusers-old"),
    ".lora.up.weight": ("up", "diffusers-old"),
    "_lora.down.weight": ("down", "diffusers-old"),
    "_lora.up.weight": ("up", "diffusers-old"),
    ".lora_linear_layer.down.weight": ("down", "diffusers-old"),
    ".lora_linear_layer.up.weight": ("up", "diffusers-old"),
}


def public_path(path: str) -> str:
    """The path of a layer as files have it: transformers 5.6 took CLIP's `text_model` out of it, readers want it."""
    return f"text_model.{path}" if path.startswith("encoder.layers.") else path


def diffusers_name(name: str) -> str:
    """The name of a layer in a diffusers LoRA, from "<component>.<path>"."""
    component, _, path = name.partition(".")
    return f"{component}.{public_path(path)}"


def kohya_name(name: str, *, xl: bool) -> str:
    """The name of a layer of a UNet or a text encoder in a kohya LoRA, from "<component>.<path>".

    Args:
        name: the layer.
        xl: whether the model is SDXL, whose first text encoder is called lora_te1.

    Raises:
        KeyError: the component has no kohya name.
    """
    component, _, path = name.partition(".")
    prefix = "lora_te1" if xl and component == "text_encoder" else _PREFIXES[component]
    return f"{prefix}_{public_path(path).replace('.', '_')}"


def has_kohya_names(components: Iterable[str]) -> bool:
    """Whether all these components of a pipeline are read by kohya names."""
    return all(component in _PREFIXES for component in components)


@dataclass
class LoRAKeys:
    """A LoRA file taken apart.

    Attributes:
        form: whose keys it has.
        layers: by the layer's name in the file, its tensors: down, up, alpha, mid, dora_scale.
        rest: keys that belong to no layer.
        dotted: whether names are dotted paths.
    """

    form: Form
    layers: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    @property
    def components(self) -> list[str]:
        """What the layers belong to: "unet", "transformer", "text_encoder", ...; as well as the file's names tell."""
        return list(dict.fromkeys(_component(name) for name in self.layers))


def take_apart(state: Mapping[str, torch.Tensor]) -> LoRAKeys:
    """Sort the tensors of a file by layer."""
    keys = LoRAKeys("other")
    forms = set()
    for key, tensor in state.items():
        ending = next((e for e in _ENDINGS if key.endswith(e)), None)
        if ending is None:
            keys.rest.append(key)
            continue
        part, form = _ENDINGS[ending]
        name = key.removesuffix(ending)
        keys.layers.setdefault(name, {})[part] = tensor
        if part in ("down", "up"):
            forms.add(form if form != "kohya" or name.startswith("lora_") else "other")
    if len(forms) > 1:
        keys.form = "mixed"
    elif forms:
        (keys.form,) = forms  # type: ignore[assignment]  # mypy sees only str
    return keys


def readers(keys: LoRAKeys) -> list[str]:
    """The programs that load a LoRA of these keys, as their public code maps them."""
    components = set(keys.components)
    if keys.form == "kohya":
        unet = [name for name in keys.layers if name.startswith("lora_unet_")]
        if any("transformer_blocks_" in n and not _is_unet_path(n) for n in unet):
            return []  # a transformer's path under lora_unet
        if any(n.startswith("lora_unet_joint_blocks_") for n in unet):
            return ["ComfyUI"]
        if any(n.startswith(("lora_unet_double_blocks_", "lora_unet_single_blocks_")) for n in unet):
            return ["ComfyUI", "Forge", "diffusers"]
        return ["ComfyUI", "AUTOMATIC1111", "Forge", "diffusers"]
    if keys.form == "diffusers":
        if "transformer" in components:
            flux = any(".single_transformer_blocks." in name for name in keys.layers)
            return ["diffusers", "ComfyUI", *(["Forge"] if flux else [])]
        return ["diffusers"]
    if keys.form == "diffusers-old":
        return ["diffusers", "ComfyUI"]
    return []


def _is_unet_path(name: str) -> bool:
    return name.removeprefix("lora_unet_").startswith(_UNET_PARTS)


def _component(name: str) -> str:
    if not name.startswith("lora_"):
        return name.partition(".")[0]
    prefixes = {"lora_te1": "text_encoder"} | {prefix: component for component, prefix in _PREFIXES.items()}
    # the longest first: lora_te is the beginning of lora_te2
    found = next((p for p in sorted(prefixes, key=len, reverse=True) if name.startswith(f"{p}_")), None)
    return prefixes[found] if found else name.partition(".")[0]
