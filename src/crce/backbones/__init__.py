"""Diffusion families that concepts can be erased from."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.backbones.loading import load_backbone, load_pipeline
    from crce.backbones.unet import UNetBackbone


__all__ = ["UNetBackbone", "load_backbone", "load_pipeline"]

__getattr__ = lazy_names(__name__, {"UNetBackbone": "unet", "load_backbone": "loading", "load_pipeline": "loading"})
