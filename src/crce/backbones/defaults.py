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

from crce.errors import CRCEError


if TYPE_CHECKING:
    from crce.backbones.backbone import Backbone

_KIN = re.compile(r"(?<![a-z])(turbo|lightning|hyper|lcm|schnell)(?![a-z])")
BASE = ""  # the kin of a model that is not distilled
LEAST_LEVELS = 3  # of the grid that x_t lies on


@dataclass(frozen=True)
class SamplingDefaults:
    """The sampling of one kind of model.

    Attributes:
        steps: denoising steps of an image.
        guidance: classifier-free guidance scale of an image, as the pipeline counts it; 0 is none.
        source: who says so.
        trajectory_steps: noise levels of the trajectories that x_t comes from; None takes the recipe's.
        trajectory_guidance: their guidance, where 1 is none; None takes the recipe's.
    """

    steps: int
    guidance: float
    source: str
    trajectory_steps: int | None = None
    trajectory_guidance: float | None = None

    @property
    def training(self) -> dict[str, Any]:
        """Settings of an erasure, where they are not the recipe's."""
        settings = {"ddim_steps": self.trajectory_steps, "guidance": self.trajectory_guidance}
        return {name: value for name, value in settings.items() if value is not None}


def distilled(steps: int, source: str) -> SamplingDefaults:
    """The sampling of a model that was distilled to few steps without guidance, on whose levels x_t then lies."""
    return SamplingDefaults(steps, 0.0, source, max(LEAST_LEVELS, steps), 1.0)


@dataclass(frozen=True)
class ModelDefaults:
    """The sampling of a model.

    Attributes:
        pipeline: the class of its pipeline.
        kin: what it was distilled to, or another name in the family's table; "" for most models.
        sampling: its sampling.
    """

    pipeline: str
    kin: str
    sampling: SamplingDefaults

    def as_json(self) -> dict[str, Any]:
        """The sampling as run.json holds it."""
        own = self.sampling
        return {"kin": self.kin, "steps": own.steps, "guidance": own.guidance, "source": own.source}


def choose_defaults(
    family: type[Backbone], pipeline: str, model: str, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]
) -> ModelDefaults:
    """The defaults of a model.

    Args:
        family: its backbone.
        pipeline: the class of its pipeline.
        model: the model as the user named it.
        scheduler: config of its scheduler; empty where it is unknown.
        denoiser: config of its denoiser, likewise.
    """
    named = _KIN.search(re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower())
    kin = "demo" if model == "demo" else named[1] if named else family.kin(scheduler, denoiser)
    if kin not in family.defaults:
        kin = BASE
    return ModelDefaults(pipeline, kin, family.defaults[kin])


def defaults_of(backbone: Backbone) -> ModelDefaults:
    """The defaults of a loaded model."""
    pipe = backbone.pipe
    configs = pipe.scheduler.config, backbone.network.config
    return choose_defaults(type(backbone), type(pipe).__name__, backbone.model, *configs)


def find_defaults(model: str, revision: str | None = None) -> ModelDefaults | None:
    """The defaults of a model, from its configs alone; None where they can't be read: loading it explains why."""
    from crce.backbones.families import backbone_class
    from crce.backbones.loading import model_path, single_file_pipeline
    from crce.backbones.meta_model import read_json

    try:
        path = model_path(model)
        if path.is_file():
            pipeline = single_file_pipeline(path)
            return choose_defaults(backbone_class(pipeline), pipeline, path.stem, {}, {})
        source = path if path.exists() else model
        pipeline = str((read_json(source, "model_index.json", revision) or {}).get("_class_name"))
        family = backbone_class(pipeline)
        scheduler = read_json(source, "scheduler/scheduler_config.json", revision) or {}
        denoiser = read_json(source, f"{family.component}/config.json", revision) or {}
    except (CRCEError, OSError, ValueError):
        return None
    return choose_defaults(family, pipeline, model, scheduler, denoiser)
