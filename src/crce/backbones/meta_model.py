"""A model without weights, built from its configs alone: its sizes are known before it is downloaded."""

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

from crce.backbones.backbone import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.families import FAMILIES, backbone_class, supported
from crce.backbones.loading import model_path, refuse_unfit
from crce.errors import ModelError, first_line


CLIP_TOKENS = 77


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device.

    Attributes:
        backbone: its pipeline holds the denoiser, the autoencoder and the scheduler.
        encoders: its text encoders, by the pipeline's names for them.
        tokens: limit of the first tokenizer.
    """

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
        """`count` prompts with the shapes that `encode` returns."""
        return self.backbone.empty_conditioning(count, self.tokens, dtype)

    def encoder_tokens(self, part: str) -> int:
        """How many tokens a text encoder reads of a prompt."""
        own = self.backbone.encoder_tokens[part]
        return self.tokens if own is None else own


def read_meta_model(model: str = "demo", *, revision: str | None = None) -> MetaModel:
    """Build a supported model without weights; of a Hub model only its small JSON files are downloaded.

    Args:
        model: "demo", a Hub id, or a folder in diffusers format.
        revision: branch, tag or commit of a Hub model.

    Raises:
        ModelError: the model can't be found or read, its kind isn't supported, or it is a single file.
    """
    path = model_path(model)
    if path.is_file():
        raise ModelError(f"{model!r} is a single file, which has no configs. Give a Hub id or a folder of that model.")
    source = path if path.exists() else model
    index = _read(source, "model_index.json", revision) or {}
    name = str(index.get("_class_name") or "model of unknown kind")
    if name not in FAMILIES:
        raise ModelError(f"{model!r} is a {name}. crce erases from {supported()}.")
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        parts = _parts(source, index, revision)
        backbone = backbone_class(name)(_pipeline(getattr(diffusers, name), parts), model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"The configs of {model!r} can't be read: {type(error).__name__}: {error}") from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
    encoders = {part: network for part, network in parts.items() if part.startswith("text_encoder")}
    if strange := encoders.keys() - backbone.encoder_tokens.keys():
        raise ModelError(
            f"{model!r} has a {', '.join(sorted(strange))}, which crce does not expect in a {name}. Its text encoders "
            f"are {', '.join(backbone.encoder_tokens)}."
        )
    tokenizer = _read(source, "tokenizer/tokenizer_config.json", revision) or {}
    tokens = min(int(tokenizer.get("model_max_length", CLIP_TOKENS)), CLIP_TOKENS)
    refuse_unfit(backbone)
    return MetaModel(backbone, encoders, tokens)


def _parts(source: Path | str, index: dict[str, Any], revision: str | None) -> dict[str, Any]:
    """The scheduler, and on the meta device every network of the index that is used."""
    parts: dict[str, Any] = {}
    for part, origin in index.items():
        if not isinstance(origin, list) or origin[0] not in ("diffusers", "transformers"):
            continue
        library, kind = origin
        if part == "scheduler":
            config = _read(source, f"{part}/scheduler_config.json", revision)
            parts[part] = getattr(diffusers, kind).from_config(config)
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
    """A pipeline of the parts except its text encoders, which can't read without a tokenizer."""
    parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]
    given = {
        p.name: None if p.name.startswith("text_encoder") else parts.get(p.name)
        for p in parameters
        if p.default is p.empty or p.default is None
    }
    unchecked = any(p.name == "requires_safety_checker" for p in parameters)
    return kind(**given, **({"requires_safety_checker": False} if unchecked else {}))


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
        offline = isinstance(error, LocalEntryNotFoundError)  # a kind of EntryNotFoundError, but the Hub was not asked
        if isinstance(error, EntryNotFoundError) and not offline:
            return None
        reason = "it is not in the cache, and the Hub can't be reached" if offline else first_line(error)
        raise ModelError(
            f"Cannot read {name} of {str(source)!r}: {reason}. Give a Hub id (the network must be there) or a folder."
        ) from error
