"""What is known of a base model without loading it: its pipeline, its family, its licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import try_to_load_from_cache

from crce import demo


@dataclass(frozen=True)
class Family:
    """How the world calls a family of models.

    Attributes:
        architecture: its name in the Stability metadata standard.
        version: its name in kohya's metadata (`ss_base_model_version`).
        resolution: width and height of its pictures.
        implementation: whose original layout it has, by the same standard.
    """

    architecture: str
    version: str
    resolution: int
    implementation: str


FAMILIES = {
    "sd1": Family("stable-diffusion-v1", "sd_v1", 512, "https://github.com/CompVis/stable-diffusion"),
    "sd2": Family("stable-diffusion-v2-512", "sd_v2", 512, "https://github.com/Stability-AI/stablediffusion"),
    "sd2-v": Family("stable-diffusion-v2-768-v", "sd_v2_v", 768, "https://github.com/Stability-AI/stablediffusion"),
    "sdxl": Family(
        "stable-diffusion-xl-v1-base", "sdxl_base_v1-0", 1024, "https://github.com/Stability-AI/generative-models"
    ),
    "sd3": Family("stable-diffusion-3", "sd3", 1024, "https://github.com/Stability-AI/sd3-ref"),
    "flux": Family("flux-1-dev", "flux1", 1024, "https://github.com/black-forest-labs/flux"),
}


@dataclass(frozen=True)
class Base:
    """A base model from the outside.

    Attributes:
        model: as the user named it.
        revision: what pins its weights.
        pipeline: the class of its pipeline, if its index is at hand.
        prediction_type: what its denoiser predicts, if its scheduler is at hand.
        licence: as its own model card states it, if that is at hand.
    """

    model: str
    revision: str | None
    pipeline: str | None
    prediction_type: str | None
    licence: str | None

    @property
    def is_hub_id(self) -> bool:
        # a model of the Hub is pinned by a commit, a local one by "sha256:...", also when its folder is gone by now
        return is_hub_id(self.model) and ":" not in (self.revision or "")

    @property
    def public_name(self) -> str:
        """The model without the folders of this machine."""
        return self.model if self.is_hub_id or self.model == "demo" else Path(self.model).name

    @property
    def xl(self) -> bool:
        return self.pipeline is not None and "XL" in self.pipeline


def is_hub_id(model: str) -> bool:
    """Whether a model is named as "user/name" of the Hub, and isn't a path here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model)) and not Path(model).exists()


def describe_base(info: Mapping[str, Any]) -> Base:
    """What is known of the model that a run (its run.json) erased from; nothing is downloaded."""
    model, revision = info["model"], info["revision"]
    index, scheduler = (
        _read_json(model, revision, name) for name in ("model_index.json", "scheduler/scheduler_config.json")
    )
    # the bundled model is MIT, as crce is; see NOTICE for the artwork behind it
    licence = "mit" if model == "demo" else _licence(_find(model, revision, "README.md"))
    return Base(model, revision, index.get("_class_name"), scheduler.get("prediction_type"), licence)


def family_of(base: Base, deltas: Mapping[str, torch.Size]) -> Family | None:
    """The family of a model, or None if that isn't certain.

    Args:
        base: the model.
        deltas: by layer, the shape of its weight; the width of cross-attention tells the text encoder.
    """
    by_pipeline = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusion3Pipeline": "sd3", "FluxPipeline": "flux"}
    if base.pipeline in by_pipeline:
        return FAMILIES[by_pipeline[base.pipeline]]
    if base.pipeline not in (None, "StableDiffusionPipeline"):
        return None
    widths = {shape[1] for name, shape in deltas.items() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    name = {768: "sd1", 1024: "sd2", 2048: "sdxl"}.get(next(iter(widths))) if len(widths) == 1 else None
    if name == "sd2" and base.prediction_type == "v_prediction":
        name = "sd2-v"
    return None if name is None else FAMILIES[name]


def _find(model: str, revision: str | None, name: str) -> Path | None:
    """A file of the model that is on this machine."""
    folder = demo.model_path() if model == "demo" else Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if not is_hub_id(model):
        return None
    cached = try_to_load_from_cache(model, name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _read_json(model: str, revision: str | None, name: str) -> dict[str, Any]:
    path = _find(model, revision, name)
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a damaged base model is told when it is loaded; here it is merely unknown
        return {}
    return value if isinstance(value, dict) else {}


def _licence(card: Path | None) -> str | None:
    """The licence in the YAML header of a model card."""
    if card is None:
        return None
    try:
        header = re.match(r"---\s*\n(.*?)\n---\s*\n", card.read_text(encoding="utf-8"), re.DOTALL)
        facts = yaml.safe_load(header[1]) if header else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = facts.get("license") if isinstance(facts, dict) else None
    return licence if isinstance(licence, str) else None
