"""Variants of a model: its layers quantised, or without T5."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from crce.errors import ConfigError


KINDS = ("nf4", "int8")
LARGE = ("T5", "Qwen")  # what the classes of text encoders are called that are quantised with the denoiser
EXACT = ("wo", "lm_head")  # layers of text encoders that transformers leaves as they are


def variant_name(*, drop_t5: bool = False, quantize: str | None = None) -> str | None:
    """How weights differ from those that were published; None where they don't."""
    return ", ".join(filter(None, (quantize, "no T5" if drop_t5 else None))) or None


def dropped_parts(family: Any, drop_t5: bool) -> dict[str, None]:
    """The parts that are not loaded; a ConfigError where the family needs them."""
    if drop_t5 and not family.t5:
        raise ConfigError(f"drop_t5 is for Stable Diffusion 3 and 3.5, not for {family.models}. Leave it out.")
    return dict.fromkeys(family.t5 if drop_t5 else ())


def quantized_parts(family: Any, classes: Mapping[str, str]) -> list[str]:
    """The networks that are quantised, by the class of each part: the denoiser and large text encoders."""
    return [family.component, *(p for p, kind in classes.items() if p[:4] == "text" and kind.startswith(LARGE))]


def quantization(parts: list[str], kind: str, dtype: torch.dtype, place: torch.device) -> dict[str, Any]:
    """Arguments with which a pipeline is loaded with these parts quantised by bitsandbytes.

    Raises:
        ConfigError: the kind is unknown, or bitsandbytes is missing.
    """
    if kind not in KINDS:
        raise ConfigError(f"quantize is {kind!r}. Use one of: {', '.join(KINDS)}; or leave it out.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("quantize needs the package bitsandbytes. Install it: pip install 'crce[quantized]'")
    from diffusers import PipelineQuantizationConfig

    if place.type == "cpu":
        _allow_cpu()
    four = {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    bits, own = (4, four) if kind == "nf4" else (8, {})
    options: dict[str, Any] = {f"load_in_{bits}bit": True, **own}
    return {"quantization_config": PipelineQuantizationConfig(f"bitsandbytes_{bits}bit", options, parts)}


@cache
def _allow_cpu() -> None:
    """Let diffusers quantise without a GPU, as bitsandbytes can, and without compiling for each shape."""
    from diffusers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    quantizers: dict[str, Any] = AUTO_QUANTIZER_MAPPING
    changed: dict[str, Any] = {"validate_environment": lambda *_, **__: None}
    changed["update_device_map"] = lambda _, places: places or {"": "cpu"}
    for name in ("bitsandbytes_4bit", "bitsandbytes_8bit"):
        quantizers[name] = type(name, (quantizers[name],), changed)
    torch.compiler.set_stance("force_eager")
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it warns of every product


def weight_bytes(network: torch.nn.Module, kind: str | None = None) -> int:
    """Bytes of a network, as it is or quantised.

    Buffers count: the table of positions of Stable Diffusion 3.5 has a tenth of its weights.
    """
    layers = network.named_modules() if kind else ()
    linear = [m for path, m in layers if isinstance(m, torch.nn.Linear) and path.rpartition(".")[2] not in EXACT]
    rounded = {id(layer.weight) for layer in linear}

    def size(tensor: torch.Tensor) -> int:
        count = tensor.numel()
        if id(tensor) not in rounded:
            return count * tensor.element_size()
        if kind == "int8":
            return count + 4 * len(tensor)  # a scale for each row
        scales = -(-count // 64)  # of 8 bits, with a scale of 32 bits for 256 of them
        return -(-count // 2) + scales + 4 * -(-scales // 256)

    return sum(map(size, (*network.parameters(), *network.buffers())))
