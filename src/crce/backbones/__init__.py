"""Diffusion model families: load, encode prompts, predict, and what each family's layers are."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.backbones.backbone import Backbone
    from crce.backbones.conditioning import Conditioning
    from crce.backbones.families import FAMILIES, backbone_class
    from crce.backbones.loading import load_backbone, load_pipeline


__all__ = ["FAMILIES", "Backbone", "Conditioning", "backbone_class", "load_backbone", "load_pipeline"]

__getattr__ = lazy_names(__name__)
