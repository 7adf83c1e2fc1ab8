"""Load a model from the bundle, the Hub, a folder or a single file, and refuse by name what isn't supported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from crce import demo
from crce.backbones.backbone import Backbone
from crce.errors import ConfigError, ModelError
from crce.files import sha256


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Family:
    """What a pipeline class of diffusers is erased with.

    Attributes:
        module: of `crce.backbones`, imported when such a model is loaded.
        backbone: the class in it.
        models: the models of that class, in words.
        files: what diffusers calls single files of it (see its `infer_diffusers_model_type`).
    """

    module: str
    backbone: str
    models: str
    files: tuple[str, ...]


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family("unet", "UNetBackbone", "Stable Diffusion 1.x and 2.x", ("v1", "v2")),
    "StableDiffusionXLPipeline": Family("sdxl", "SDXLBackbone", "Stable Diffusion XL", ("xl_base",)),
    "StableDiffusion3Pipeline": Family(
        "sd3", "SD3Backbone", "Stable Diffusion 3 and 3.5", ("sd3", "sd35_medium", "sd35_large")
    ),
    "FluxPipeline": Family("flux", "FluxBackbone", "FLUX.1 dev and schnell", ("flux-dev", "flux-schnell")),
    "ZImagePipeline": Family("z_image", "ZImageBackbone", "Z-Image and Z-Image-Turbo", ("z-image-turbo",)),
}
SUPPORTED = ", ".join(f"{name} ({family.models})" for name, family in FAMILIES.items())


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


def pick_dtype(dtype: str, device: torch.device, component: str = "unet") -> torch.dtype:
    """Turn "auto" into half the bits on a GPU and float32 elsewhere.

    Args:
        dtype: "auto" or a name.
        device: where the model will run.
        component: the pipeline's name for its denoiser. A UNet takes float16; transformers overflow in it.

    Raises:
        ConfigError: the type is unknown.
    """
    if dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.float16 if component == "unet" else torch.bfloat16
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}. Use auto or one of: {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def load_backbone(
    model: str = "demo",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offload: bool = False,
    accept: Callable[[str], object] | None = None,
) -> Backbone:
    """Load a text-to-image model to erase from.

    Args:
        model: "demo" (the bundled model), a Hub id, a folder in diffusers form, or one .safetensors file.
        device: "auto", "cpu", "cuda", "mps", ...
        dtype: "auto", "float32", "float16" or "bfloat16".
        revision: branch, tag or commit of a Hub model.
        offload: keep on the device only the network that works, see `Backbone.offload`; changes nothing on a CPU.
        accept: called with the pipeline's class name before weights are read; may raise to refuse it.

    Raises:
        ModelError: the model can't be found or read, or its kind isn't supported.
        ConfigError: device or dtype can't be used.
    """
    place = pick_device(device)
    pipe, pinned = _load(model, place, dtype, revision, accept or (lambda _: None))
    backbone = backbone_class(type(pipe).__name__)(pipe, model, pinned)
    refuse_unfit(backbone)
    if offload and place.type != "cpu":
        backbone.offload(place)
    else:
        pipe.to(place)
    return backbone


def refuse_unfit(backbone: Backbone) -> None:
    """Refuse models of a supported class that can't be erased from.

    Raises:
        ModelError: it takes more than latents, is distilled without DDIM steps, or has noise levels of another kind.
    """
    model, channels, latent = backbone.model, backbone.latent_shape[0], backbone.pipe.vae.config.latent_channels
    if channels != latent:
        raise ModelError(
            f"{model!r} takes {channels} input channels where its latents have {latent}: an inpainting or editing "
            f"model. crce erases from {SUPPORTED}."
        )
    if backbone.network.config.get("time_cond_proj_dim"):
        raise ModelError(
            f"{model!r} is a consistency model with guidance as an input, which has no DDIM steps. Use the model that "
            "it was distilled from."
        )
    backbone.grid(3)  # refuses the noise levels of other schedulers


def load_pipeline(
    model: str = "demo", *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> DiffusionPipeline:
    """Load any diffusers pipeline, only to draw with. Arguments and errors are those of `load_backbone`."""
    place = pick_device(device)
    return _load(model, place, dtype, revision, None)[0].to(place)


def backbone_class(pipeline: str) -> type[Backbone]:
    """The backbone of a pipeline class in FAMILIES."""
    family = FAMILIES[pipeline]
    return getattr(import_module(f"crce.backbones.{family.module}"), family.backbone)


def _load(
    model: str,
    place: torch.device,
    dtype: str,
    revision: str | None,
    accept: Callable[[str], object] | None,
) -> tuple[Any, str | None]:
    """The pipeline in the computer's memory, and what pins its weights: a Hub commit or a hash of the files.

    Args:
        model: as in `load_backbone`, as are place, dtype and revision.
        accept: may refuse a class of FAMILIES; None takes any class, only to draw with.
    """
    path = _path(model)
    pick_dtype(dtype, place)  # a wrong name is told before anything is read
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        index, commit = _index(model, path, revision)
        name = index.get("_class_name")
        if name not in FAMILIES and (accept or path.is_file()):
            raise ModelError(f"{model!r} is a {name or 'model of unknown kind'}. crce erases from {SUPPORTED}.")
        if name in FAMILIES and not hasattr(diffusers, str(name)):
            raise ModelError(
                f"{model!r} is a {name}, which diffusers {diffusers.__version__} lacks. Install a newer one."
            )
        if accept:
            accept(str(name))
        component = backbone_class(name).component if name in FAMILIES else "transformer"
        options: dict[str, Any] = {"torch_dtype": pick_dtype(dtype, place, component)}
        if name == "StableDiffusionPipeline":
            # The safety checker is left out: it hides from the judge what the model really draws.
            options |= {"safety_checker": None, "requires_safety_checker": False}
        if name == "StableDiffusion3Pipeline" and not path.is_file() and not any(index.get("text_encoder_3") or ()):
            options |= {"text_encoder_3": None, "tokenizer_3": None}  # a pipeline that was saved without T5
        if path.is_file():
            pinned: str | None = _file_hash(path)
            pipe = getattr(diffusers, str(name)).from_single_file(path, **options)
        elif path.is_dir():
            pinned = _folder_hash(path, component) if accept else None
            # Pickled weights can run code, so they are never read.
            pipe = DiffusionPipeline.from_pretrained(path, use_safetensors=True, **options)
        else:
            pinned = commit
            pipe = DiffusionPipeline.from_pretrained(model, use_safetensors=True, revision=commit, **options)
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
    return pipe, pinned


def find_model(model: str = "demo", *, revision: str | None = None) -> tuple[str, str | None]:
    """The pipeline class of a model to erase from, and what pins its weights: the `revision` of its backbone.

    Args:
        model: as in `load_backbone`, as is revision.

    Raises:
        ModelError: the model can't be found, or its kind isn't supported.
    """
    path = _path(model)
    try:
        index, commit = _index(model, path, revision)
        name = str(index.get("_class_name"))
        if name not in FAMILIES:
            raise ModelError(f"{model!r} is a {name}. crce erases from {SUPPORTED}.")
        if path.is_file():
            return name, _file_hash(path)
        return name, _folder_hash(path, backbone_class(name).component) if path.is_dir() else commit
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(f"Cannot find the model {model!r}: {reason}.") from error


def _path(model: str) -> Path:
    path = demo.model_path() if model == "demo" else Path(model).expanduser()
    if not path.exists() and looks_like_path(model):
        raise ModelError(f"There is no model at {path}. Give a Hub id, a folder, a .safetensors file, or demo.")
    return path


def _file_hash(path: Path) -> str:
    return f"sha256:{sha256(path)[:16]}"


def looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model or model.endswith(".safetensors")


def _index(model: str, path: Path, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """The pipeline's index, read before gigabytes are, and for a Hub id its commit; a cached one needs no network."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is not a .safetensors file. Other formats can run code; convert it first.")
        return {"_class_name": single_file_pipeline(path)}, None
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} holds no model_index.json, so it isn't a diffusers pipeline folder.")
        return json.loads((path / "model_index.json").read_text(encoding="utf-8")), None
    index: Any = DiffusionPipeline.load_config(model, revision=revision)
    cached = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return index, Path(cached).parent.name if isinstance(cached, str) else revision


def single_file_pipeline(path: Path) -> str:
    """The pipeline class of a single file, told by the names and shapes of its tensors.

    What diffusers does not know it takes for Stable Diffusion 1.x; here that must have its name too.

    Returns:
        A class name, or in words what the file is where no class in FAMILIES reads it.
    """
    from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES, infer_diffusers_model_type

    with safe_open(path, "pt") as f:
        names = f.keys()
        shapes = {name: torch.empty(f.get_slice(name).get_shape(), device="meta") for name in names}
    kind = infer_diffusers_model_type(shapes)
    if kind == "v1" and CHECKPOINT_KEY_NAMES["v1"] not in shapes:
        return "file without a denoiser that diffusers knows"
    return next((name for name, family in FAMILIES.items() if kind in family.files), f"single file of kind {kind}")


def _folder_hash(path: Path, component: str) -> str:
    return f"{component}-sha256:{sha256(*sorted((path / component).glob('*.safetensors')))[:16]}"
