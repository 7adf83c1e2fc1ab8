"""A model built from its configs alone, without weights: what there is to know of it before it is downloaded."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from crce import demo
from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.loading import FAMILIES, SUPPORTED, backbone_class, looks_like_path, refuse_unfit
from crce.errors import ModelError


CLIP_TOKENS = 77
SD3_T5_TOKENS = 256  # that its pipeline pads to, as FLUX's pads to 512
FLUX_T5_TOKENS = 512
SHOWN_TOKENS = 64  # of a short phrase in Z-Image's chat template, padded as its network does


@dataclass(frozen=True)
class Blueprint:
    """A model on the meta device.

    Attributes:
        model: as the user named it.
        backbone: its pipeline holds the denoiser, the autoencoder and the scheduler.
        encoders: its text encoders, by the pipeline's names for them.
        tokens: tokens of a prompt that the first text encoder is shown.
    """

    model: str
    backbone: Backbone
    encoders: dict[str, torch.nn.Module]
    tokens: int

    @property
    def pipeline(self) -> str:
        """The pipeline's class."""
        return type(self.backbone.pipe).__name__

    def networks(self) -> dict[str, torch.nn.Module]:
        """All parts that have weights, the denoiser first."""
        component = self.backbone.component
        return {component: self.backbone.network, **self.encoders, "vae": self.backbone.pipe.vae}

    def conditioning(self, count: int, dtype: torch.dtype) -> Conditioning:
        """What `encode` would give for `count` prompts, in shape."""
        config = self.backbone.network.config
        length, width, pooled = self.tokens, 0, 0
        match self.pipeline:
            case "StableDiffusionPipeline":
                width = config.cross_attention_dim
            case "StableDiffusionXLPipeline":
                width = config.cross_attention_dim
                pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            case "StableDiffusion3Pipeline":
                length += SD3_T5_TOKENS
                width, pooled = config.joint_attention_dim, config.pooled_projection_dim
            case "FluxPipeline":
                length, width, pooled = FLUX_T5_TOKENS, config.joint_attention_dim, config.pooled_projection_dim
            case _:
                length, width = SHOWN_TOKENS, config.cap_feat_dim
        return Conditioning(
            torch.empty(count, length, width, dtype=dtype, device="meta"),
            torch.empty(count, pooled, dtype=dtype, device="meta") if pooled else None,
            torch.ones(count, length, dtype=torch.bool) if self.pipeline == "ZImagePipeline" else None,
        )


def read_blueprint(model: str = "demo", *, revision: str | None = None) -> Blueprint:
    """Build a supported model without weights; of a Hub model only its small JSON files are downloaded.

    Args:
        model: "demo", a Hub id, or a folder in diffusers form.
        revision: branch, tag or commit of a Hub model.

    Raises:
        ModelError: the model can't be found or read, its kind isn't supported, or it is a single file.
    """
    source: Path | str = demo.model_path() if model == "demo" else Path(model).expanduser()
    if Path(source).is_file() or str(model).endswith(".safetensors"):
        raise ModelError(f"{model!r} is a single file, which has no configs. Give a Hub id or a folder of that model.")
    if not Path(source).exists():
        if looks_like_path(model):
            raise ModelError(f"There is no model at {source}. Give a Hub id, a folder, or demo.")
        source = model
    index = _read(source, "model_index.json", revision)
    name = None if index is None else index.get("_class_name")
    if index is None or name not in FAMILIES:
        raise ModelError(f"{model!r} is a {name or 'model of unknown kind'}. crce erases from {SUPPORTED}.")
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        parts = _parts(source, index, revision)
        pipe = _pipeline(getattr(diffusers, name), parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"The configs of {model!r} can't be read: {type(error).__name__}: {error}") from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
    encoders = {part: network for part, network in parts.items() if part.startswith("text_encoder")}
    tokenizer = _read(source, "tokenizer/tokenizer_config.json", revision) or {}
    tokens = min(int(tokenizer.get("model_max_length", CLIP_TOKENS)), CLIP_TOKENS)
    backbone = backbone_class(name)(pipe, model)
    refuse_unfit(backbone)
    return Blueprint(model, backbone, encoders, tokens)


def _parts(source: Path | str, index: dict[str, Any], revision: str | None) -> dict[str, Any]:
    """The scheduler, and on the meta device every network that the index names and that is used."""
    parts: dict[str, Any] = {}
    for part, origin in index.items():
        if not isinstance(origin, list) or origin[0] not in ("diffusers", "transformers"):
            continue
        library, kind = origin
        if part == "scheduler":
            parts[part] = getattr(diffusers, kind).from_config(
                _read(source, f"{part}/scheduler_config.json", revision)
            )
        elif part in ("unet", "transformer", "vae") or part.startswith("text_encoder"):
            config = _read(source, f"{part}/config.json", revision)
            if config is None:
                raise KeyError(f"{part}/config.json is missing")
            with torch.device("meta"):
                if library == "diffusers":
                    parts[part] = getattr(diffusers, kind).from_config(config)
                else:
                    network = getattr(transformers, kind)
                    parts[part] = network(network.config_class.from_dict(config))
    return parts


def _pipeline(kind: Any, parts: dict[str, Any]) -> Any:
    """A pipeline of the parts but its text encoders, which can't read without a tokenizer."""
    asked = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]
    given = {
        p.name: None if p.name.startswith("text_encoder") else parts.get(p.name)
        for p in asked
        if p.default is p.empty or p.default is None
    }
    unchecked = {"requires_safety_checker": False} if any(p.name == "requires_safety_checker" for p in asked) else {}
    return kind(**given, **unchecked)


def _read(source: Path | str, name: str, revision: str | None) -> dict[str, Any] | None:
    """A JSON file of a folder or of a Hub model; None where it has none of that name."""
    try:
        if isinstance(source, Path):
            path = source / name
            if not path.is_file():
                return None
        else:
            path = Path(hf_hub_download(source, name, revision=revision))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, EntryNotFoundError) as error:
        if isinstance(error, LocalEntryNotFoundError):  # a kind of EntryNotFoundError, but the Hub was not asked
            raise ModelError(
                f"Cannot read {name} of {str(source)!r}: it was never downloaded, and the Hub can't be reached. "
                "Give a folder, or try again with a network."
            ) from error
        if isinstance(error, EntryNotFoundError):
            return None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(
            f"Cannot read {name} of {str(source)!r}: {reason}. Give a Hub id (the network must be there) or a folder."
        ) from error
