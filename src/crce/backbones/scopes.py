"""Layer presets: which modules of a denoiser an erasure trains.

Names follow the erasure literature; "strict" is avoided because it means q and k in one code base and k and v in
another. A preset selects layers by their role, which each family defines (`Backbone.layer_role`).
"""

from __future__ import annotations

import re

from torch import nn

from crce.backbones.backbone import Backbone, Role
from crce.errors import ConfigError


SCOPES = ("qk", "kv", "xattn", "text", "noxattn", "selfattn", "full")  # docs/backbones.md says what each holds
_ROLES: dict[str, set[Role]] = {
    "qk": {"cross-attention"},
    "kv": {"cross-attention"},
    "xattn": {"cross-attention", "text"},
    "selfattn": {"self-attention"},
    "noxattn": {"self-attention", "other"},
    "full": {"cross-attention", "text", "self-attention", "other", "full only"},
}
_ENDINGS = {
    "qk": ("to_q", "to_k", "add_q_proj", "add_k_proj"),
    "kv": ("to_k", "to_v", "add_k_proj", "add_v_proj"),
}
# `Backbone.state_layers` of SD 3 and FLUX.1
TWO_STREAM_STATES = {"context_embedder": "hidden", r"time_text_embed\.text_embedder\.linear_1": "pooled"}
# of networks where text and image have layers of their own
TWO_STREAM_TEXT = (
    r"context_embedder|time_text_embed\.text_embedder\..+"
    r"|transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\..+)"
)


def two_stream_role(path: list[str]) -> Role:
    """The role of a layer where text and image have layers of their own and share one attention.

    Blocks in which both pass through the same layers (FLUX's single blocks) count as the image's.
    """
    if path[-1] in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        return "cross-attention"
    if "ff_context" in path or "txt_mlp" in path:
        return "text"
    if "attn" in path or "attn2" in path:  # attn2 is a second self-attention of the image, in SD 3.5 medium
        return "self-attention"
    modulation = ("norm", "img_mod", "txt_mod")
    return "other" if "transformer_blocks" in path[0] and not path[-2].startswith(modulation) else "full only"


def scope_modules(
    backbone: Backbone, scope: str, target_modules: str | None = None, *, text_tokens_only: bool = False
) -> list[str]:
    """Module paths of the denoiser that a preset trains, in the network's order.

    The queries of the text are left out of a block that discards their result (the last one of SD 3). With
    `target_modules` they are those that it names instead, by the convention of peft: names of layers or ends of their
    paths, separated by commas, or a regular expression of the whole path.

    With `text_tokens_only` layers that text and image share count as the text's.

    Raises:
        ConfigError: the pattern is no regular expression, or the network has no such layer;
            with `text_tokens_only` also if none of them is shared, or one is the image's.
    """
    network = backbone.network
    if target_modules is not None:
        named = _named_modules(network, target_modules)
        return _text_side(backbone, named) if text_tokens_only else named
    patterns = [backbone.text_layers] * (scope == "text") + [backbone.shared_layers] * text_tokens_only
    layers = {path.removesuffix(".base_layer"): path for path in _layers(network)}  # without what an adapter adds
    unused = backbone.unread | {
        f"{attention}.add_q_proj"
        for attention, _, name in (path.rpartition(".") for path in layers)
        if name == "add_k_proj" and f"{attention}.to_add_out" not in layers
    }
    found = [
        path
        for path in layers
        if path not in unused
        and (
            backbone.layer_role(path.split(".")) in _ROLES.get(scope, ())
            or any(re.fullmatch(pattern, path) for pattern in patterns)
        )
        and (scope not in _ENDINGS or path.rpartition(".")[2] in _ENDINGS[scope])
    ]
    if not found:
        raise ConfigError(
            f"layers is {scope!r}, but {type(network).__name__} has no such layer. "
            f"Try another preset: {', '.join(SCOPES)}."
        )
    return _text_side(backbone, found) if text_tokens_only else [layers[path] for path in found]


def shared_modules(backbone: Backbone, modules: list[str]) -> list[str]:
    """Those of some layers that the tokens of text and image pass alike."""
    return [path for path in modules if re.fullmatch(backbone.shared_layers, path)]


def _text_side(backbone: Backbone, modules: list[str]) -> list[str]:
    """The layers where an adapter for the text's tokens alone changes images, or a ConfigError.

    Of the text the last block uses keys and values alone: its other results there are discarded.
    """
    kind, shared = type(backbone.network).__name__, shared_modules(backbone, modules)
    if not shared:
        raise ConfigError(
            f"text_tokens_only is for layers that text and image share, and {kind} has none among these. Leave it out."
        )
    of_image = [path for path in modules if path not in shared and not re.fullmatch(backbone.text_layers, path)]
    if of_image:
        raise ConfigError(
            f"text_tokens_only is set, but {of_image[0]} of {kind} reads the image alone. Use layers qk, kv, xattn or "
            "text, or other target_modules."
        )
    *_, last = shared_modules(backbone, _layers(backbone.network))
    block = ".".join(last.split(".")[:2]) + "."
    return [path for path in modules if not path.startswith(block) or path.endswith((".to_k", ".to_v"))]


def state_layers(network: nn.Module, family: type[Backbone]) -> dict[str, str]:
    """Paths of the layers that a closed form edits, in the network's order, each with its input.

    Only what reads the text encoders' output is among them, for which no forward pass is needed: what a deeper layer
    reads depends on the image and on the noise level. In the transformers all that the text tells passes these layers,
    so that an edit there reaches every deeper one, as the edit of all keys and values does in a UNet.
    """
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    table = family.state_layers.items()
    return {path: source for path in linear for pattern, source in table if re.fullmatch(pattern, path)}


def _layers(network: nn.Module) -> list[str]:
    named = (path for path, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return [path for path in named if ".lora_" not in path]


def _named_modules(network: nn.Module, pattern: str) -> list[str]:
    ends = "|".join(map(re.escape, pattern.split(",")))
    by_name = re.fullmatch(r"[\w.,]+", pattern)
    try:
        whole = re.compile(rf"(.*\.)?({ends})" if by_name else pattern)
    except re.error as error:
        raise ConfigError(
            f"target_modules is {pattern!r}, which is no regular expression: {error}. Use names of layers, such as "
            "to_k,to_v, or a regular expression of the whole path."
        ) from error
    layers = _layers(network)
    found = [path for path in layers if whole.fullmatch(path)]
    if not found:
        raise ConfigError(
            f"target_modules is {pattern!r}, but no layer of {type(network).__name__} is called so. Use names such as "
            f"to_k,to_v, or a regular expression of whole paths such as {layers[len(layers) // 2]}."
        )
    return found
