"""The names of a model family's architectures in exported files."""

from __future__ import annotations

from dataclasses import dataclass


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
