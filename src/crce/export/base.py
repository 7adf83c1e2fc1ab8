"""What is known of a base model without loading it: its pipeline, family, architecture and licence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import metadata_load, try_to_load_from_cache

from crce import demo
from crce.backbones.families import FAMILIES, backbone_class
from crce.errors import ModelError


if TYPE_CHECKING:
    import torch

    from crce.backbones.backbone import Backbone
    from crce.backbones.family_entries import Architecture


REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"  # "user/name" of the Hub
TEXT_LAYERS = ("attn2.to_k", "attn2.to_v")  # of cross-attention; their weights are as wide as the token states


@dataclass(frozen=True)
class Base:
    """A base model; what isn't available without loading it is None."""

    model: str  # as the user named it
    revision: str | None  # what pins its weights
    pipeline: str | None  # the class
    prediction_type: str | None  # what its denoiser predicts
    licence: str | None  # as its own model card states it
    kin: str = ""  # what it was distilled to, as the run recorded it

    @property
    def is_hub_id(self) -> bool:
        # a model of the Hub is pinned by a commit, a local one by "sha256:...", even when its folder is gone by now
        return is_hub_id(self.model) and ":" not in (self.revision or "")

    @property
    def is_bundled(self) -> bool:
        return self.model in demo.MODELS

    @property
    def public_name(self) -> str:
        """The model without the folders of this machine."""
        return self.model if self.is_hub_id or self.is_bundled else Path(self.model).name


def public_judge(name: str) -> str:
    """The name of a judge without the folders of this machine."""
    kind, _, model = name.partition(":")
    local = model and (Path(model).is_absolute() or Path(model).exists())
    return f"{kind}:{Path(model).name}" if local else name


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "user/name" of the Hub and isn't a path here."""
    return bool(re.fullmatch(REPOSITORY, name)) and not Path(name).exists()


def describe_base(info: Mapping[str, Any], pipe: Any | None = None) -> Base:
    """The base model of a run.json; nothing is downloaded. A loaded `pipe` gives the class of a single file."""
    model, revision = info["model"], info["revision"]
    index, scheduler, card = (
        _load(model, revision, name) for name in ("model_index.json", "scheduler/scheduler_config.json", "README.md")
    )
    # the bundled models are MIT, as crce is; see NOTICE for the artwork behind it
    licence = "mit" if model in demo.MODELS else card.get("license")
    pipeline = index.get("_class_name") or (None if pipe is None else type(pipe).__name__)
    stated = licence if isinstance(licence, str) else None
    kin = info.get("sampling", {}).get("kin", "")
    return Base(model, revision, pipeline, scheduler.get("prediction_type"), stated, kin)


def identify(base: Base, shapes: Mapping[str, torch.Size]) -> tuple[type[Backbone] | None, Architecture | None]:
    """The family and the architecture of a model, each None where it isn't certain.

    Without the pipeline's class, the width of cross-attention identifies the family, by the `shapes` of weights.
    """
    names = FAMILIES if base.pipeline is None else [base.pipeline] if base.pipeline in FAMILIES else []
    families = [backbone_class(name) for name in names]
    for family in families:
        every = family.architectures
        known = [a for a in every if a.kin == base.kin] or [a for a in every if not a.kin]
        certain = base.pipeline is not None and len(known) == 1
        text_layers = [n for n in shapes if n.startswith(f"{family.component}.") and n.endswith(TEXT_LAYERS)]
        widths = {shapes[name][1] for name in text_layers}
        width = widths.pop() if len(widths) == 1 else None
        for architecture in known:
            fits = certain or (width is not None and architecture.text_width == width)
            if fits and architecture.prediction_type in (None, base.prediction_type):
                return family, architecture
    return (families[0] if base.pipeline is not None and families else None), None


def kohya_prefixes(base: Base, family: type[Backbone] | None, components: Iterable[str]) -> dict[str, str]:
    """By component, the prefix of its keys in kohya files; empty where one of them has none."""
    if family is None and base.pipeline is not None:
        family = backbone_class(base.pipeline)
    tables = [family.kohya] if family else [backbone_class(name).kohya for name in FAMILIES]
    prefixes = {}
    for component in components:
        known = {table[component] for table in tables if component in table}
        if len(known) > 1:
            raise ModelError(
                f"The keys of {component} in a kohya file depend on the family of {base.model!r}, which isn't known "
                "without its model_index.json. Restore the model, or use --to diffusers."
            )
        if not known:
            return {}
        prefixes[component] = known.pop()
    return prefixes


def _load(model: str, revision: str | None, name: str) -> dict[str, Any]:
    """The mapping in a model's file on this machine; empty where there is none, or it can't be read."""
    folder = demo.model_path(model) if model in demo.MODELS else Path(model).expanduser()
    file: Any = folder / name
    if not folder.is_dir():
        file = try_to_load_from_cache(model, name, revision=revision) if is_hub_id(model) else None
    try:
        value = metadata_load(file) if name == "README.md" else json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        return {}  # a damaged base model is reported when it is loaded; here it is merely unknown
    return value if isinstance(value, dict) else {}
