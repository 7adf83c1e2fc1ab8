"""How images of a model are generated unless the user says otherwise: by its family and what it was distilled to.

A distilled model ("turbo", "schnell", ...) needs few steps and no guidance, in sampling and for the x_t of a training;
its files have the same classes as those of the model that it was distilled from. It is recognized by its configs where
they tell, else by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crce import demo
from crce.backbones.family_entries import SamplingDefaults
from crce.errors import CRCEError


if TYPE_CHECKING:
    from crce.backbones.backbone import Backbone

_KIN = re.compile(r"(?<![a-z])(turbo|lightning|hyper|lcm|schnell)(?![a-z])")


@dataclass(frozen=True)
class ModelDefaults:
    """How a model is sampled, and which layers are trained unless the user says otherwise.

    Transformers are trained where the text alone passes, as measured by benchmarks/erasure/flow.py on a small one.
    """

    kin: str  # what it was distilled to, or another name in its family's table; "" for most
    sampling: SamplingDefaults
    component: str  # the pipeline's name for its denoiser

    def training(self, *, implied: bool) -> dict[str, Any]:
        """Settings of an erasure over those of a recipe: where the user named it, a distilled model's x_t alone."""
        if implied:
            return self.sampling.training | ({"layers": "text"} if self.component == "transformer" else {})
        return self.sampling.training if self.sampling.guidance == 0 else {}

    def as_json(self) -> dict[str, Any]:
        """The sampling as run.json holds it."""
        own = self.sampling
        shown = {"kin": self.kin, "steps": own.steps, "guidance": own.guidance, "source": own.source}
        return {**shown, "solver": own.solver} if own.solver else shown


def choose_defaults(
    family: type[Backbone], model: str, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]
) -> ModelDefaults:
    """The defaults of a model as the user named it; configs are empty if unknown; its index is in `denoiser`."""
    named = _KIN.search(re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower())
    kin = "demo" if model in demo.MODELS else named[1] if named else family.kin(scheduler, denoiser)
    kin = kin if kin in family.defaults else ""
    return ModelDefaults(kin, family.defaults[kin], family.component)


def defaults_of(backbone: Backbone) -> ModelDefaults:
    """The defaults of a loaded model."""
    scheduler, denoiser = backbone.pipe.scheduler.config, backbone.network.config
    return choose_defaults(type(backbone), backbone.model, scheduler, {**backbone.pipe.config, **denoiser})


def find_defaults(model: str, revision: str | None = None) -> ModelDefaults | None:
    """The defaults of a model, from its configs alone; None where they can't be read: loading it explains why."""
    from crce.backbones.sources import model_path, published

    if entry := published(model, revision):
        component = next(part for part in entry["parts"] if part in ("unet", "transformer"))
        return ModelDefaults(entry["kin"], SamplingDefaults(**entry["sampling"]), component)
    from safetensors import SafetensorError

    from crce.backbones.families import backbone_class
    from crce.backbones.loading import single_file_pipeline
    from crce.backbones.meta_model import read_json

    try:
        path = model_path(model)
        if path.is_file():
            return choose_defaults(backbone_class(single_file_pipeline(path)), path.stem, {}, {})
        source = path if path.exists() else model
        index = read_json(source, "model_index.json", revision) or {}
        family = backbone_class(str(index.get("_class_name")))
        configs = ("scheduler/scheduler_config.json", f"{family.component}/config.json")
        scheduler, denoiser = (read_json(source, name, revision) or {} for name in configs)
        return choose_defaults(family, model, scheduler, {**index, **denoiser})
    except (CRCEError, OSError, ValueError, SafetensorError):
        return None


def fill_sampling(own: Mapping[str, Any], steps: int | None, guidance: float | None) -> tuple[int, float, str | None]:
    """Steps and guidance as the user gave them, where None those of a model (as `ModelDefaults.as_json` has them).

    The third is the solver: that of the model, whose few steps suit it, with steps of the user the model's scheduler.
    """
    scale = own["guidance"] if guidance is None else guidance
    return (own["steps"], scale, own.get("solver")) if steps is None else (steps, scale, None)
