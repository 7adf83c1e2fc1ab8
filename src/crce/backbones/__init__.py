"""Diffusion families that concepts can be erased from."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.backbones.backbone import Backbone
    from crce.backbones.conditioning import Conditioning
    from crce.backbones.flux import FluxBackbone
    from crce.backbones.loading import load_backbone, load_pipeline
    from crce.backbones.sd3 import SD3Backbone
    from crce.backbones.sdxl import SDXLBackbone
    from crce.backbones.unet import UNetBackbone
    from crce.backbones.z_image import ZImageBackbone


__all__ = [
    "Backbone",
    "Conditioning",
    "FluxBackbone",
    "SD3Backbone",
    "SDXLBackbone",
    "UNetBackbone",
    "ZImageBackbone",
    "load_backbone",
    "load_pipeline",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Backbone": "backbone",
        "Conditioning": "conditioning",
        "FluxBackbone": "flux",
        "SD3Backbone": "sd3",
        "SDXLBackbone": "sdxl",
        "UNetBackbone": "unet",
        "ZImageBackbone": "z_image",
        "load_backbone": "loading",
        "load_pipeline": "loading",
    },
)
