"""Layer presets: which modules of a denoiser an erasure trains.

Names follow the erasure literature; "strict" is avoided because it means q and k in one code base and k and v in
another. What they mean by architecture:

UNet (SD 1, 2, XL)    text enters by cross-attention, `attn2`.
Two streams (SD 3,    text and picture have layers of their own and share one attention: the text's are `add_q_proj`,
FLUX)                 `add_k_proj`, `add_v_proj`, `to_add_out` and `ff_context`. Blocks in which both pass through the
                      same layers (FLUX's single blocks) count as the picture's.
One stream (Z-Image)  both pass through the same attention, `layers.*.attention`, which stands for cross-attention;
                      `context_refiner` is the text's alone and `noise_refiner` the picture's.

"noxattn" leaves alone what embeds time, position and prompt, what modulates norms, and the output layer.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from crce.errors import ConfigError


SCOPES: dict[str, str] = {
    "qk": "queries and keys of cross-attention, or of the text in joint attention (the official CRCE choice)",
    "kv": "keys and values of cross-attention, or of the text in joint attention (how text enters the picture)",
    "xattn": "every linear layer of cross-attention, or of the text's side of joint attention",
    "noxattn": "every linear and convolution layer outside those of xattn",
    "selfattn": "every linear layer of self-attention, or of the picture's side of joint attention",
    "full": "every linear and convolution layer",
}
# What "qk" and "kv" take of the attention that brings the text.
_ENDINGS = {
    "qk": ("to_q", "to_k", "add_q_proj", "add_k_proj"),
    "kv": ("to_k", "to_v", "add_k_proj", "add_v_proj"),
}
_TEXT_PROJECTIONS = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def _unet_role(parts: list[str]) -> str:
    if "attn2" in parts:
        return "text"
    if "attn1" in parts:
        return "picture"
    # As in ESD, left alone: the time embedding, to which SDXL adds pooled text and sizes, and the output layer.
    return "aside" if parts[0] in ("time_embedding", "add_embedding", "conv_out") else "other"


def _two_streams_role(parts: list[str]) -> str:
    if parts[-1] in _TEXT_PROJECTIONS:
        return "text"
    if "ff_context" in parts:
        return "text besides"
    if "attn" in parts or "attn2" in parts:  # attn2 is a second self-attention of the picture, in SD 3.5 medium
        return "picture"
    return "other" if "transformer_blocks" in parts[0] and not parts[-2].startswith("norm") else "aside"


def _one_stream_role(parts: list[str]) -> str:
    if parts[0] == "layers" and "attention" in parts:
        return "text"
    if parts[0] == "context_refiner":
        return "text besides"
    if parts[0] == "noise_refiner" and "attention" in parts:
        return "picture"
    return "other" if parts[0] in ("layers", "noise_refiner") and "adaLN_modulation" not in parts else "aside"


def _roles(network: nn.Module) -> Callable[[list[str]], str]:
    """What tells, of a layer's path: attention that brings "text", other layers of it ("text besides"), attention of
    the "picture", "other", or "aside" where nothing but "full" trains it."""
    names = {path.rpartition(".")[2] for path, _ in network.named_modules()}
    if "add_k_proj" in names:
        return _two_streams_role
    return _one_stream_role if "context_refiner" in names else _unet_role


def _in_scope(scope: str, role: str, name: str) -> bool:
    match scope:
        case "qk" | "kv":
            return role == "text" and name in _ENDINGS[scope]
        case "xattn":
            return role.startswith("text")
        case "selfattn":
            return role == "picture"
        case "noxattn":
            return role in ("picture", "other")
        case _:
            return True


def scope_modules(network: nn.Module, scope: str) -> list[str]:
    """Module paths of `network` that a preset trains, in the network's order.

    The queries of the text are left out in a block that throws away what they ask for (the last of SD 3).

    Raises:
        ConfigError: the preset is unknown, or the network has no such layer.
    """
    if scope not in SCOPES:
        raise ConfigError(f"layers is {scope!r}. Use one of: {', '.join(SCOPES)}.")
    role = _roles(network)
    layers = {path for path, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    unused = {
        f"{attention}.add_q_proj"
        for attention, _, name in (p.rpartition(".") for p in layers)
        if name == "add_k_proj" and f"{attention}.to_add_out" not in layers
    }
    found = [
        path
        for path, _ in network.named_modules()
        if path in layers - unused and _in_scope(scope, role(path.split(".")), path.rpartition(".")[2])
    ]
    if not found:
        raise ConfigError(
            f"layers is {scope!r}, but {type(network).__name__} has no such layer. "
            f"Try another preset: {', '.join(SCOPES)}."
        )
    return found
