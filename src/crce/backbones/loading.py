"""Load a model from the bundle, the Hub, a folder or a single file; unsupported ones are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from crce.backbones.backbone import Backbone
from crce.backbones.families import FAMILIES, backbone_class, supported
from crce.backbones.sources import check_dtype, model_path
from crce.backbones.variants import dropped_parts, quantization, quantized_parts
from crce.errors import ConfigError, CRCEError, ModelError, first_line
from crce.files import read_json, sha256


LONGEST_PROMPT = 1 << 30  # tokens; transformers takes more where a tokenizer doesn't say how many it reads


def pick_device(device: str = "auto") -> torch.device:
    """Turn "auto" into the best device here; check any other name.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if device == "auto":
        other = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else other)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device is {device!r}, which can't be used here ({first_line(error)}). Use auto, or cpu."
        ) from error
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, half: torch.dtype = torch.bfloat16) -> torch.dtype:
    """Turn "auto" into `half`, the 16-bit type of the model's family, on a GPU and into float32 elsewhere.

    Raises:
        ConfigError: the type is unknown.
    """
    check_dtype(dtype)
    if dtype == "auto":
        return half if device.type == "cuda" else torch.float32
    return getattr(torch, dtype)


def load_backbone(
    model: str = "demo",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offload: bool = False,
    drop_t5: bool = False,
    quantize: str | None = None,
    parts: PartsReader | None = None,
    accept: Callable[[str], object] | None = None,
) -> Backbone:
    """Load a text-to-image model to erase from.

    Args:
        model: "demo" or "demo-flow" (bundled), a Hub id, a folder in diffusers format, or one .safetensors file.
        device: "auto", "cpu", "cuda", "mps", ...
        dtype: "auto", "float32", "float16" or "bfloat16".
        revision: branch, tag or commit of a Hub model.
        offload: keep only the network that works on the device, see `Backbone.offload`; no effect on a CPU.
        drop_t5, quantize: see `ErasureConfig`. On a GPU, "auto" is bfloat16 of a quantised model.
        parts: makes parts of the pipeline, which are not loaded then and can't predict; see `text_side_parts`.
        accept: called with the pipeline's class name before weights are read; may raise to refuse it.

    Raises:
        ModelError: the model can't be found or read, or its kind isn't supported.
        ConfigError: device or dtype can't be used, the family needs T5, or the model can't be quantised.
    """
    place = pick_device(device)
    pick_dtype(dtype, place)  # an unknown name is refused before anything is read
    with _readable(model):
        source = _find(model, revision)
        family = source.family()
        if accept:
            accept(source.pipeline)
        numbers = pick_dtype(dtype, place, torch.bfloat16 if quantize else family.half)
        options: dict[str, Any] = {**dropped_parts(family, drop_t5)}
        if quantize:
            options |= quantization(source.quantized(family), quantize, numbers, place)
        made = parts(source, family, numbers, place) if parts else {}
        load = partial(source.load, family, numbers, **options)
        backbone = family(load(**made), model, source.revision(family))
        backbone.drop_t5, backbone.quantized = drop_t5, quantize
    refuse_unfit(backbone)
    if made:
        backbone.reload = _readable(model)(load)
        backbone.encode_on(place)
        return backbone
    if offload and place.type != "cpu":
        backbone.offload(place)
    else:
        backbone.pipe.to(place)
    return backbone


def refuse_unfit(backbone: Backbone) -> None:
    """Refuse models of a supported class that can't be erased from.

    Raises:
        ModelError: it takes more than latents, is distilled without DDIM steps, or has noise levels of another kind.
    """
    model, channels, config = backbone.model, backbone.latent_shape[0], backbone.pipe.vae.config
    latent = config.get("latent_channels") or config["z_dim"]
    if channels != latent:
        raise ModelError(
            f"{model!r} takes {channels} input channels where its latents have {latent}: an inpainting or editing "
            f"model. crce erases from {supported()}."
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
    """Load any diffusers pipeline, only to sample from it. Arguments and errors are those of `load_backbone`."""
    place = pick_device(device)
    pick_dtype(dtype, place)
    with _readable(model):
        source = _find(model, revision)
        family = source.family() if source.pipeline in FAMILIES or source.path.is_file() else None
        pipe = source.load(family, pick_dtype(dtype, place, family.half if family else torch.bfloat16))
    if family:
        family.set_up(pipe)
    return pipe.to(place)


def find_model(model: str = "demo", *, revision: str | None = None) -> tuple[str, str | None]:
    """The pipeline class of a model to erase from, and what pins its weights: the `revision` of its backbone.

    Raises:
        ModelError: the model can't be found, or its kind isn't supported.
    """
    with _readable(model):
        source = _find(model, revision)
        return source.pipeline, source.revision(source.family())


@dataclass(frozen=True)
class Source:
    """A model that was found; its index is read before gigabytes are."""

    model: str  # as the user named it
    path: Path  # of its folder or file; of a Hub model there is none
    index: dict[str, Any]  # its model_index.json; of a single file only the class
    commit: str | None = None  # of a Hub model

    @property
    def place(self) -> tuple[Path | str, str | None]:
        """Where single files of it are read, and the revision of a Hub model."""
        return (self.path, None) if self.path.is_dir() else (self.model, self.commit or "main")

    @property
    def pipeline(self) -> str:
        return str(self.index.get("_class_name") or "model of unknown kind")

    def family(self) -> type[Backbone]:
        """Its backbone.

        Raises:
            ModelError: it isn't supported, or diffusers is too old for it.
        """
        name = self.pipeline
        if name not in FAMILIES:
            raise ModelError(f"{self.model!r} is a {name}. crce erases from {supported()}.")
        if not hasattr(diffusers, name):
            raise ModelError(
                f"{self.model!r} is a {name}, which diffusers {diffusers.__version__} lacks. Install a newer one."
            )
        return backbone_class(name)

    def quantized(self, family: type[Backbone]) -> list[str]:
        """The names of its parts that are quantised; a ConfigError for a single file."""
        if self.path.is_file():
            raise ConfigError(f"quantize needs a Hub id or a folder; {self.model!r} is a single file. Leave it out.")
        classes = {part: str(own[-1]) for part, own in self.index.items() if isinstance(own, list)}
        return quantized_parts(family, classes)

    def load(self, family: type[Backbone] | None, dtype: torch.dtype, **parts: Any) -> Any:
        """Its pipeline, with these parts, in memory. Pickled weights can run code, so they are never read.

        The other arguments of diffusers, such as how it quantises, stand among the parts.
        """
        options = {"dtype": dtype} | (family.load_options(self.index) if family else {}) | parts
        if self.path.is_file():
            pipe = getattr(diffusers, self.pipeline).from_single_file(self.path, **options)
        else:
            source = self.path if self.path.is_dir() else self.model
            pipe = DiffusionPipeline.from_pretrained(source, use_safetensors=True, revision=self.commit, **options)
        pipe.set_progress_bar_config(disable=True)
        for part, network in pipe.components.items():
            if getattr(network, "model_max_length", 0) > LONGEST_PROMPT:
                raise ModelError(
                    f"{self.model!r} is damaged: {part}/tokenizer_config.json is missing, or says nothing."
                )
            whole = part not in parts and isinstance(network, torch.nn.Module)
            for name, tensor in network.named_parameters() if whole else ():
                if tensor.is_meta or not tensor.isfinite().all():
                    raise ModelError(f"{self.model!r} is damaged: {part}.{name} is missing, or not finite.")
        return pipe

    def revision(self, family: type[Backbone]) -> str | None:
        """What pins its weights: a Hub commit or a hash of the files."""
        if self.path.is_file():
            return f"sha256:{sha256(self.path)[:16]}"
        if self.path.is_dir():
            files = sorted((self.path / family.component).glob("*.safetensors"))
            return f"{family.component}-sha256:{sha256(*files)[:16]}"
        return self.commit


PartsReader: TypeAlias = Callable[[Source, type[Backbone], torch.dtype, torch.device], dict[str, Any]]


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Inside, diffusers logs errors alone."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


@contextmanager
def _readable(model: str) -> Iterator[None]:
    """Inside, diffusers is quiet, and errors of reading become a ModelError."""
    try:
        with quiet_diffusers():
            yield
    except (CRCEError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the libraries that read its files, whatever is in them
        raise ModelError(
            f"Cannot load the model {model!r}: {first_line(error)}. Give a Hub id such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5 (the network must be there), a folder, a .safetensors file, "
            "or demo."
        ) from error


def _find(model: str, revision: str | None) -> Source:
    """Find a model and read its index; a Hub model in the cache needs no network."""
    path = model_path(model, revision)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is not a .safetensors file. Other formats can run code; convert it first.")
        return Source(model, path, {"_class_name": single_file_pipeline(path)})
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} holds no model_index.json, so it isn't a diffusers pipeline folder.")
        return Source(model, path, read_json(path / "model_index.json", dict[str, Any], "Bring it back."))
    index: Any = DiffusionPipeline.load_config(model, revision=revision)
    cached = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Source(model, path, index, Path(cached).parent.name if isinstance(cached, str) else revision)


def single_file_pipeline(path: Path) -> str:
    """The pipeline class of a single file, by the names and shapes of its tensors.

    diffusers takes a file that it does not know for Stable Diffusion 1.x; here that needs a tensor of its own too.
    Where no supported class reads the file, it is described instead.
    """
    from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES, infer_diffusers_model_type

    with safe_open(path, "pt") as f:
        shapes = {name: torch.empty(f.get_slice(name).get_shape(), device="meta") for name in f.keys()}
    kind = infer_diffusers_model_type(shapes)
    if kind == "v1" and CHECKPOINT_KEY_NAMES["v1"] not in shapes:
        return "file without a denoiser that diffusers knows"
    known = (name for name in FAMILIES if kind in backbone_class(name).single_files)
    return next(known, f"single file of kind {kind}")
