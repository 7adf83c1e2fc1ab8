"""The part of a large model that a closed form needs: its text encoders, and the layers that read what they return.

The other weights of the denoiser, and the autoencoder, are on the meta device. The layers' tensors are read from their
places in safetensors files of a folder, of the cache, or of the Hub by requests for these bytes, so that FLUX.1 is
edited without its 24 GB on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from huggingface_hub import HfFileSystem, try_to_load_from_cache
from safetensors.torch import load

from crce.backbones.backbone import Backbone
from crce.backbones.loading import Source
from crce.backbones.memory_plan import SMALL
from crce.backbones.meta_model import read_json, read_parts
from crce.backbones.scopes import state_layers
from crce.errors import ModelError


FILE = "diffusion_pytorch_model.safetensors"  # of a denoiser; with ".index.json" the table of its parts


def text_side_parts(source: Source, family: type[Backbone], dtype: torch.dtype, place: torch.device) -> dict[str, Any]:
    """The denoiser, with weights where it reads the text encoders' states, and the autoencoder without any.

    There are none for a single file, and where the denoiser is so small that it may as well be loaded.

    Raises:
        ModelError: a tensor is missing or not finite.
    """
    if source.path.is_file():
        return {}
    where, revision = (source.path, None) if source.path.is_dir() else (source.model, source.commit or "main")
    parts = read_parts(where, {part: source.index[part] for part in (family.component, "vae")}, revision)
    network = parts[family.component].to(dtype)
    if sum(weights.numel() * weights.element_size() for weights in network.parameters()) <= SMALL:
        return {}
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
    return (
        open(cached, "rb")
        if isinstance(cached, str | Path)
        else HfFileSystem().open(f"{where}/{file}", revision=revision)
    )
