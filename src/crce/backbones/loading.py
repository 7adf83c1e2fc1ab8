"""Load a model from the bundle, the Hub, a folder or a single file, and refuse by name what isn't supported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError

from crce import demo
from crce.backbones.unet import UNetBackbone
from crce.errors import ConfigError, ModelError
from crce.files import sha256


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SUPPORTED = "StableDiffusionPipeline (Stable Diffusion 1.x and 2.x)"


def pick_device(device: str = "auto") -> torch.device:
    """Turn "auto" into the best device here; check any other name.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device is {device!r}, which can't be used here ({reason}). Use auto, or cpu.") from error
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn "auto" into float16 on a GPU and float32 elsewhere.

    Raises:
        ConfigError: the type is unknown.
    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}. Use auto or one of: {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def load_backbone(
    model: str = "demo", *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> UNetBackbone:
    """Load a text-to-image model to erase from.

    Args:
        model: "demo" (the bundled model), a Hub id, a folder in diffusers form, or one .safetensors file.
        device: "auto", "cpu", "cuda", "mps", ...
        dtype: "auto", "float32", "float16" or "bfloat16".
        revision: branch, tag or commit of a Hub model.

    Raises:
        ModelError: the model can't be found or read, or its kind isn't supported.
        ConfigError: device or dtype can't be used.
    """
    pipe, pinned = _load(model, device, dtype, revision, erasable=True)
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise ModelError(
            f"{model!r} takes {pipe.unet.config.in_channels} input channels where its latents have "
            f"{pipe.vae.config.latent_channels}: an inpainting or editing model. crce erases from {SUPPORTED}."
        )
    return UNetBackbone(pipe, model, pinned)


def load_pipeline(
    model: str = "demo", *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> DiffusionPipeline:
    """Load any diffusers pipeline, only to draw with. Arguments and errors are those of `load_backbone`."""
    return _load(model, device, dtype, revision, erasable=False)[0]


def _load(model: str, device: str, dtype: str, revision: str | None, *, erasable: bool) -> tuple[Any, str | None]:
    """The pipeline, and what pins its weights: a Hub commit or a hash of the files."""
    place = pick_device(device)
    path = demo.model_path() if model == "demo" else Path(model).expanduser()
    if not path.exists() and _looks_like_path(model):
        raise ModelError(f"There is no model at {path}. Give a Hub id, a folder, a .safetensors file, or demo.")
    options: dict[str, Any] = {"torch_dtype": pick_dtype(dtype, place)}
    # The safety checker is left out: it hides from the judge what the model really draws.
    unchecked = {"safety_checker": None, "requires_safety_checker": False}
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        if path.is_file():
            if path.suffix != ".safetensors":
                raise ModelError(f"{path} is not a .safetensors file. Other formats can run code; convert it first.")
            pinned: str | None = f"sha256:{sha256(path)[:16]}"
            pipe = StableDiffusionPipeline.from_single_file(path, **options, **unchecked)
        else:
            index, source = _index(model, path, revision)
            name = index.get("_class_name")
            if erasable and name != StableDiffusionPipeline.__name__:
                raise ModelError(f"{model!r} is a {name or 'model of unknown kind'}. crce erases from {SUPPORTED}.")
            if path.is_dir():
                pinned = f"unet-sha256:{sha256(*sorted((path / 'unet').glob('*.safetensors')))[:16]}"
            else:
                pinned = options["revision"] = source
            if name == StableDiffusionPipeline.__name__:
                options |= unchecked
            # Pickled weights can run code, so they are never read.
            pipe = DiffusionPipeline.from_pretrained(path if path.is_dir() else model, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(
            f"Cannot load the model {model!r}: {reason}. Give a Hub id such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5 (the network must be there), a folder, a .safetensors file, "
            "or demo."
        ) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(place), pinned


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model or model.endswith(".safetensors")


def _index(model: str, path: Path, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """The pipeline's index, read before gigabytes are, and for a Hub id its commit; a cached one needs no network."""
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} holds no model_index.json, so it isn't a diffusers pipeline folder.")
        return json.loads((path / "model_index.json").read_text(encoding="utf-8")), None
    index: Any = DiffusionPipeline.load_config(model, revision=revision)
    cached = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return index, Path(cached).parent.name if isinstance(cached, str) else revision
