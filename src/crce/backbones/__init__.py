"""Diffusion families that concepts can be erased from."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from crce.backbones.loading import load_backbone, load_pipeline
    from crce.backbones.unet import UNetBackbone


__all__ = ["UNetBackbone", "load_backbone", "load_pipeline"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line starts without torch.
    if name in ("load_backbone", "load_pipeline"):
        from crce.backbones import loading

        return getattr(loading, name)
    if name == "UNetBackbone":
        from crce.backbones.unet import UNetBackbone

        return UNetBackbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
