"""The table of supported model families, keyed by the class name of the diffusers pipeline.

An entry is a subclass of `Backbone`, or its "module:attribute". Another package registers its own class as an entry
point of the group `crce.backbones` whose name is the pipeline class, such as
`PixArtSigmaPipeline = "my_package.pixart:PixArtBackbone"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.errors import ModelError
from crce.registry import Table


if TYPE_CHECKING:
    from crce.backbones.backbone import Backbone

FAMILIES: Table[type[Backbone] | str] = Table(
    "model family",
    "crce.backbones",
    {
        "StableDiffusionPipeline": "crce.backbones.unet:UNetBackbone",
        "StableDiffusionXLPipeline": "crce.backbones.sdxl:SDXLBackbone",
        "StableDiffusion3Pipeline": "crce.backbones.sd3:SD3Backbone",
        "FluxPipeline": "crce.backbones.flux:FluxBackbone",
        "Flux2KleinPipeline": "crce.backbones.flux2:Flux2KleinBackbone",
        "QwenImagePipeline": "crce.backbones.qwen_image:QwenImageBackbone",
        "ZImagePipeline": "crce.backbones.z_image:ZImageBackbone",
    },
    ModelError,
)


def backbone_class(pipeline: str) -> type[Backbone]:
    """The backbone of a pipeline class.

    Raises:
        ModelError: no family has that pipeline class.
    """
    return FAMILIES.resolve(pipeline, FAMILIES.find(pipeline))


def supported() -> str:
    """The supported pipeline classes with their models, for messages."""
    return ", ".join(f"{pipeline} ({backbone_class(pipeline).models})" for pipeline in FAMILIES)
