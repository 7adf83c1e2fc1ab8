"""Layer presets: which modules of a denoiser an erasure trains.

Names follow the erasure literature; "strict" is avoided because it means q and k in one code base and k and v in
another.
"""

from __future__ import annotations

from torch import nn

from crce.errors import ConfigError


SCOPES: dict[str, str] = {
    "qk": "queries and keys of cross-attention (the official CRCE choice)",
    "kv": "keys and values of cross-attention (how text enters the picture)",
    "xattn": "every linear layer of cross-attention",
    "noxattn": "every linear and convolution layer outside cross-attention",
    "selfattn": "every linear layer of self-attention",
    "full": "every linear and convolution layer",
}


def _in_scope(scope: str, path: str) -> bool:
    parts = path.split(".")
    match scope:
        case "qk":
            return "attn2" in parts and parts[-1] in ("to_q", "to_k")
        case "kv":
            return "attn2" in parts and parts[-1] in ("to_k", "to_v")
        case "xattn":
            return "attn2" in parts
        case "selfattn":
            return "attn1" in parts
        case "noxattn":
            # As in ESD: the time embedding and the output layer are left alone.
            return "attn2" not in parts and parts[0] not in ("time_embedding", "conv_out")
        case _:
            return True


def scope_modules(network: nn.Module, scope: str) -> list[str]:
    """Module paths of `network` that a preset trains, in the network's order.

    Raises:
        ConfigError: the preset is unknown, or the network has no such layer.
    """
    if scope not in SCOPES:
        raise ConfigError(f"layers is {scope!r}. Use one of: {', '.join(SCOPES)}.")
    found = [
        path
        for path, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and _in_scope(scope, path)
    ]
    if not found:
        raise ConfigError(
            f"layers is {scope!r}, but {type(network).__name__} has no such layer. "
            f"Try another preset: {', '.join(SCOPES)}."
        )
    return found
