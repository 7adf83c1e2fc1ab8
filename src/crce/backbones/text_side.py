"""The part of a large model that works with text, loaded without the rest of it.

Training with `offload` loads the text encoders first, and the denoiser when they are freed. A closed form needs beside
them only the layers that read what they return; the other weights of the denoiser, and the autoencoder, are on the
meta device. The layers' tensors are read from their places in safetensors files of a folder, of the cache, or of the
Hub by requests for these bytes, so that FLUX.1 is edited without its 24 GB on this machine.
"""

from __future__ import annotations

import gc
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from huggingface_hub import HfFileSystem, try_to_load_from_cache
from safetensors.torch import load

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.loading import Source
from crce.backbones.memory_plan import SMALL
from crce.backbones.meta_model import read_json, read_parts
from crce.backbones.scopes import state_layers
from crce.errors import ModelError


FILE = "diffusion_pytorch_model.safetensors"  # of a denoiser; with ".index.json" the table of its parts


def encoders_alone(source: Source, family: type[Backbone], dtype: torch.dtype, place: torch.device) -> dict[str, Any]:
    """The denoiser and the autoencoder without weights, so that only the text encoders are loaded.

    There are none for a single file, and where the denoiser is so small that it may as well be loaded.
    """
    if source.path.is_file():
        return {}
    where, revision = source.place
    parts = read_parts(where, {part: source.index[part] for part in (family.component, "vae")}, revision)
    network = parts[family.component].to(dtype)
    small = sum(weights.numel() * weights.element_size() for weights in network.parameters()) <= SMALL
    return {} if small else parts


def text_side_parts(source: Source, family: type[Backbone], dtype: torch.dtype, place: torch.device) -> dict[str, Any]:
    """As `encoders_alone`, with the weights of the denoiser that read the text encoders' states.

    Raises:
        ModelError: a tensor is missing or not finite.
    """
    parts = encoders_alone(source, family, dtype, place)
    if not parts:
        return {}
    where, revision = source.place
    network = parts[family.component]
    layers = state_layers(network, family)
    read = [*layers, *(set(layers.values()) - {"hidden", "pooled"})]  # and the norms before them
    names = [f"{path}.{name}" for path in read for name, _ in network.get_submodule(path).named_parameters()]
    tensors = _read(where, family.component, names, revision)
    for name in names:
        if name not in tensors or not tensors[name].isfinite().all():
            raise ModelError(f"{source.model!r} is damaged: {family.component}.{name} is missing, or not finite.")
        path, _, own = name.rpartition(".")
        network.get_submodule(path)._parameters[own] = torch.nn.Parameter(tensors[name].to(place, dtype), False)
    return parts


def free_encoders(backbone: Backbone) -> None:
    """Where `encoders_alone` were loaded: free them, then load the other networks."""
    if backbone.reload is not None and all(p.is_meta for p in backbone.network.parameters()):
        encoders = dict.fromkeys(backbone.encoder_tokens.keys() & backbone.networks.keys())
        backbone.pipe.register_modules(**encoders)
        backbone.networks.clear()
        gc.collect()
        torch.cuda.empty_cache()
        _load_others(backbone, encoders)


def keep_states(backbone: Backbone, prompts: Sequence[str]) -> None:
    """Encode prompts of images to generate, where the text encoders are not to stay; freed ones are loaded again."""
    if backbone.reload is None or not prompts:
        return
    kept = vars(backbone.pipe).setdefault("crce_states", {})
    if new := [prompt for prompt in dict.fromkeys(("", *prompts)) if prompt not in kept]:
        if not backbone.encoder_tokens.keys() & backbone.networks.keys():
            _load_others(backbone, backbone.networks)
        kept |= zip(new, backbone.encode(new).each(torch.Tensor.cpu).split(1), strict=True)


def state_arguments(pipe: Any, prompts: Sequence[str]) -> dict[str, Any] | None:
    """What a pipeline is given for prompts whose states are kept, and for the empty negative prompt; else None."""
    kept = vars(pipe).get("crce_states", {})
    if not {"", *prompts} <= kept.keys():
        return None
    given: dict[str, Any] = {}
    allowed = inspect.signature(type(pipe).__call__).parameters
    for side, texts in (("", prompts), ("negative_", [""] * len(prompts))):
        cond = Conditioning.cat([kept[text] for text in texts]).each(lambda part: part.to(pipe._execution_device))
        own: dict[str, Any] = {"prompt_embeds": cond.hidden, "pooled_prompt_embeds": cond.pooled}
        if cond.mask is not None and f"{side}prompt_embeds_mask" in allowed:
            mask = cond.mask[:, : int(cond.mask.sum(1).max())]
            own = {"prompt_embeds": cond.hidden[:, : mask.shape[1]], "prompt_embeds_mask": mask}
        elif cond.mask is not None:
            own = {"prompt_embeds": [states[m] for states, m in zip(cond.hidden, cond.mask, strict=True)]}
        given |= {side + name: value for name, value in own.items() if side + name in allowed and value is not None}
    return given


def _load_others(backbone: Backbone, parts: Mapping[str, Any]) -> None:
    """Load the networks that are not among these parts, frozen and in evaluation mode."""
    loaded = backbone.reload(**parts).components.items()
    parts = {name: part for name, part in loaded if isinstance(part, torch.nn.Module)}
    new = {name: part.requires_grad_(False).eval() for name, part in parts.items() if name not in backbone.networks}
    backbone.networks |= new
    backbone.pipe.register_modules(**new)
    if backbone.device.type != "cpu":
        backbone.offload(backbone.device)


def _read(where: Path | str, component: str, names: Sequence[str], revision: str | None) -> dict[str, torch.Tensor]:
    """Tensors of a denoiser by name, as far as its files hold them."""
    index = read_json(where, f"{component}/{FILE}.index.json", revision)
    files = dict.fromkeys(names, FILE) if index is None else index["weight_map"]
    found: dict[str, torch.Tensor] = {}
    for file in {files[name] for name in names if name in files}:
        with _open(where, f"{component}/{file}", revision) as opened:
            # A safetensors file: 8 bytes with the length of the header, the header in JSON, then the values.
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
            for name in (name for name in names if files.get(name) == file and name in header):
                start, end = header[name]["data_offsets"]
                opened.seek(8 + length + start)
                alone = json.dumps({name: header[name] | {"data_offsets": [0, end - start]}}).encode()
                found |= load(len(alone).to_bytes(8, "little") + alone + opened.read(end - start))
    return found


def _open(where: Path | str, file: str, revision: str | None) -> IO[bytes]:
    """A file of a model; of one on the Hub that is not in the cache only what is read is downloaded."""
    cached = where / file if isinstance(where, Path) else try_to_load_from_cache(where, file, revision=revision)
    if isinstance(cached, str | Path):
        return open(cached, "rb")
    return HfFileSystem().open(f"{where}/{file}", revision=revision)
