"""Entries in the tables of a family: its architectures, and how its models are sampled (see `defaults`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


LEAST_LEVELS = 3  # of the grid that x_t lies on
# schedulers of diffusers with what they change of a model's own, by name
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
}


@dataclass(frozen=True)
class Architecture:
    """The names of a model architecture in the metadata of exported files."""

    name: str  # in the Stability metadata standard (`modelspec.architecture`)
    kohya: str  # in kohya's metadata (`ss_base_model_version`)
    resolution: int  # width and height of its images in pixels
    implementation: str  # URL of the original code, by the Stability standard
    text_width: int | None = None  # of the token states that cross-attention reads, where it identifies it
    prediction_type: str | None = None  # of the denoiser, where it distinguishes it from another architecture
    kin: str = ""  # what it was distilled to, where that makes it another architecture


@dataclass(frozen=True)
class SamplingDefaults:
    """The sampling of one kind of model, and of the trajectories that x_t comes from; None takes the recipe's."""

    steps: int  # denoising steps of an image
    guidance: float  # classifier-free guidance scale of an image, as the pipeline counts it; 0 is none
    source: str  # who says so
    trajectory_steps: int | None = None  # noise levels
    trajectory_guidance: float | None = None  # where 1 is none
    solver: str | None = None  # see `SOLVERS`; None is the model's own scheduler

    @property
    def training(self) -> dict[str, Any]:
        """Settings of an erasure, where they are not the recipe's."""
        settings = {"ddim_steps": self.trajectory_steps, "guidance": self.trajectory_guidance}
        return {name: value for name, value in settings.items() if value is not None}


def distilled(steps: int, source: str) -> SamplingDefaults:
    """The sampling of a model that was distilled to few steps without guidance, on whose levels x_t then lies."""
    return SamplingDefaults(steps, 0.0, source, max(LEAST_LEVELS, steps), 1.0)
